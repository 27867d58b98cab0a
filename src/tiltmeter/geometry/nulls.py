"""What two unrelated changes of one module would share: three random models of them, and closed forms.

- `random`: Gaussian matrices of the full shape, the study's own baseline.
- `same spectrum`: singular values kept, both frames Haar-random.
- `shared initialisation`: row spaces kept too, as adapters of one recipe and seed share LoRA's A, and the orientation
  inside them Haar-random: A kept (orthonormal, so that factors of any gauge give the same), B of random orientation
  with the change's own spectrum. For low-rank changes only.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.geometry.draws import haar_matrices, haar_products
from tiltmeter.geometry.similarity import (
    FIGURES,
    SIDES,
    Dims,
    cosine,
    energy_spread,
    subspace_figures,
    weighted_overlap,
)

NULLS = ("random", "same_spectrum", "shared_initialisation")
POOL = 4  # times as many products kept as draws taken, so that few modules share one


@dataclass(frozen=True)
class Changes:
    """Two changes of one module of shape (o, i) as the nulls see them.

    Attributes:
        shape: (o, i).
        values: singular values of each.
        rows: `W_a^T W_b` of their row spaces; None where these are no one's initialisation.
        rest: energy of each that its singular values leave out.
    """

    shape: tuple[int, int]
    values: tuple[Float[Tensor, " ra"], Float[Tensor, " rb"]]
    rows: Float[Tensor, "ra rb"] | None
    rest: tuple[float, float] = (0.0, 0.0)

    @property
    def ranks(self) -> tuple[int, int]:
        """(ra, rb)."""
        return len(self.values[0]), len(self.values[1])


@dataclass
class Pool:
    """Random products of frames, drawn once for each shape and shared by all modules in ever new order.

    Attributes:
        dims: leading directions that enter.
        draws: D.
        seed: of everything here.
    """

    dims: Dims
    draws: int
    seed: int = 0
    _products: dict[tuple[int, int, int], Tensor] = field(default_factory=dict)
    _figures: dict[tuple[int, int, int], Mapping[str, Tensor]] = field(default_factory=dict)
    _turns: dict[int, Tensor] = field(default_factory=dict)

    def products(self, width: int, ranks: tuple[int, int]) -> Float[Tensor, "P ra rb"]:
        """`U^T V` of independent frames."""
        key = (width, *ranks)
        if key not in self._products:
            self._products[key] = haar_products(width, ranks, POOL * self.draws, self._rng(*key))
        return self._products[key]

    def figures(self, width: int, ranks: tuple[int, int]) -> Mapping[str, Float[Tensor, " P"]]:
        """The figures of `products` that do not depend on singular values."""
        key = (width, *ranks)
        if key not in self._figures:
            flat = (torch.ones(ranks[0]), torch.ones(ranks[1]))
            self._figures[key] = subspace_figures(self.products(width, ranks), *flat, self.dims)
        return self._figures[key]

    def turns(self, rank: int) -> Float[Tensor, "P r r"]:
        """Haar-random orthogonal matrices."""
        if rank not in self._turns:
            self._turns[rank] = haar_matrices(rank, POOL * self.draws, self._rng(rank))
        return self._turns[rank]

    def pick(self, rng: np.random.Generator) -> Tensor:
        """D different places in the pool."""
        return torch.from_numpy(rng.permutation(POOL * self.draws)[: self.draws])

    def _rng(self, *key: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, *key))


def null_figures(changes: Changes, pool: Pool, rng: np.random.Generator) -> Float[Tensor, "Q F D"]:
    """D draws of every figure under every null; NaN where a null says nothing of a figure."""
    drawn = {
        "random": _random(changes, pool, rng),
        "same_spectrum": _same_spectrum(changes, pool, rng),
        "shared_initialisation": _shared_initialisation(changes, pool, rng),
    }
    missing = torch.full((pool.draws,), torch.nan)
    return torch.stack([torch.stack([drawn[null].get(figure, missing) for figure in FIGURES]) for null in NULLS])


def closed_forms(changes: Changes, dims: Dims) -> dict[str, float]:
    """Means for independent frames: overlap `k/width`, `E|cos| = sqrt(2/(pi width))`; angles have no closed form.

    Weighted overlap `sum s^2 sum t^2 / (width ||s^2|| ||t^2||)`. The width is o, i, or o times i for the whole change.
    """
    o, i = changes.shape
    k = min(dims.subspace, *changes.ranks)
    spread = math.prod(energy_spread(values, k) for values in changes.values)
    found = {"cosine": math.sqrt(2 / (math.pi * o * i))}
    for side, width in zip(SIDES, (o, i), strict=True):
        found[f"component_cosine_{side}"] = math.sqrt(2 / (math.pi * width))
        found[f"overlap_{side}"] = k / width
        found[f"weighted_overlap_{side}"] = spread / width
    return found


def _random(changes: Changes, pool: Pool, rng: np.random.Generator) -> dict[str, Tensor]:
    """Singular vectors of Gaussian matrices are Haar-random; the cosine is that of two points on a sphere."""
    o, i = changes.shape
    normal, rest = rng.standard_normal(pool.draws), rng.chisquare(o * i - 1, pool.draws)
    return {**_plain(changes, pool, rng), "cosine": torch.from_numpy(normal / np.sqrt(normal**2 + rest)).float()}


def _same_spectrum(changes: Changes, pool: Pool, rng: np.random.Generator) -> dict[str, Tensor]:
    left, right = (pool.products(width, changes.ranks)[pool.pick(rng)] for width in changes.shape)
    found = _plain(changes, pool, rng)
    for side, products in zip(SIDES, (left, right), strict=True):
        found[f"weighted_overlap_{side}"] = weighted_overlap(products, *_single(changes), pool.dims.subspace)
    return {**found, "cosine": _cosine(left, right, changes, rng)}


def _shared_initialisation(changes: Changes, pool: Pool, rng: np.random.Generator) -> dict[str, Tensor]:
    if changes.rows is None:
        return {}
    one, two = (pool.turns(rank)[pool.pick(rng)] for rank in changes.ranks)
    right = one @ changes.rows.float() @ two.mT
    left = pool.products(changes.shape[0], changes.ranks)[pool.pick(rng)]
    found = {f"{kind}_right": each for kind, each in subspace_figures(right, *_single(changes), pool.dims).items()}
    plain = pool.figures(changes.shape[0], changes.ranks)
    found |= {f"{kind}_left": each[pool.pick(rng)] for kind, each in plain.items()}
    found["weighted_overlap_left"] = weighted_overlap(left, *_single(changes), pool.dims.subspace)
    return {**found, "cosine": _cosine(left, right, changes, rng)}


def _plain(changes: Changes, pool: Pool, rng: np.random.Generator) -> dict[str, Tensor]:
    """The figures of independent frames that do not depend on singular values."""
    return {
        f"{kind}_{side}": drawn[pool.pick(rng)]
        for side, width in zip(SIDES, changes.shape, strict=True)
        for kind, drawn in pool.figures(width, changes.ranks).items()
        if kind != "weighted_overlap"
    }


def _cosine(left: Tensor, right: Tensor, changes: Changes, rng: np.random.Generator) -> Float[Tensor, " D"]:
    """Of the kept directions, and a Gaussian of the same variance `1/(o i)` for the energy that they leave out."""
    kept = [float(values.square().sum()) for values in changes.values]
    whole = math.prod(energy + rest for energy, rest in zip(kept, changes.rest, strict=True))
    share = math.prod(kept) / whole
    known = cosine(left, right, *_single(changes)) * math.sqrt(share)
    spread = math.sqrt(max(0.0, 1 - share) / math.prod(changes.shape))
    return known + spread * torch.from_numpy(rng.standard_normal(len(known))).float()


def _single(changes: Changes) -> tuple[Tensor, Tensor]:
    return changes.values[0].float(), changes.values[1].float()
