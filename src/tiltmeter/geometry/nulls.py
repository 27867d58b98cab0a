"""What two unrelated changes of one module would share: three random models of them, and closed forms.

- `random`: Gaussian matrices of the full shape, the study's own baseline.
- `same spectrum`: singular values kept, both frames Haar-random.
- `shared initialisation`: the right factor kept as it is stored (LoRA's A, which training barely moves), the left one
  (B) of its own spectrum and random orientation. For low-rank changes only.

Frames are never drawn: only their r x r products enter.
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
POOL = 10  # times as many frames kept as draws taken: one module takes a window of them

Drawn = Mapping[str, Float[Tensor, "G D"]]


@dataclass(frozen=True)
class Spectra:
    """Singular values of G pairs of changes, all of one shape (o, i) and of the same two ranks.

    Attributes:
        kept: the share of both energies that the singular values hold.
    """

    shape: tuple[int, int]
    one: Float[Tensor, "G ra"]
    two: Float[Tensor, "G rb"]
    kept: Float[Tensor, " G"]

    @property
    def ranks(self) -> tuple[int, int]:
        """(ra, rb)."""
        return self.one.shape[1], self.two.shape[1]


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

    @property
    def frames(self) -> int:
        """Random B's of each change: any two of a pair make a draw."""
        return math.ceil(math.sqrt(self.draws))

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
            found = subspace_figures(self.products(width, ranks), *flat, self.dims)
            self._figures[key] = {kind: drawn for kind, drawn in found.items() if kind != "weighted_overlap"}
        return self._figures[key]

    def turns(self, rank: int, rng: np.random.Generator) -> Float[Tensor, "f r r"]:
        """Haar-random orthogonal matrices, one for each of `frames`."""
        if rank not in self._turns:
            self._turns[rank] = haar_matrices(rank, POOL * self.draws, self._rng(rank))
        start = int(rng.integers(POOL * self.draws - self.frames + 1))
        return self._turns[rank][start : start + self.frames]

    def some(self, drawn: Float[Tensor, "P ..."], groups: int, rng: np.random.Generator) -> Float[Tensor, "G D ..."]:
        """D draws of a pool for each of G pairs: windows of it."""
        starts = torch.from_numpy(rng.integers(len(drawn) - self.draws + 1, size=(groups, 1)))
        return drawn[starts + torch.arange(self.draws)]

    def _rng(self, *key: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, *key))


@dataclass(frozen=True)
class RandomB:
    """A change with its right factor kept and f random left ones: `B_j A = U_j diag(values_j) (Q turns_j)^T`.

    Q [i, r] is an orthonormal basis of A's rows; U_j is Haar-random. Of one change, or of G of them.
    """

    values: Float[Tensor, "*G f r"]
    turns: Float[Tensor, "*G f r r"]


def random_left(
    spectrum: Float[Tensor, " r"], triangle: Float[Tensor, "r r"], pool: Pool, rng: np.random.Generator
) -> RandomB:
    """Left factors of a spectrum in random orientation, on the right factor `A = (Q triangle)^T`.

    `B_j = U diag(spectrum) H_j^T`, so that the singular vectors are those of `diag(spectrum) H_j^T triangle^T`.
    """
    cores = spectrum[:, None] * pool.turns(len(spectrum), rng).mT.double() @ triangle.T
    squares, turns = torch.linalg.eigh(cores.mT @ cores)
    return RandomB(squares.clamp_min(0.0).sqrt().flip(-1).float(), turns.flip(-1).float())


def null_figures(
    spectra: Spectra,
    shared: tuple[RandomB, RandomB, Float[Tensor, "G qa qb"]] | None,
    pool: Pool,
    rng: np.random.Generator,
) -> Float[Tensor, "G Q F D"]:
    """D draws of every figure under every null for G pairs; NaN where a null says nothing of a figure.

    Args:
        spectra: of the changes.
        shared: the changes with random left factors [G, f, ...], and `Q_a^T Q_b` of their rows; None for no adapters.
        pool: of random frames.
        rng: of the places that are taken from it.
    """
    drawn: dict[str, Drawn] = {
        "random": _random(spectra, pool, rng),
        "same_spectrum": _same_spectrum(spectra, pool, rng),
        "shared_initialisation": {} if shared is None else _shared_initialisation(spectra, *shared, pool, rng),
    }
    missing = torch.full((len(spectra.one), pool.draws), torch.nan)
    rows = [torch.stack([drawn[null].get(figure, missing) for figure in FIGURES], 1) for null in NULLS]
    return torch.stack(rows, 1)


