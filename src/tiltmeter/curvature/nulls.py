"""What a random update would have scored: the nulls that an overlap is printed beside."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.curvature.fisher import Fisher
from tiltmeter.curvature.overlap import Overlap
from tiltmeter.layers import widths
from tiltmeter.updates.nulls import same_spectra
from tiltmeter.updates.update import Update


@dataclass(frozen=True)
class Null:
    """Total overlaps of random updates, `draws` of them."""

    draws: Float[Tensor, " D"]

    @property
    def mean(self) -> float:
        """Mean over the draws."""
        return float(self.draws.mean())

    @property
    def p95(self) -> float:
        """95th percentile of the draws."""
        return float(self.draws.quantile(0.95))

    def ratio(self, observed: float) -> float:
        """Observed over the null's mean."""
        return observed / self.mean


def flat_loss(trace: float, size: int, norm: float) -> float:
    """`E[du] = eta^2 tr(F) / (2n)`: the mean quadratic utility loss of a random direction of norm eta in n dimensions.

    Source: collapse, theorem 4.1.
    """
    return norm**2 * trace / (2 * size)


def flat_energy(d: int, size: int) -> float:
    """`E ||P v||^2 = d/n`: the share of a random unit vector of R^n that lies in a subspace of d dimensions."""
    return d / size


def dense_null(fisher: Fisher, overlap: Overlap, draws: int = 1000, seed: int = 0) -> Null:
    """Overlaps of random dense updates that have the observed norm in each module; exact, and needs no model.

    The coordinates of a direction uniform on the sphere of R^n, `n = o i`, are `s L z / sqrt(|z|^2 + q)` with
    `L L^T = N Gram`, `z ~ N(0, 1)` along its eigenvectors and `q ~ chi^2` for the other dimensions: what a projection
    onto the span of the gradients leaves of a Gaussian direction. Hence the mean `sum_m ||dW_m||^2 tr(F_m) / n_m`
    (collapse, Thm 4.1, times two).
    """
    return dense_nulls(fisher, [overlap], draws, seed)[0]


def dense_nulls(fisher: Fisher, overlaps: Sequence[Overlap], draws: int = 1000, seed: int = 0) -> list[Null]:
    """`dense_null` of each of several updates: the same random directions, scaled to the norms of each."""
    generator = torch.Generator().manual_seed(seed)
    norms = torch.stack([overlap.norms for overlap in overlaps], dim=1)
    coordinates = torch.zeros(len(overlaps), draws, len(fisher), dtype=torch.float64)
    for gram, norm, n in zip(fisher.gram(), norms, _sizes(fisher), strict=True):
        rank = min(len(fisher), n)
        values, vectors = torch.linalg.eigh(gram * len(fisher))
        root = vectors[:, -rank:] * values[-rank:].clamp(min=0).sqrt()
        z = torch.randn(draws, rank, generator=generator, dtype=torch.float64)
        others = _chi_square(draws, n - rank, generator)
        directions = (z / (z.square().sum(1) + others).sqrt()[:, None]) @ root.T
        coordinates += norm[:, None, None] * directions
    return [Null(values) for values in coordinates.square().mean(2)]


def same_rank_null(fisher: Fisher, update: Update, draws: int = 20, seed: int = 0) -> Null:
    """Overlaps of random updates with the observed rank and singular values in each module, measured in one pass."""
    return same_rank_nulls(fisher, [update], draws, seed)[0]


def same_rank_nulls(fisher: Fisher, updates: Sequence[Update], draws: int = 20, seed: int = 0) -> list[Null]:
    """`same_rank_null` of each of several updates, all measured in one pass."""
    randoms = same_spectra(updates, range(seed, seed + draws))
    overlaps = fisher.coordinates(randoms).sum(1).square().mean(1)
    return [Null(values) for values in overlaps.view(draws, len(updates)).T]


def _sizes(fisher: Fisher) -> list[int]:
    shapes = [widths(fisher.model.linears[name]) for name in fisher.modules]
    return [o * i for o, i in shapes]


def _chi_square(draws: int, degrees: int, generator: torch.Generator) -> Float[Tensor, " D"]:
    if degrees == 0:
        return torch.zeros(draws, dtype=torch.float64)
    shape = torch.full((draws,), degrees / 2, dtype=torch.float64)
    return 2 * torch._standard_gamma(shape, generator=generator)
