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
        left_factors, right_factors: each side's factors, `V_k = left_k right_k^T`.
        values: singular values of each, float64, descending; those that are rounding are left out.
    """

    def __init__(self, changes: Sequence[Thin]) -> None:
        self.changes = changes
        self.left_factors = Factors([change.left for change in changes])
        self.right_factors = Factors([change.right.mT for change in changes])
        self.values: list[Tensor] = []
        self._turns: list[tuple[Tensor, Tensor]] = []
        for left, right in zip(self.left_factors.triangles, self.right_factors.triangles, strict=True):
            U, values, Wh = torch.linalg.svd(left @ right.T)
            rank = int((values > NEGLIGIBLE * left.norm() * right.norm()).sum())
            self.values.append(values[:rank])
            self._turns.append((U[:, :rank], Wh[:rank].T))

    def energy(self, k: int) -> float:
        """Squared Frobenius norm of the whole change."""
        known = self.changes[k].energy
        return float(self.values[k].square().sum()) if known is None else known

    def left(self, a: int, b: int) -> Float[Tensor, "ra rb"]:
        """`U_a^T U_b`."""
        return self._turns[a][0].T @ self.left_factors.bases(a, b) @ self._turns[b][0]

    def right(self, a: int, b: int) -> Float[Tensor, "ra rb"]:
        """`W_a^T W_b`."""
        return self._turns[a][1].T @ self.right_factors.bases(a, b) @ self._turns[b][1]


class Factors:
    """One side's factors, known by their inner products: `factor_k = Q_k T_k` with orthonormal columns in Q_k.

    Attributes:
        triangles: T_k of each.
    """

    def __init__(self, factors: Sequence[Tensor]) -> None:
        ends = list(accumulate(factor.shape[1] for factor in factors))
        self._columns = [slice(end - factor.shape[1], end) for end, factor in zip(ends, factors, strict=True)]
        height, width = len(factors[0]), ends[-1]
        # In the factors' own memory order: copying them is most of the work.
        empty, by_rows = partial(torch.empty, dtype=torch.float64), factors[0].is_contiguous()
        joint = empty(height, width) if by_rows else empty(width, height).T
        for columns, factor in zip(self._columns, factors, strict=True):
            joint[:, columns] = factor
        self._given = self._gram = joint.T @ joint
        found = [_cholesky(self._part(self._gram, k, k)) for k in range(len(factors))]
        pairs = [good or _orthogonalise(joint, where) for good, where in zip(found, self._columns, strict=True)]
        self.triangles, self._inverses = [triangle for triangle, _ in pairs], [inverse for _, inverse in pairs]
        if not all(found):
            self._gram = joint.T @ joint

    def bases(self, a: int, b: int) -> Float[Tensor, "ra rb"]:
        """`Q_a^T Q_b`."""
        return self._inverses[a].T @ self._part(self._gram, a, b) @ self._inverses[b]

    def cosine(self, a: int, b: int) -> float | None:
        """Of two factors as they were given, entry by entry; None where their ranks differ."""
        if self.triangles[a].shape != self.triangles[b].shape:
            return None
        inner, one, two = (float(self._part(self._given, *pair).trace()) for pair in ((a, b), (a, a), (b, b)))
        return inner / math.sqrt(one * two) if one and two else 0.0

    def _part(self, gram: Tensor, a: int, b: int) -> Tensor:
        return gram[self._columns[a], self._columns[b]]


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