def closed_forms(spectra: Spectra, dims: Dims) -> dict[str, Float[Tensor, " G"]]:
    """Means for independent frames: overlap `k/width`, `E|cos| = sqrt(2/(pi width))`; angles have no closed form.

    Weighted overlap `sum s^2 sum t^2 / (width ||s^2|| ||t^2||)`. The width is o, i, or o times i for the whole change.
    """
    o, i = spectra.shape
    k = min(dims.subspace, *spectra.ranks)
    spread = energy_spread(spectra.one, k) * energy_spread(spectra.two, k)
    one = torch.ones_like(spread)
    found = {"cosine": one * math.sqrt(2 / (math.pi * o * i))}
    for side, width in zip(SIDES, (o, i), strict=True):
        found[f"component_cosine_{side}"] = one * math.sqrt(2 / (math.pi * width))
        found[f"overlap_{side}"] = one * k / width
        found[f"weighted_overlap_{side}"] = spread / width
    return found


def _random(spectra: Spectra, pool: Pool, rng: np.random.Generator) -> Drawn:
    """Singular vectors of Gaussian matrices are Haar-random; the cosine is that of two points on a sphere."""
    size = len(spectra.one), pool.draws
    normal, rest = rng.standard_normal(size), rng.chisquare(math.prod(spectra.shape) - 1, size)
    return {**_plain(spectra, pool, rng), "cosine": torch.from_numpy(normal / np.sqrt(normal**2 + rest)).float()}


def _same_spectrum(spectra: Spectra, pool: Pool, rng: np.random.Generator) -> Drawn:
    groups = len(spectra.one)
    left, right = (pool.some(pool.products(width, spectra.ranks), groups, rng) for width in spectra.shape)
    values = spectra.one.float()[:, None], spectra.two.float()[:, None]
    found = _plain(spectra, pool, rng)
    for side, products in zip(SIDES, (left, right), strict=True):
        found[f"weighted_overlap_{side}"] = weighted_overlap(products, *values, pool.dims.subspace)
    return {**found, "cosine": _with_rest(cosine(left, right, *values), spectra, rng)}


def _shared_initialisation(
    spectra: Spectra,
    one: RandomB,
    two: RandomB,
    rows: Float[Tensor, "G qa qb"],
    pool: Pool,
    rng: np.random.Generator,
) -> Drawn:
    """Every random B of one change with every one of the other."""
    first, second = (torch.cartesian_prod(*[torch.arange(pool.frames)] * 2)[: pool.draws]).T
    values = one.values[:, first], two.values[:, second]
    right = (one.turns.mT @ rows.float()[:, None])[:, first] @ two.turns[:, second]
    ranks = right.shape[2], right.shape[3]
    left = pool.some(pool.products(spectra.shape[0], ranks), len(rows), rng)
    found = {f"{kind}_right": drawn for kind, drawn in subspace_figures(right, *values, pool.dims).items()}
    for kind, drawn in pool.figures(spectra.shape[0], ranks).items():
        found[f"{kind}_left"] = pool.some(drawn, len(rows), rng)
    found["weighted_overlap_left"] = weighted_overlap(left, *values, pool.dims.subspace)
    return {**found, "cosine": cosine(left, right, *values)}


def _plain(spectra: Spectra, pool: Pool, rng: np.random.Generator) -> dict[str, Tensor]:
    """The figures of independent frames that do not depend on singular values."""
    return {
        f"{kind}_{side}": pool.some(drawn, len(spectra.one), rng)
        for side, width in zip(SIDES, spectra.shape, strict=True)
        for kind, drawn in pool.figures(width, spectra.ranks).items()
    }


def _with_rest(cosines: Float[Tensor, "G D"], spectra: Spectra, rng: np.random.Generator) -> Float[Tensor, "G D"]:
    """Cosines of the whole changes: the energy beyond the known directions adds a Gaussian of variance `1/(o i)`."""
    spread = ((1 - spectra.kept).clamp_min(0.0) / math.prod(spectra.shape)).sqrt().float()[:, None]
    noise = torch.from_numpy(rng.standard_normal(cosines.shape)).float()
    return cosines * spectra.kept.sqrt().float()[:, None] + spread * noise
