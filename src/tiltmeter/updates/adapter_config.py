"""What adapter_config.json says, checked; `base_model_name_or_path` in it is never followed."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, FiniteFloat, PositiveInt, ValidationError

from tiltmeter.errors import InputError
from tiltmeter.updates.files import read_json
from tiltmeter.updates.matching import HopelessPatternError, matches

FILE = "adapter_config.json"
WAY_OUT = "merge it into its base with PEFT (merge_and_unload, save_pretrained) and use Update.between(base, merged)"
UNSUPPORTED = (
    "layer_replication",
    "alora_invocation_tokens",
    "target_parameters",
    "megatron_config",
    "use_qalora",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
)
CHANGES_THE_BASE = ("pissa", "olora", "corda", "lora_ga", "loftq")


class AdapterConfig(BaseModel):
    """The fields of PEFT's LoraConfig that decide the effective update."""

    model_config = ConfigDict(extra="ignore")

    peft_type: str
    r: PositiveInt = 8
    lora_alpha: FiniteFloat = 8.0
    use_rslora: bool = False
    use_dora: bool = False
    init_lora_weights: bool | str = True
    rank_pattern: dict[str, PositiveInt] | None = None
    alpha_pattern: dict[str, FiniteFloat] | None = None
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    modules_to_save: list[str] | None = None
    layers_pattern: list[str] | str | None = None
    trainable_token_indices: list[int] | dict[str, list[int]] | None = None

    @property
    def changes_the_base(self) -> bool:
        """Was the base's weight altered when the adapter was initialised, so that it is part of the update?"""
        return str(self.init_lora_weights).lower().startswith(CHANGES_THE_BASE)

    def tokens(self, module: str) -> list[int]:
        """The trained rows of an embedding."""
        if isinstance(self.trainable_token_indices, dict):
            named = self.trainable_token_indices.items()
            return next((rows for key, rows in named if f".{module}".endswith(f".{key}")), [])
        return self.trainable_token_indices or []


def read_config(folder: Path) -> AdapterConfig:
    """The checked configuration of a LoRA adapter.

    Raises:
        InputError: missing, invalid, or a kind of adapter whose effective update cannot be read from its files.
    """
    file = folder / FILE
    fields = read_json(file)
    kind = fields.get("peft_type")
    if kind != "LORA":
        raise InputError(f"{file}: peft_type is {kind!r}, only LORA is supported: {WAY_OUT}")
    for name in UNSUPPORTED:
        if fields.get(name):
            raise InputError(f"{file}: {name} is not supported: {WAY_OUT}")
    try:
        return AdapterConfig.model_validate(fields)
    except ValidationError as error:
        first: Any = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{file}: {place}: {first['msg']}, got {first['input']!r:.80}") from error


def check_patterns(folder: Path, names: Iterable[str]) -> None:
    """Refuse an adapter with a regular expression that never finishes on these module names, before PEFT meets it.

    Args:
        folder: the adapter.
        names: every name of the base's `named_modules()`.

    Raises:
        InputError: an invalid pattern or one that does not finish; it names the file and the field.
    """
    config, known = read_config(folder), list(names)
    whole = {"target_modules": config.target_modules, "exclude_modules": config.exclude_modules}
    for field, pattern in whole.items():
        if isinstance(pattern, str):
            _matches(folder, field, [pattern], known, full=True)
    layers = [config.layers_pattern] if isinstance(config.layers_pattern, str) else config.layers_pattern or []
    parts = {
        "rank_pattern": [_suffix(key) for key in config.rank_pattern or {}],
        "alpha_pattern": [_suffix(key) for key in config.alpha_pattern or {}],
        "modules_to_save": [rf"(^|.*\.){name}($|\..*)" for name in config.modules_to_save or []],
        "layers_pattern": [rf"(?:^|.*?\.){pattern}\.(?P<idx>\d+)\." for pattern in layers],
    }
    for field, patterns in parts.items():
        _matches(folder, field, patterns, known)


def scales(folder: Path, config: AdapterConfig, names: list[str]) -> dict[str, tuple[int, float]]:
    """(r, scale) of each module: `alpha / r`, or `alpha / sqrt(r)` for rsLoRA.

    The first key of `rank_pattern` and of `alpha_pattern` that matches the end of a module's name counts
    (source: `peft.utils.other.get_pattern_key`).

    Raises:
        InputError: a pattern that is invalid or does not finish.
    """
    ranks = _first_key(folder, "rank_pattern", [*(config.rank_pattern or {})], names)
    alphas = _first_key(folder, "alpha_pattern", [*(config.alpha_pattern or {})], names)
    found = {}
    for name in names:
        r = (config.rank_pattern or {}).get(ranks[name], config.r)
        alpha = (config.alpha_pattern or {}).get(alphas[name], config.lora_alpha)
        found[name] = (r, alpha / (r**0.5 if config.use_rslora else r))
    return found


def _first_key(folder: Path, field: str, keys: list[str], names: list[str]) -> dict[str, str]:
    """The first key that matches each name, or the name itself."""
    matched = _matches(folder, field, [_suffix(key) for key in keys], names)
    found = {name: key for key in reversed(keys) for name in matched[_suffix(key)]}
    return {name: found.get(name, name) for name in names}


def _suffix(key: str) -> str:
    return rf"(.*\.)?({key})$"


def _matches(
    folder: Path, field: str, patterns: list[str], names: list[str], full: bool = False
) -> dict[str, list[str]]:
    try:
        return matches(patterns, names, full)
    except HopelessPatternError as error:
        raise InputError(f"{folder / FILE}: {field}: {error}") from error
