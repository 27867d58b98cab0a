"""The effective update of a PEFT LoRA adapter, from its files. Of the base only the weights that are needed are read.

Written against peft 0.21: `tuners/lora/{layer,dora,variants}.py`, `utils/{other,save_and_load}.py`.
"""

from collections.abc import Callable
from functools import partial, reduce
from pathlib import Path

import torch

from tiltmeter.errors import InputError
from tiltmeter.updates.adapter_config import FILE, WAY_OUT, check_patterns
from tiltmeter.updates.adapter_files import AdapterFiles
from tiltmeter.updates.delta import Delta, Dense, LowRank, add
from tiltmeter.updates.files import Reading
from tiltmeter.updates.model_folder import ModelFolder
from tiltmeter.updates.update import DIFFERENCE, Update, checked

__all__ = ["check_patterns", "read_adapter"]

Parts = dict[str, list[Callable[[], Delta]]]


def read_adapter(folder: Path, base: Path | None = None, initial: Path | None = None, io: Reading = "mmap") -> Update:
    """`dW = s B A` per module as [o, r] @ [r, i], s folded into the left factor, in float32 or float64.

    s is alpha/r, or alpha/sqrt(r) for rsLoRA, by `rank_pattern` and `alpha_pattern`. DoRA: `m V/||V||_row - W` with
    `V = W + s B A`, dense. PiSSA, OLoRA, CorDA, LoRA-GA: `s (B A - B0 A0)`; LoftQ too, which leaves out the rounding of
    its base. Linear layers of `modules_to_save` are dense differences from the base. What else the adapter changes
    (embeddings, trained tokens, biases, norms, and with a base what text cannot reach) is in `not_covered` by parameter
    name.

    Args:
        folder: adapter_config.json and adapter_model.safetensors.
        base: the model's folder; needed for DoRA, trained tokens and whatever is saved whole. With it every name and
            shape is checked, and module names are those of its `named_modules()`.
        initial: the adapter as it was before training; needed, and read, where the initialisation changed the base.
        io: how all these files are read; see `tiltmeter.updates.files.Tensors`.

    Raises:
        InputError: an unsafe or broken file, an unsupported kind, keys that match nothing, factors that do not fit, NaN
            or Inf, a missing base or initial adapter, or an adapter that changes no linear layer.
    """
    files = AdapterFiles(folder, io)
    start = _initial(files, initial, io) if files.config.changes_the_base else None
    adapter = _Adapter(files, None if base is None else ModelFolder(base, io), start)
    covered, others = adapter.parts()
    norms = {name: _total(folder, name, parts).norm() for name, parts in others.items()}
    not_covered = {name: norm for name, norm in norms.items() if norm}
    kind = "adapter" if adapter.initial is None else DIFFERENCE
    update = Update({name: partial(_total, folder, name, parts) for name, parts in covered.items()}, kind, not_covered)
    if not any(delta.norm() for delta in update.values()):
        elsewhere = f", only other parameters such as {next(iter(not_covered))}" if not_covered else ""
        raise InputError(f"{folder}: the adapter did nothing: it changes no linear layer{elsewhere}")
    return update


