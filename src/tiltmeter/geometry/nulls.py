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

Drawn = Mapping[str, Float[Tensor, " D"]]


@dataclass(frozen=True)
class Spectra:
    """The singular values of two changes of one module of shape (o, i); `rest` is the energy of each beyond them."""

    shape: tuple[int, int]
    values: tuple[Float[Tensor, " ra"], Float[Tensor, " rb"]]
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
        return self._window(self._turns[rank], self.frames, rng)

    def some(self, drawn: Tensor, rng: np.random.Generator) -> Tensor:
        """D of the P draws of a pool."""
        return self._window(drawn, self.draws, rng)

    def _window(self, drawn: Tensor, size: int, rng: np.random.Generator) -> Tensor:
        start = int(rng.integers(len(drawn) - size + 1))
        return drawn[start : start + size]

    def _rng(self, *key: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, *key))


@dataclass(frozen=True)
class RandomB:
    """One change with its right factor kept and f random left ones: `B_j A = U_j diag(values_j) (Q turns_j)^T`.

    Q [i, r] is an orthonormal basis of A's rows; U_j is Haar-random.
    """

    values: Float[Tensor, "f r"]
    turns: Float[Tensor, "f r r"]


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
    spectra: Spectra, shared: tuple[RandomB, RandomB, Tensor] | None, pool: Pool, rng: np.random.Generator
) -> Float[Tensor, "Q F D"]:
    """D draws of every figure under every null; NaN where a null says nothing of a figure.

    Args:
        spectra: of the two changes.
        shared: the two with random left factors, and `Q_a^T Q_b` of their rows; None where one is not low rank.
        pool: of random frames.
        rng: of the order in which it is used.
    """
    drawn: dict[str, Drawn] = {
        "random": _random(spectra, pool, rng),
        "same_spectrum": _same_spectrum(spectra, pool, rng),
        "shared_initialisation": {} if shared is None else _shared_initialisation(spectra, *shared, pool, rng),
    }
    missing = torch.full((pool.draws,), torch.nan)
    return torch.stack([torch.stack([drawn[null].get(figure, missing) for figure in FIGURES]) for null in NULLS])


def closed_forms(spectra: Spectra, dims: Dims) -> dict[str, float]:
    """Means for independent frames: overlap `k/width`, `E|cos| = sqrt(2/(pi width))`; angles have no closed form.

    Weighted overlap `sum s^2 sum t^2 / (width ||s^2|| ||t^2||)`. The width is o, i, or o times i for the whole change.
    """
    o, i = spectra.shape
    k = min(dims.subspace, *spectra.ranks)
    spread = math.prod(energy_spread(values, k) for values in spectra.values)
    found = {"cosine": math.sqrt(2 / (math.pi * o * i))}
    for side, width in zip(SIDES, (o, i), strict=True):
        found[f"component_cosine_{side}"] = math.sqrt(2 / (math.pi * width))
        found[f"overlap_{side}"] = k / width
        found[f"weighted_overlap_{side}"] = spread / width
    return found


def _random(spectra: Spectra, pool: Pool, rng: np.random.Generator) -> Drawn:
    """Singular vectors of Gaussian matrices are Haar-random; the cosine is that of two points on a sphere."""
    o, i = spectra.shape
    normal, rest = rng.standard_normal(pool.draws), rng.chisquare(o * i - 1, pool.draws)
    return {**_plain(spectra, pool, rng), "cosine": torch.from_numpy(normal / np.sqrt(normal**2 + rest)).float()}


def _same_spectrum(spectra: Spectra, pool: Pool, rng: np.random.Generator) -> Drawn:
    left, right = (pool.some(pool.products(width, spectra.ranks), rng) for width in spectra.shape)
    one, two = spectra.values[0].float(), spectra.values[1].float()
    found = _plain(spectra, pool, rng)
    for side, products in zip(SIDES, (left, right), strict=True):
        found[f"weighted_overlap_{side}"] = weighted_overlap(products, one, two, pool.dims.subspace)
    return {**found, "cosine": _with_rest(cosine(left, right, one, two), spectra, rng)}


def _shared_initialisation(
    spectra: Spectra, one: RandomB, two: RandomB, rows: Float[Tensor, "ra rb"], pool: Pool, rng: np.random.Generator
) -> Drawn:
    places = torch.from_numpy(rng.permutation(pool.frames**2)[: pool.draws])
    places = torch.stack([places // pool.frames, places % pool.frames])
    values = one.values[places[0]], two.values[places[1]]
    right = one.turns[places[0]].mT @ rows.float() @ two.turns[places[1]]
    ranks = (right.shape[1], right.shape[2])
    left = pool.some(pool.products(spectra.shape[0], ranks), rng)
    figures = subspace_figures(right, *values, pool.dims)
    found = {f"{kind}_right": drawn for kind, drawn in figures.items()}
    found |= {f"{kind}_left": pool.some(drawn, rng) for kind, drawn in pool.figures(spectra.shape[0], ranks).items()}
    found["weighted_overlap_left"] = weighted_overlap(left, *values, pool.dims.subspace)
    return {**found, "cosine": cosine(left, right, *values)}


def _plain(spectra: Spectra, pool: Pool, rng: np.random.Generator) -> dict[str, Tensor]:
    """The figures of independent frames that do not depend on singular values."""
    return {
        f"{kind}_{side}": pool.some(drawn, rng)
        for side, width in zip(SIDES, spectra.shape, strict=True)
        for kind, drawn in pool.figures(width, spectra.ranks).items()
    }


def _with_rest(cosines: Float[Tensor, " D"], spectra: Spectra, rng: np.random.Generator) -> Float[Tensor, " D"]:
    """Cosines of the whole changes: the energy beyond the known directions adds a Gaussian of variance `1/(o i)`."""
    kept = [float(values.square().sum()) for values in spectra.values]
    share = math.prod(kept) / math.prod(energy + rest for energy, rest in zip(kept, spectra.rest, strict=True))
    spread = math.sqrt(max(0.0, 1 - share) / math.prod(spectra.shape))
    return cosines * math.sqrt(share) + spread * torch.from_numpy(rng.standard_normal(len(cosines))).float()
