"""The difference of two checkpoints on disk, one pair of tensors in memory at a time."""

import math
import re
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from tiltmeter.errors import InputError
from tiltmeter.updates.delta import Dense
from tiltmeter.updates.files import Reading
from tiltmeter.updates.model_folder import ModelFolder
from tiltmeter.updates.update import Update

PIECE = 1 << 24  # numbers of an embedding in float32 at a time


def read_difference(base: Path, tuned: Path, io: Reading = "mmap") -> Update:
    """`dW = W_tuned - W_base` for each linear module, taken in float32 (float64 where either side is stored so).

    Weights are read when a module is asked for. Every other tensor that differs (norms, biases, embeddings, experts,
    vision towers, an output layer tied to the embedding in both models) is read once, here, and listed in
    `not_covered`. `io` says how the files are read; see `tiltmeter.updates.files.Tensors`.

    Raises:
        InputError: a folder that cannot be read (see `ModelFolder`), a tensor on one side only, shapes that differ, NaN
            or Inf, or no difference at all.
    """
    pair = _Pair(ModelFolder(base, io), ModelFolder(tuned, io))
    linears = {name: None for name in pair.names if pair.covers(name)}
    modules = [name.removesuffix(".weight") for name in linears]
    norms = {name: pair.norm(name) for name in pair.names if name not in linears}
    changed = {name: norm for name, norm in norms.items() if norm}
    update = Update({module: partial(pair.dense, module) for module in modules}, "checkpoint", changed)
    if not any(pair.differs(name) for name in linears):
        elsewhere = f"; {len(changed)} other parameters differ, such as {next(iter(changed))}" if changed else ""
        raise InputError(f"{tuned}: no linear layer's weight differs from {base}{elsewhere}")
    return update


class _Pair:
    """Two model folders and the tensors that both hold."""

    def __init__(self, base: ModelFolder, tuned: ModelFolder) -> None:
        self.base, self.tuned = base, tuned
        self.names = [name for name in dict.fromkeys([*base.stored, *tuned.stored]) if self._on_both_sides(name)]
        for name in self.names:
            self._check_shapes(name)

    def covers(self, name: str) -> bool:
        """Is it the weight of a linear module of the base, and of that module alone in one of the models?"""
        module, _, kind = name.rpartition(".")
        tied = self.base.twins(name) and self.tuned.twins(name)
        return kind == "weight" and module in self.base.linears and not tied

    def dense(self, module: str) -> Dense:
        return Dense(self.base.oriented(module, self._difference(f"{module}.weight")))

    def norm(self, name: str) -> float:
        if not self.differs(name):
            return 0.0
        new, old = (part.flatten().split(PIECE) for part in self._both(name))
        pieces = (_wide(one) - _wide(other) for one, other in zip(new, old, strict=True))
        return math.hypot(*(float(torch.linalg.vector_norm(piece, dtype=torch.float64)) for piece in pieces))

    def differs(self, name: str) -> bool:
        """Compared as stored, so that what no float can hold (masks, quantised weights) may still be equal."""
        old, new = self._source(self.base, name), self._source(self.tuned, name)
        if self.base.tensors[old].dtype == self.tuned.tensors[new].dtype:
            return not torch.equal(self.base.tensors.raw(old), self.tuned.tensors.raw(new))
        return bool(self._difference(name).any())

    def _difference(self, name: str) -> Tensor:
        new, old = self._both(name)
        return _wide(new) - _wide(old)

    def _both(self, name: str) -> tuple[Tensor, Tensor]:
        """The tuned tensor and the base's, as stored."""
        new, old = (side.tensors.floats(self._source(side, name)) for side in (self.tuned, self.base))
        return new, old

    def _on_both_sides(self, name: str) -> bool:
        for side, other in ((self.base, self.tuned), (self.tuned, self.base)):
            if side.source(name) is None:
                if _never_loaded(name, other):
                    return False
                raise InputError(f"{side.folder}: no tensor {name} in its files, but {other.folder} has it")
        return True

    def _check_shapes(self, name: str) -> None:
        old = self.base.tensors[self._source(self.base, name)]
        new = self.tuned.tensors[self._source(self.tuned, name)]
        if old.shape != new.shape:
            raise InputError(
                f"{new.file}: tensor {name} is {list(new.shape)}, expected {list(old.shape)} as in {old.file}"
            )

    def _source(self, side: ModelFolder, name: str) -> str:
        source = side.source(name)
        assert source is not None
        return source


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _never_loaded(name: str, folder: ModelFolder) -> bool:
    """Buffers that older releases saved and that transformers ignores."""
    ignored = getattr(folder.model, "_keys_to_ignore_on_load_unexpected", None) or ()
    # The patterns are loose (GPT-2's "attn.bias" also fits c_attn.bias): no parameter is ever ignored.
    return name not in folder.parameters and any(
        re.search(pattern, name) for pattern in (*ignored, r"rotary_emb\.inv_freq")
    )
