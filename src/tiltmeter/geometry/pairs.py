"""Pairs of updates in one module, reduced to what their figures and nulls are made of: matrices of r x r."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.geometry.frames import Frames
from tiltmeter.geometry.nulls import Pool, RandomB, random_left
from tiltmeter.geometry.thin import thin
from tiltmeter.updates.delta import Delta, inner


@dataclass(frozen=True)
class Change:
    """One update in one module: Frobenius norm, rank, and the residual of its leading directions (see `Thin`)."""

    norm: float
    rank: int
    error: float


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
class SharedA:
    """Two adapters' changes with A kept and random B's, and `Q_a^T Q_b` of their rows."""

    one: RandomB
    two: RandomB
    rows: Float[Tensor, "qa qb"]


@dataclass(frozen=True)
class ModulePair:
    """Two changes of one module of shape (o, i).

    Attributes:
        values: singular values of each, descending.
        left, right: products `U_a^T U_b`, `W_a^T W_b` of their singular vectors.
        kept: the share of both energies that the singular values hold: 1 unless a change is dense.
        cosine: of the whole changes where `kept` is below 1; else None: it follows from the products.
        shared: None unless both are adapters.
        rows: None unless both are low rank.
    """

    shape: tuple[int, int]
    values: tuple[Float[Tensor, " ra"], Float[Tensor, " rb"]]
    left: Float[Tensor, "ra rb"]
    right: Float[Tensor, "ra rb"]
    kept: float
    cosine: float | None
    shared: SharedA | None
    rows: RowSpaces | None


@dataclass(frozen=True)
class ModulePairs:
    """One module: the place of each update that changes it -> its change, and places (a, b), a < b -> pair."""

    changes: Mapping[int, Change]
    pairs: Mapping[tuple[int, int], ModulePair]


def module_pairs(
    name: str, deltas: Mapping[int, Delta], are_adapters: Mapping[int, bool], pool: Pool, accuracy: float
) -> ModulePairs:
    """Every pair of the changes of one module, which are of one shape.

    Args:
        name: of the module; random B's depend on it and on the seed.
        deltas: by the updates' places.
        are_adapters: which of them have a trained initialisation as right factor.
        pool: of random frames.
        accuracy: of the leading directions of dense changes.
    """
    frames = Frames([thin(delta, pool.dims.most, accuracy, pool.seed) for delta in deltas.values()])
    places = {k: place for place, k in enumerate(deltas) if len(frames.values[place])}
    changes = {
        k: Change(math.sqrt(frames.energy(place)), len(frames.values[place]), frames.changes[place].error)
        for k, place in places.items()
    }
    random = {
        k: _random_left(frames, place, pool, np.random.default_rng((pool.seed, _number(name), k)))
        for k, place in places.items()
        if are_adapters[k] and frames.changes[place].is_low_rank
    }
    pairs = {}
    for a, b in combinations(places, 2):
        both = (places[a], places[b])
        shared = SharedA(random[a], random[b], frames.right_factors.bases(*both)) if {a, b} <= random.keys() else None
        pairs[a, b] = _pair(frames, both, (deltas[a], deltas[b]), shared)
    return ModulePairs(changes, pairs)


def _pair(frames: Frames, places: tuple[int, int], deltas: tuple[Delta, Delta], shared: SharedA | None) -> ModulePair:
    one, two = places
    energy = frames.energy(one) * frames.energy(two)
    values = frames.values[one], frames.values[two]
    is_exact = all(frames.changes[place].energy is None for place in places)
    right = frames.right(one, two)
    return ModulePair(
        shape=deltas[0].shape,
        values=values,
        left=frames.left(one, two),
        right=right,
        kept=1.0 if is_exact else float(values[0].square().sum() * values[1].square().sum()) / energy,
        cosine=None if is_exact else inner(*deltas) / math.sqrt(energy),
        shared=shared,
        rows=_row_spaces(frames, places, right, deltas[0].shape[1]),
    )


def _row_spaces(frames: Frames, places: tuple[int, int], right: Float[Tensor, "ra rb"], width: int) -> RowSpaces | None:
    if not all(frames.changes[place].is_low_rank for place in places):
        return None
    overlap = float(right.square().sum()) / min(right.shape)
    return RowSpaces(overlap, max(right.shape) / width, frames.right_factors.cosine(*places))


def _random_left(frames: Frames, place: int, pool: Pool, rng: np.random.Generator) -> RandomB:
    spectrum = torch.linalg.svdvals(frames.left_factors.triangles[place])
    return random_left(spectrum, frames.right_factors.triangles[place], pool, rng)


def _number(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
