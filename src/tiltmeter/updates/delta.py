"""The change of one weight matrix, always [o, i]: dense or in factors.

Everything here is linear algebra with float64 accumulation that never forms the [o, i] matrix of a low-rank change.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

ROWS = 1024


class Delta(ABC):
    """The change V of one linear module's weight: `[o, i]` (output width, input width), however the layer stores it."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """(o, i)."""

    @property
    @abstractmethod
    def tensors(self) -> tuple[Tensor, ...]:
        """What is stored: the matrix, or the two factors."""

    @abstractmethod
    def dense(self) -> Float[Tensor, "o i"]:
        """The matrix itself."""

    @abstractmethod
    def map(self, function: Callable[[Tensor], Tensor]) -> "Delta":
        """The same kind of change with `function` applied to each stored tensor: a cast or a move."""

    @abstractmethod
    def scaled(self, factor: float) -> "Delta":
        """`factor * V`."""

    @abstractmethod
    def core(self) -> Float[Tensor, "k l"]:
        """A small float64 matrix C with V = P C Q^T and orthonormal columns in P and Q: V up to its orientation."""

    def singular_values(self) -> Float[Tensor, " r"]:
        """Singular values in float64, descending."""
        values: Tensor = torch.linalg.svdvals(self.core())
        return values

    @abstractmethod
    def norm(self) -> float:
        """Frobenius norm, accumulated in float64."""


@dataclass(frozen=True)
class Dense(Delta):
    """A change given as its matrix `[o, i]`."""

    matrix: Float[Tensor, "o i"]

    @property
    def shape(self) -> tuple[int, int]:
        return self.matrix.shape[0], self.matrix.shape[1]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (self.matrix,)

    def dense(self) -> Float[Tensor, "o i"]:
        return self.matrix

    def map(self, function: Callable[[Tensor], Tensor]) -> "Dense":
        return Dense(function(self.matrix))

    def scaled(self, factor: float) -> "Dense":
        return Dense(self.matrix * factor)

    def core(self) -> Float[Tensor, "k l"]:
        matrix = self.matrix.double()
        wide = matrix.shape[0] < matrix.shape[1]
        R: Tensor = torch.linalg.qr(matrix.T if wide else matrix, mode="r").R
        return R.T if wide else R

    def norm(self) -> float:
        return float(torch.linalg.vector_norm(self.matrix, dtype=torch.float64))


@dataclass(frozen=True)
class LowRank(Delta):
    """A change `left @ right` with `left` [o, r] and `right` [r, i]."""

    left: Float[Tensor, "o r"]
    right: Float[Tensor, "r i"]

    @property
    def shape(self) -> tuple[int, int]:
        return self.left.shape[0], self.right.shape[1]

    @property
    def rank(self) -> int:
        """Number of columns of `left`: an upper bound of the rank of the matrix."""
        return self.left.shape[1]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (self.left, self.right)

    def dense(self) -> Float[Tensor, "o i"]:
        return self.left @ self.right

    def map(self, function: Callable[[Tensor], Tensor]) -> "LowRank":
        return LowRank(function(self.left), function(self.right))

    def scaled(self, factor: float) -> "LowRank":
        return LowRank(self.left * factor, self.right)

    def core(self) -> Float[Tensor, "k l"]:
        core_left: Tensor = torch.linalg.qr(self.left.double(), mode="r").R
        core_right: Tensor = torch.linalg.qr(self.right.double().T, mode="r").R
        return core_left @ core_right.T

    def norm(self) -> float:
        # Not from `inner`: where the columns cancel ([B, -B0] of PiSSA), squaring would lose half of the digits.
        return float(torch.linalg.vector_norm(self.core()))


def inner(a: Delta, b: Delta) -> float:
    """`<A, B> = tr(A^T B)` in float64; for factors `sum((La^T Lb) * (Ra Rb^T))`."""
    if isinstance(a, LowRank) and isinstance(b, LowRank):
        return float(((a.left.double().T @ b.left.double()) * (a.right.double() @ b.right.double().T)).sum())
    if isinstance(a, LowRank):
        return float(((a.left.double().T @ b.dense().double()) * a.right.double()).sum())
    if isinstance(b, LowRank):
        return inner(b, a)
    # In slices of rows, so that no whole copy in float64 is made.
    pairs = zip(torch.split(a.dense(), ROWS), torch.split(b.dense(), ROWS), strict=True)
    return sum(float((one.double() * two.double()).sum()) for one, two in pairs)


def add(a: Delta, b: Delta) -> Delta:
    """`A + B`: the factors side by side where both are low rank, else dense."""
    if isinstance(a, LowRank) and isinstance(b, LowRank):
        return LowRank(torch.cat([a.left, b.left], dim=1), torch.cat([a.right, b.right], dim=0))
    return Dense(a.dense() + b.dense())