class _Adapter:
    def __init__(self, files: AdapterFiles, base: ModelFolder | None, initial: AdapterFiles | None) -> None:
        self.files, self.base, self.initial = files, base, initial
        self.config = files.config
        if base is not None:
            self.files.check_against(base)
        elif needs := [*self.files.whole, *self.files.tokens, *(self.files.factors if self.config.use_dora else ())]:
            raise InputError(
                f"{self.files.file}: {needs[0]} is saved relative to the base (DoRA, modules_to_save, biases, tokens): "
                "give the base's folder too (base=...)"
            )

    def parts(self) -> tuple[Parts, Parts]:
        """What adds up to the change of each linear module, and of each other parameter, by name."""
        covered: Parts = {}
        others: Parts = {}
        for module in self.files.factors:
            name = self._name(module)
            change = partial(self._dora if self.config.use_dora else self._low_rank, module)
            if self.files.is_embedding(module) or not (self.base is None or name in self.base.linears):
                others.setdefault(f"{name}.weight", []).append(change)
            else:
                covered.setdefault(name, []).append(change)
        for module in self.files.biases:
            others.setdefault(f"{self._name(module)}.bias", []).append(partial(self._bias, module))
        for module in self.files.tokens:
            others.setdefault(f"{self._name(module)}.weight", []).append(partial(self._tokens, module))
        for key, parameter in self.files.whole.items():
            name = self._needed_base.parameter(parameter) or parameter
            module, _, kind = name.rpartition(".")
            is_linear = kind == "weight" and module in self._needed_base.linears
            table, entry = (covered, module) if is_linear else (others, name)
            table.setdefault(entry, []).append(partial(self._whole, key, name))
        return covered, others

    def _low_rank(self, module: str) -> LowRank:
        left, right = self.files.scaled_factors(module)
        if self.initial is None:
            return LowRank(left, right)
        left0, right0 = (factor.to(left.dtype) for factor in self.initial.scaled_factors(module))
        if torch.equal(left, left0) and torch.equal(right, right0):
            left, left0 = torch.zeros_like(left), torch.zeros_like(left0)  # exactly zero, not up to rounding
        return LowRank(torch.cat([left, -left0], dim=1), torch.cat([right, right0], dim=0))

    def _dora(self, module: str) -> Dense:
        magnitude = self.files.read(module, "lora_magnitude_vector")
        weight = self._needed_base.weight(self._name(module))
        total = weight + self._low_rank(module).dense()
        return Dense((magnitude / torch.linalg.vector_norm(total, dim=1))[:, None] * total - weight)

    def _bias(self, module: str) -> Dense:
        return Dense(self.files.scale(module) * self.files.read(module, "lora_B.bias")[None])

    def _tokens(self, module: str) -> Dense:
        rows, new = self.config.tokens(module), self.files.read(module, "token_adapter.trainable_tokens_delta")
        old = self._needed_base.weight(self._name(module)).T
        if new.shape != (len(rows), old.shape[1]) or not all(0 <= row < len(old) for row in rows):
            raise InputError(
                f"{self.files.file}: trained tokens of {module} are {list(new.shape)}, expected {len(rows)} rows "
                f"of the embedding {list(old.shape)} by trainable_token_indices"
            )
        return Dense(new - old[rows])

    def _whole(self, key: str, name: str) -> Dense:
        base = self._needed_base
        change = self.files.tensors.read(key) - base.read(name)
        if change.ndim != 2:
            return Dense(change.reshape(1, -1))
        return Dense(base.oriented(name.rpartition(".")[0], change))

    def _name(self, module: str) -> str:
        """The base's name of a module of the adapter."""
        return module if self.base is None else self.base.module(module) or module

    @property
    def _needed_base(self) -> ModelFolder:
        assert self.base is not None  # checked in the beginning
        return self.base


def _initial(tuned: AdapterFiles, initial: Path | None, io: Reading) -> AdapterFiles:
    """The adapter as it was before training."""
    folder, kind = tuned.tensors.folder, tuned.config.init_lora_weights
    if initial is None:
        raise InputError(
            f"{folder / FILE}: init_lora_weights={kind!r} changed the base too: give the adapter as it was "
            f"before training (save_pretrained right after get_peft_model; initial=...), or {WAY_OUT}"
        )
    files = AdapterFiles(initial, io)
    if set(files.factors) != set(tuned.factors):
        odd = sorted(set(files.factors) ^ set(tuned.factors))
        raise InputError(f"{initial}: expected the modules of {folder}, but {odd[0]} is in one of them only")
    for module in files.factors:
        if files.shape(module) != tuned.shape(module):
            raise InputError(f"{initial}: module {module} is {files.shape(module)}, expected {tuned.shape(module)}")
    return files


def _total(folder: Path, name: str, parts: list[Callable[[], Delta]]) -> Delta:
    try:
        return checked(name, reduce(add, (part() for part in parts)))
    except InputError as error:
        raise error if str(folder) in str(error) else InputError(f"{folder}: {error}") from error
