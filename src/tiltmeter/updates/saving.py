"""An update written as a PEFT LoRA adapter: `W + dW` for every tool that loads adapters."""

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from torch import Tensor, nn

from tiltmeter.errors import InputError
from tiltmeter.layers import find_linears, is_transposed, skeleton, widths
from tiltmeter.progress import track
from tiltmeter.updates.adapter_files import PREFIX
from tiltmeter.updates.delta import Delta, LowRank
from tiltmeter.updates.truncation import truncated
from tiltmeter.updates.update import Update

if TYPE_CHECKING:
    from peft import LoraConfig

TRUNCATION = "truncation.json"


@dataclass(frozen=True)
class EnergyLost:
    """The share of `||dW||^2` that truncation left out: `1 - sum_{i <= rank} sigma_i^2 / sum_i sigma_i^2`.

    Attributes:
        total: over all modules.
        modules: by module; 0 where nothing was left out.
    """

    total: float
    modules: dict[str, float]


def save_adapter(update: Update, folder: Path, base: Path | None = None, rank: int | None = None) -> EnergyLost:
    """Write `adapter_config.json` and `adapter_model.safetensors`, whose effective update is `update`.

    A module's factors become `lora_B` [o, r] and `lora_A` [r, i] in the dtype that they have, with alpha = r, so that
    PEFT's scale alpha/r is 1. Columns and rows that are exactly zero are left out, and with them modules that do not
    change.

    Args:
        update: factors in every module, unless a rank is given.
        folder: does not exist, or is empty. It appears complete or not at all.
        base: the model's folder, of which config.json is read: names and shapes are checked against it, and PEFT is
            told where it is and which way its layers store their weights.
        rank: replace each module's change by the nearest one of this rank (see `truncated`); the energy that this loses
            is written to `truncation.json` beside the adapter, and returned.

    Raises:
        InputError: a parameter that no linear module covers, a dense change without a rank, a module or shape that is
            not the base's, no change at all, a rank below 1, or a folder in use.
    """
    _check_folder(folder)
    _check_covered(update)
    if rank is not None and rank < 1:
        raise InputError(f"rank: expected 1 or more, got {rank}")
    layers = {} if base is None else _linears_of(base, update)
    factors, lost = _factors(update, layers, rank)
    if not factors:
        raise InputError(f"{folder}: nothing to save: the update changes no module")
    with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        made = Path(temporary) / folder.name
        made.mkdir()
        _write_tensors(made, factors)
        config = _config({name: delta.rank for name, delta in factors.items()})
        config.base_model_name_or_path = None if base is None else str(base)
        config.fan_in_fan_out = any(is_transposed(layer) for layer in layers.values())
        config.save_pretrained(str(made))
        if rank is not None:
            (made / TRUNCATION).write_text(json.dumps({"rank": rank, "energy_lost": asdict(lost)}, indent=2))
        made.rename(folder)
    return lost


def _check_folder(folder: Path) -> None:
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"{folder}: exists already; expected a new or empty folder")
    folder.parent.mkdir(parents=True, exist_ok=True)


def _check_covered(update: Update) -> None:
    others = [name for name, norm in update.not_covered.items() if norm]
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        raise InputError(
            f"an adapter holds changes of linear modules only, but {', '.join(others[:3])}{more} changed too: "
            "save the whole model as a checkpoint instead"
        )


def _linears_of(base: Path, update: Update) -> dict[str, nn.Module]:
    """The base's layers that the update changes, without weights."""
    linears = find_linears(skeleton(base))
    strange = [name for name in update if name not in linears]
    if strange:
        raise InputError(f"{base}: has no linear module {strange[0]}, which the update changes")
    return {name: linears[name] for name in update}


def _factors(
    update: Update, layers: Mapping[str, nn.Module], rank: int | None
) -> tuple[dict[str, LowRank], EnergyLost]:
    factors, left_out, energies = {}, {}, {}
    for name, delta in track(update.items(), "saving", len(update)):
        if name in layers and delta.shape != widths(layers[name]):
            raise InputError(f"module {name}: changes {delta.shape}, expected {widths(layers[name])} as in the base")
        nearest, left_out[name] = truncated(delta, rank) if rank else (_low_rank(name, delta), 0.0)
        energies[name] = delta.norm() ** 2 if rank else 0.0
        kept = _without_zeros(nearest)
        if kept.rank:
            factors[name] = kept
    shares = {name: _share(left_out[name], energies[name]) for name in energies}
    return factors, EnergyLost(_share(sum(left_out.values()), sum(energies.values())), shares)


def _share(part: float, whole: float) -> float:
    return part / whole if part else 0.0


def _low_rank(name: str, delta: Delta) -> LowRank:
    if not isinstance(delta, LowRank):
        raise InputError(f"module {name}: its change is a dense matrix; an adapter of it needs a rank (rank=...)")
    return delta


def _without_zeros(delta: LowRank) -> LowRank:
    kept = delta.left.any(0) & delta.right.any(1)
    return LowRank(delta.left[:, kept], delta.right[kept])


def _write_tensors(folder: Path, factors: Mapping[str, LowRank]) -> None:
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    for name, delta in factors.items():
        tensors[f"{PREFIX}{name}.lora_A.weight"] = delta.right.cpu().contiguous()
        tensors[f"{PREFIX}{name}.lora_B.weight"] = delta.left.cpu().contiguous()
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def _config(ranks: Mapping[str, int]) -> "LoraConfig":
    """Exactly these modules, each with its rank and with alpha = r."""
    from peft import LoraConfig

    usual = Counter(ranks.values()).most_common(1)[0][0]
    # PEFT matches `(.*\.)?(KEY)$`, so that a bare name would also stand for longer names that end with it.
    unusual = {f"^{re.escape(name)}": rank for name, rank in ranks.items() if rank != usual}
    config = LoraConfig(r=usual, lora_alpha=usual, task_type="CAUSAL_LM", inference_mode=True)
    config.rank_pattern, config.alpha_pattern = unusual, unusual
    config.target_modules = list(ranks)  # given to LoraConfig it becomes a set, in another order each time
    return config
