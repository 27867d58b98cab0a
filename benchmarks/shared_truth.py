"""Similarity of two updates the plain way: whole matrices in float64, their SVDs, and scipy's angles."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import subspace_angles

from tiltmeter.geometry.similarity import SIDES, Side
from tiltmeter.updates.update import Update

Array = NDArray[np.float64]


class Dense:
    """The matrices of a low-rank update, multiplied out, and their SVDs."""

    def __init__(self, update: Update) -> None:
        factors = [delta.tensors for delta in update.values()]
        self._matrices = [(left.double() @ right.double()).numpy() for left, right in factors]
        self._svds = [np.linalg.svd(matrix, full_matrices=False) for matrix in self._matrices]

    def similarity(self, other: "Dense", k: int) -> dict[str, float]:
        """The figures of `tiltmeter.geometry.similarity` that have a plain form, as means over modules."""
        pairs = list(zip(self._matrices, other._matrices, strict=True))
        found = {"cosine": float(np.mean([_cosine(*pair) for pair in pairs]))}
        for side in SIDES:
            spans = list(zip(self._leading(side, k), other._leading(side, k), strict=True))
            angles = np.array([subspace_angles(one, two) for (one, _), (two, _) in spans])
            found[f"angle_{side}"] = float(np.rad2deg(angles).mean())
            found[f"overlap_{side}"] = float((np.cos(angles) ** 2).mean())
            found[f"weighted_overlap_{side}"] = float(np.mean([_cosine(*map(_covariance, pair)) for pair in spans]))
        return found

    def _leading(self, side: Side, k: int) -> Iterator[tuple[Array, Array]]:
        """Singular vectors [width, k] and values [k] of each module."""
        for U, values, Wh in self._svds:
            yield (U[:, :k] if side == "left" else Wh[:k].T), values[:k]


def _covariance(span: tuple[Array, Array]) -> Array:
    vectors, values = span
    return np.asarray((vectors * values**2) @ vectors.T)


def _cosine(one: Array, two: Array) -> float:
    return float((one * two).sum() / (np.linalg.norm(one) * np.linalg.norm(two)))
