"""Singular frames of several changes of one module, known by their inner products alone.

Everything that compares updates is a function of the r x r products of their singular vectors. One product of all
factors side by side gives them all: O((o + i) R^2) for R columns in total, and no [o, i] matrix.
"""

import math
from collections.abc import Sequence
from functools import partial
from itertools import accumulate

import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.geometry.thin import Thin

WELL_CONDITIONED = 1e3  # above it a factor's Gram has lost more than 10 of its 16 digits: QR then
NEGLIGIBLE = 1e-14  # of the norms of the two factors, where rounding begins: rank ends there


class Frames:
    """`V_k = U_k diag(values_k) W_k^T` of K changes of one module, columns of U_k [o, r] and W_k [i, r] orthonormal.

    Attributes:
        changes: the changes in factors.
        values: singular values of each, float64, descending; those that are rounding are left out.
    """

    def __init__(self, changes: Sequence[Thin]) -> None:
        self.changes = changes
        self._left = _Side([change.left for change in changes])
        self._right = _Side([change.right.mT for change in changes])
        self.values: list[Float[Tensor, " r"]] = []
        self._turns: list[tuple[Tensor, Tensor]] = []
        for k in range(len(changes)):
            triangles = self._left.triangles[k], self._right.triangles[k]
            U, values, Wh = torch.linalg.svd(triangles[0] @ triangles[1].T)
            rank = int((values > NEGLIGIBLE * triangles[0].norm() * triangles[1].norm()).sum())
            self.values.append(values[:rank])
            self._turns.append((self._left.inverses[k] @ U[:, :rank], self._right.inverses[k] @ Wh[:rank].T))

    def energy(self, k: int) -> float:
        """Squared Frobenius norm of the whole change."""
        known = self.changes[k].energy
        return float(self.values[k].square().sum()) if known is None else known

    def left(self, a: int, b: int) -> Float[Tensor, "ra rb"]:
        """`U_a^T U_b`."""
        product: Tensor = self._turns[a][0].T @ self._left.gram(a, b) @ self._turns[b][0]
        return product

    def right(self, a: int, b: int) -> Float[Tensor, "ra rb"]:
        """`W_a^T W_b`."""
        product: Tensor = self._turns[a][1].T @ self._right.gram(a, b) @ self._turns[b][1]
        return product

    def factor_cosine(self, a: int, b: int) -> float | None:
        """Cosine of the two right factors as they are stored, row by row; None where their ranks differ.

        It tells a common initialisation of LoRA's A, and is the one figure here that depends on the factors' gauge.
        """
        if self.changes[a].rank != self.changes[b].rank:
            return None
        inner, one, two = (float(self._right.stored(*pair).trace()) for pair in ((a, b), (a, a), (b, b)))
        return inner / math.sqrt(one * two)


class _Side:
    """One side's factors side by side, [n, R], with a triangle T_k for each: `factor_k T_k^-1` is orthonormal."""

    def __init__(self, factors: Sequence[Float[Tensor, "n r"]]) -> None:
        ends = list(accumulate(factor.shape[1] for factor in factors))
        self._columns = [slice(end - factor.shape[1], end) for end, factor in zip(ends, factors, strict=True)]
        height, width = len(factors[0]), ends[-1]
        # In the factors' own memory order: copying them is most of the work.
        empty, by_rows = partial(torch.empty, dtype=torch.float64), factors[0].is_contiguous()
        joint = empty(height, width) if by_rows else empty(width, height).T
        for columns, factor in zip(self._columns, factors, strict=True):
            joint[:, columns] = factor
        self._stored = self._gram = joint.T @ joint
        found = [_cholesky(self.gram(k, k)) for k in range(len(factors))]
        pairs = [good or _orthogonalise(joint, where) for good, where in zip(found, self._columns, strict=True)]
        self.triangles, self.inverses = [triangle for triangle, _ in pairs], [inverse for _, inverse in pairs]
        if not all(found):
            self._gram = joint.T @ joint

    def gram(self, a: int, b: int) -> Float[Tensor, "ra rb"]:
        return self._gram[self._columns[a], self._columns[b]]

    def stored(self, a: int, b: int) -> Float[Tensor, "ra rb"]:
        """Inner products of the factors as they were given."""
        return self._stored[self._columns[a], self._columns[b]]


def _cholesky(gram: Float[Tensor, "r r"]) -> tuple[Tensor, Tensor] | None:
    """(T, T^-1) with `gram = T^T T`, where that is accurate."""
    triangle, failed = torch.linalg.cholesky_ex(gram, upper=True)
    if failed:
        return None
    inverse = torch.linalg.solve_triangular(triangle, torch.eye(len(gram), dtype=gram.dtype), upper=True)
    condition = float(triangle.norm() * inverse.norm())
    return (triangle, inverse) if condition <= WELL_CONDITIONED else None


def _orthogonalise(joint: Float[Tensor, "n R"], columns: slice) -> tuple[Tensor, Tensor]:
    """Puts an orthonormal basis in the place of one factor; (T, 1) with `factor = basis T`."""
    Q, R = torch.linalg.qr(joint[:, columns])
    width, rank = R.shape[1], R.shape[0]  # fewer rows than columns where the factor is wider than tall
    joint[:, columns] = torch.cat([Q, Q.new_zeros(len(Q), width - rank)], 1)
    triangle = torch.cat([R, R.new_zeros(width - rank, width)])
    return triangle, torch.eye(width, dtype=joint.dtype)
