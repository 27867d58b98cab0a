"""Every pair of several updates in one module: figures, nulls, and whether they have a common origin."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.geometry.frames import Frames
from tiltmeter.geometry.nulls import Changes, Pool, closed_forms, null_figures
from tiltmeter.geometry.similarity import FIGURES, SIDES, cosine, subspace_figures
from tiltmeter.geometry.thin import thin
from tiltmeter.updates.delta import Delta, inner


@dataclass(frozen=True)
class RowSpaces:
    """The row spaces of two low-rank changes, where a common initialisation of LoRA's A shows.

    Attributes:
        overlap: `||W_a^T W_b||^2 / min(ra, rb)` of the whole row spaces.
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


@dataclass(frozen=True)
class ModuleComparison:
    """One module: what is known of each update's change, and of every pair of those that changed it.

    Attributes:
        norms, ranks, errors: by update, in the order given; 0 where an update does not change the module.
        pairs: (a, b) -> figures, a < b.
    """

    norms: Sequence[float]
    ranks: Sequence[int]
    errors: Sequence[float]
    pairs: dict[tuple[int, int], ModulePair]


def compare_module(name: str, deltas: Sequence[Delta | None], pool: Pool, accuracy: float) -> ModuleComparison:
    """All pairs of the changes of one module, all of one shape (o, i); None for updates without it."""
    given = {k: delta for k, delta in enumerate(deltas) if delta is not None}
    changes = [thin(delta, pool.dims.most, accuracy, pool.seed) for delta in given.values()]
    frames = Frames(changes)
    norms, ranks, errors = [0.0] * len(deltas), [0] * len(deltas), [0.0] * len(deltas)
    for place, k in enumerate(given):
        norms[k] = frames.energy(place) ** 0.5
        ranks[k], errors[k] = len(frames.values[place]), changes[place].error
    pairs: dict[tuple[int, int], ModulePair] = {}
    for (one, a), (two, b) in combinations(enumerate(given), 2):
        if ranks[a] and ranks[b]:
            rng = np.random.default_rng((pool.seed, _number(name), a, b))
            pairs[a, b] = _pair((given[a], given[b]), frames, (one, two), pool, rng)
    return ModuleComparison(norms, ranks, errors, pairs)


def _pair(
    deltas: tuple[Delta, Delta], frames: Frames, places: tuple[int, int], pool: Pool, rng: np.random.Generator
) -> ModulePair:
    left, right = frames.left(*places), frames.right(*places)
    values = frames.values[places[0]], frames.values[places[1]]
    found = {
        f"{kind}_{side}": float(each)
        for side, products in zip(SIDES, (left, right), strict=True)
        for kind, each in subspace_figures(products, *values, pool.dims).items()
    }
    both = [frames.changes[place] for place in places]
    energies = [frames.energy(place) for place in places]
    if all(change.energy is None for change in both):
        found["cosine"] = float(cosine(left, right, *values))
    else:
        found["cosine"] = inner(*deltas) / math.sqrt(math.prod(energies))
    rest = [max(0.0, energy - float(each.square().sum())) for energy, each in zip(energies, values, strict=True)]
    is_low_rank = all(change.is_low_rank for change in both)
    changes = Changes(deltas[0].shape, values, right if is_low_rank else None, (rest[0], rest[1]))
    return ModulePair(
        values=_in_order(found),
        nulls=null_figures(changes, pool, rng),
        closed=_in_order(closed_forms(changes, pool.dims)),
        rows=_row_spaces(frames, places, right, changes.shape[1]) if is_low_rank else None,
    )


def _row_spaces(frames: Frames, places: tuple[int, int], right: Float[Tensor, "ra rb"], width: int) -> RowSpaces:
    overlap = float(right.square().sum()) / min(right.shape)
    return RowSpaces(overlap, max(right.shape) / width, frames.factor_cosine(*places))


def _in_order(found: dict[str, float]) -> Float[Tensor, " F"]:
    return torch.tensor([found.get(figure, math.nan) for figure in FIGURES], dtype=torch.float64)


def _number(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
