"""An update: the change of a model's linear modules, as a lazy mapping from module name to `Delta`."""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from tiltmeter.errors import InputError
from tiltmeter.updates.delta import Delta, Dense, LowRank, add, inner
from tiltmeter.updates.files import Reading
from tiltmeter.updates.finite import is_finite

if TYPE_CHECKING:
    from tiltmeter.updates.saving import EnergyLost

DIFFERENCE = "adapter difference"


class Update(Mapping[str, Delta]):
    """The change dW of a model's linear modules, each `[o, i]`, by module name as in `named_modules()`.

    Adapters, differences of checkpoints, gradients, Hessian-vector products, displacements and random nulls are all
    updates. A module's `Delta` is produced anew at each access, so an update of any size fits in memory; call
    `loaded()` to keep them.

    >>> one = Update.from_tensors({"a": torch.ones(2, 3)})
    >>> (2 * one + one).norm() / one.norm()
    3.0

    Attributes:
        kind: where it came from: "adapter", "checkpoint", "tensors", ...; `DIFFERENCE` is an adapter minus its own
            start, whose factors are those of both.
        not_covered: parameters that changed but are no linear module's weight (norms, biases, embeddings): name -> norm
            of the change.
    """

    def __init__(
        self,
        deltas: Mapping[str, Delta | Callable[[], Delta]],
        kind: str = "tensors",
        not_covered: Mapping[str, float] | None = None,
    ) -> None:
        self._deltas = dict(deltas)
        self.kind = kind
        self.not_covered = dict(not_covered or {})

    # Reading and saving: each has a file of its own.

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor | tuple[Tensor, Tensor]]) -> "Update":
        """An update from matrices `[o, i]`, or from pairs `(left [o, r], right [r, i])`.

        Raises:
            InputError: a tensor that is no matrix, factors that do not fit, NaN or Inf; it names the module.
        """
        return cls({name: checked(name, _delta(name, value)) for name, value in tensors.items()})

    @classmethod
    def from_adapter(
        cls,
        folder: str | Path,
        base: str | Path | None = None,
        initial: str | Path | None = None,
        io: Reading = "mmap",
    ) -> "Update":
        """The effective update of a PEFT LoRA adapter; see `tiltmeter.updates.adapters.read_adapter`."""
        from tiltmeter.updates.adapters import read_adapter

        return read_adapter(Path(folder), _path(base), _path(initial), io)

    @classmethod
    def between(cls, base: str | Path, tuned: str | Path, io: Reading = "mmap") -> "Update":
        """The difference of two checkpoints, streamed; see `tiltmeter.updates.checkpoints.read_difference`."""
        from tiltmeter.updates.checkpoints import read_difference

        return read_difference(Path(base), Path(tuned), io)

    @classmethod
    def random_like(cls, update: "Update", seed: int = 0) -> "Update":
        """A random update of the same rank and spectrum; see `tiltmeter.updates.nulls.same_spectrum`."""
        from tiltmeter.updates.nulls import same_spectrum

        return same_spectrum(update, seed)

    def save_adapter(self, folder: str | Path, base: str | Path | None = None, rank: int | None = None) -> "EnergyLost":
        """Write the update as a PEFT LoRA adapter; see `tiltmeter.updates.saving.save_adapter`."""
        from tiltmeter.updates.saving import save_adapter

        return save_adapter(self, Path(folder), _path(base), rank)

    # The mapping.

    def __getitem__(self, name: str) -> Delta:
        delta = self._deltas[name]
        return delta if isinstance(delta, Delta) else delta()

    def __contains__(self, name: object) -> bool:
        return name in self._deltas  # without producing the delta

    def __iter__(self) -> Iterator[str]:
        return iter(self._deltas)

    def __len__(self) -> int:
        return len(self._deltas)

    def __repr__(self) -> str:
        return f"Update(kind={self.kind!r}, modules={len(self)}, not_covered={len(self.not_covered)})"

    # The algebra.

    def map(self, function: Callable[[str, Delta], Delta], kind: str | None = None) -> "Update":
        """The update with `function(name, delta)` in the place of each `Delta`, computed when it is asked for."""
        lazy = {name: partial(_mapped, function, self, name) for name in self}
        return Update(lazy, kind or self.kind, self.not_covered)

    def loaded(self) -> "Update":
        """The same update with every `Delta` held in memory."""
        return Update(dict(self), self.kind, self.not_covered)

    def inner(self, other: "Update") -> float:
        """`<dW, dV>`: the sum over common modules of `tr(dW_m^T dV_m)`, in float64.

        Raises:
            InputError: shapes that differ; it names the module.
        """
        return math.fsum(inner(*_alike(name, self, other)) for name in self if name in other)

    def norm(self) -> float:
        """Frobenius norm over all modules."""
        return math.hypot(*(delta.norm() for delta in self.values()))

    def __mul__(self, factor: float) -> "Update":
        scaled = self.map(lambda _, delta: delta.scaled(factor))
        scaled.not_covered = {name: abs(factor) * norm for name, norm in self.not_covered.items()}
        return scaled

    __rmul__ = __mul__

    def __neg__(self) -> "Update":
        return -1.0 * self

    def __add__(self, other: "Update") -> "Update":
        """The sum. What is not covered has norms only, which do not add: the bound `a + b` is kept."""
        names = dict.fromkeys([*self, *other])
        uncovered = dict.fromkeys([*self.not_covered, *other.not_covered])
        return Update(
            {name: partial(_sum, name, self, other) for name in names},
            self.kind,
            {name: self.not_covered.get(name, 0.0) + other.not_covered.get(name, 0.0) for name in uncovered},
        )

    def __sub__(self, other: "Update") -> "Update":
        return self + (-1.0 * other)


def checked(name: str, delta: Delta) -> Delta:
    """The delta, if it is finite.

    Raises:
        InputError: NaN or Inf; it names the module.
    """
    for tensor in delta.tensors:
        if not is_finite(tensor):
            raise InputError(f"module {name}: expected finite numbers, found NaN or Inf in its update")
    return delta


def _mapped(function: Callable[[str, Delta], Delta], update: Update, name: str) -> Delta:
    return function(name, update[name])


def _sum(name: str, a: Update, b: Update) -> Delta:
    if name in a and name in b:
        return add(*_alike(name, a, b))
    return a[name] if name in a else b[name]


def _alike(name: str, a: Update, b: Update) -> tuple[Delta, Delta]:
    one, two = a[name], b[name]
    if one.shape != two.shape:
        raise InputError(f"module {name}: cannot combine updates of shapes {one.shape} and {two.shape}")
    return one, two


def _delta(name: str, value: Tensor | tuple[Tensor, Tensor]) -> Delta:
    if isinstance(value, Tensor):
        if value.ndim != 2:
            raise InputError(f"module {name}: expected a matrix [o, i], got shape {tuple(value.shape)}")
        return Dense(value)
    left, right = value
    if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[0]:
        raise InputError(
            f"module {name}: expected factors [o, r] and [r, i], got {tuple(left.shape)} and {tuple(right.shape)}"
        )
    return LowRank(left, right)


def _path(value: str | Path | None) -> Path | None:
    return None if value is None else Path(value)
