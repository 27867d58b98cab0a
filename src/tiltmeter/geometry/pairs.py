"""Pairs of updates in one module: figures, nulls, and whether they have a common origin."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.geometry.frames import Frames
from tiltmeter.geometry.nulls import Pool, RandomB, Spectra, closed_forms, null_figures, random_left
from tiltmeter.geometry.similarity import FIGURES, SIDES, cosine, subspace_figures
from tiltmeter.geometry.thin import thin
from tiltmeter.updates.delta import Delta, inner


@dataclass(frozen=True)
class RowSpaces:
    """The row spaces of two low-rank changes, where a common initialisation of LoRA's A shows.

    Attributes:
        overlap: `||W_a^T W_b||^2 / min(ra, rb)` of the whole row spaces, in any gauge.
        independent: what it is by chance, `max(ra, rb) / i`.
        cosine: of the right factors as stored; None where ranks differ.
    """

    overlap: float
    independent: float
    cosine: float | None


@dataclass(frozen=True)
class ModulePair:
    """Two updates in one module.

    Attributes:
        values: each figure, in the order of `FIGURES`; float64.
        nulls: D draws of each figure under each null.
        closed: means of independent frames by closed form; NaN where there is none.
        rows: None unless both changes are low rank.
    """

    values: Float[Tensor, " F"]
    nulls: Float[Tensor, "Q F D"]
    closed: Float[Tensor, " F"]
    rows: RowSpaces | None


class ModulePairs:
    """Every pair of K changes of one module."""

    def __init__(self, deltas: Sequence[Delta], keeps_rows: Sequence[bool], pool: Pool, accuracy: float, name: str):
        """`keeps_rows` says of each change whether its right factor is a trained initialisation."""
        self._deltas, self._pool, self._name = deltas, pool, name
        changes = [thin(delta, pool.dims.most, accuracy, pool.seed) for delta in deltas]
        self.frames = Frames(changes)
        self._random = [
            self._random_left(k) if keeps and change.is_low_rank and len(self.frames.values[k]) else None
            for k, (keeps, change) in enumerate(zip(keeps_rows, changes, strict=True))
        ]

    def pair(self, one: int, two: int) -> ModulePair:
        """The figures of two changes, neither of which is zero."""
        left, right = self.frames.left(one, two), self.frames.right(one, two)
        values = self.frames.values[one], self.frames.values[two]
        found = {
            f"{kind}_{side}": float(each)
            for side, products in zip(SIDES, (left, right), strict=True)
            for kind, each in subspace_figures(products, *values, self._pool.dims).items()
        }
        energies = self.frames.energy(one), self.frames.energy(two)
        if self.frames.changes[one].energy is None and self.frames.changes[two].energy is None:
            found["cosine"] = float(cosine(left, right, *values))
        else:
            found["cosine"] = inner(self._deltas[one], self._deltas[two]) / math.sqrt(math.prod(energies))
        rest = [max(0.0, energy - float(each.square().sum())) for energy, each in zip(energies, values, strict=True)]
        spectra = Spectra(self._deltas[one].shape, values, (rest[0], rest[1]))
        return ModulePair(
            values=_in_order(found),
            nulls=null_figures(spectra, self._shared(one, two), self._pool, self._rng(one, two)),
            closed=_in_order(closed_forms(spectra, self._pool.dims)),
            rows=self._row_spaces(one, two),
        )

    def _shared(self, one: int, two: int) -> tuple[RandomB, RandomB, Tensor] | None:
        a, b = self._random[one], self._random[two]
        return None if a is None or b is None else (a, b, self.frames.right_factors.bases(one, two))

    def _row_spaces(self, one: int, two: int) -> RowSpaces | None:
        if not (self.frames.changes[one].is_low_rank and self.frames.changes[two].is_low_rank):
            return None
        right = self.frames.right(one, two)
        overlap = float(right.square().sum()) / min(right.shape)
        width = self._deltas[one].shape[1]
        return RowSpaces(overlap, max(right.shape) / width, self.frames.right_factors.cosine(one, two))

    def _random_left(self, k: int) -> RandomB:
        spectrum = torch.linalg.svdvals(self.frames.left_factors.triangles[k])
        return random_left(spectrum, self.frames.right_factors.triangles[k], self._pool, self._rng(k))

    def _rng(self, *places: int) -> np.random.Generator:
        return np.random.default_rng((self._pool.seed, _number(self._name), *places))


def _in_order(found: dict[str, float]) -> Float[Tensor, " F"]:
    return torch.tensor([found.get(figure, math.nan) for figure in FIGURES], dtype=torch.float64)


def _number(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
