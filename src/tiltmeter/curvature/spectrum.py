"""The eigenvalues of a skill's Fisher information, and how concentrated they are.

N gradients give at most N nonzero eigenvalues whatever the model, so no figure here means much without its nulls
(text_nulls.py) and without its course over N (`against_size`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from tiltmeter.intervals import Interval

FOLDS = 20
Z95 = 1.959964


@dataclass(frozen=True)
class Spectrum:
    """`lambda_1 >= ... >= lambda_N` of `F = (1/N) sum_n g_n g_n^T`: those of its Gram matrix.

    Source: collapse, condition 1 of AIC (lambda_d and the tail).
    """

    eigenvalues: Float[Tensor, " N"]

    @property
    def trace(self) -> float:
        """`tr F = sum_j lambda_j`."""
        return float(self.eigenvalues.sum())

    @property
    def participation_ratio(self) -> float:
        """`(sum_j lambda_j)^2 / sum_j lambda_j^2`, from 1 to N: how many directions carry the trace; 0 where F = 0."""
        squares = float(self.eigenvalues.square().sum())
        return self.trace**2 / squares if squares else 0.0

    def at(self, d: int) -> float:
        """`lambda_d`, 0 beyond N."""
        return float(self.eigenvalues[d - 1]) if d <= len(self.eigenvalues) else 0.0

    def tail(self, d: int) -> float:
        """`sum_{j>d} lambda_j`."""
        return float(self.eigenvalues[d:].sum())

    def tail_share(self, d: int) -> float:
        """The tail as a share of the trace; 0 where F = 0."""
        return self.tail(d) / self.trace if self.trace else 0.0

    def top_share(self, d: int) -> float:
        """`sum_{j<=d} lambda_j / tr F`: what the d largest directions hold; 0 where F = 0."""
        return 1 - self.tail_share(d) if self.trace else 0.0


def spectrum(gram: Float[Tensor, "N N"]) -> Spectrum:
    """The spectrum of one Gram matrix; what rounding leaves below 0 counts as 0."""
    return Spectrum(torch.linalg.eigvalsh(gram).flip(0).clamp(min=0))


def equalised(gram: Float[Tensor, "*S N N"]) -> Float[Tensor, "*S N N"]:
    """`C[n, m] = cos(g_n, g_m)`, the Gram matrix scaled to a unit diagonal; zero gradients stay zero.

    A few long gradients make any spectrum look sharp; this one does not see their lengths.
    """
    norms = gram.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()
    inverse = torch.where(norms > 0, 1 / norms, 0.0)
    return gram * inverse[..., :, None] * inverse[..., None, :]


@dataclass(frozen=True)
class AtSize:
    """Figures of D random sub-samples of `size` examples."""

    size: int
    participation_ratios: Float[Tensor, " D"]
    top_shares: Float[Tensor, " D"]


def against_size(
    gram: Float[Tensor, "N N"], sizes: Sequence[int], d: int, draws: int = 10, seed: int = 0
) -> list[AtSize]:
    """Participation ratio and share of the d largest eigenvalues of sub-samples drawn without replacement."""
    rng = np.random.default_rng(seed)
    found = []
    for size in sizes:
        drawn = [spectrum(_part(gram, rng.choice(len(gram), size, replace=False))) for _ in range(draws)]
        ratios = torch.tensor([each.participation_ratio for each in drawn], dtype=torch.float64)
        shares = torch.tensor([each.top_share(d) for each in drawn], dtype=torch.float64)
        found.append(AtSize(size, ratios, shares))
    return found


def halvings(count: int, least: int) -> list[int]:
    """Sizes for `against_size`: the count, its half, quarter, ... down to `least`, ascending."""
    found = [count]
    while found[-1] // 2 >= max(least, 2):
        found.append(found[-1] // 2)
    return found[::-1]


def jackknife(
    gram: Float[Tensor, "N N"], figure: Callable[[Spectrum], float], limits: tuple[float, float], seed: int = 0
) -> Interval:
    """A figure of the spectrum with its 95 % interval over examples, by the delete-a-group jackknife.

    `se^2 = (G-1)/G sum_g (figure without group g - their mean)^2` with up to 20 groups drawn at random. A bootstrap
    would draw examples twice, and twins lower the rank. The interval is cut at the `limits` of the figure.
    Source: Shao and Wu (1989), A general theory for jackknife variance estimation.
    """
    estimate, count = figure(spectrum(gram)), len(gram)
    if count < 3:
        return Interval(estimate, estimate, estimate)
    groups = np.array_split(np.random.default_rng(seed).permutation(count), min(FOLDS, count))
    left = np.array([figure(spectrum(_part(gram, np.setdiff1d(np.arange(count), group)))) for group in groups])
    error = float(np.sqrt((len(groups) - 1) * left.var()))
    low, high = np.clip([estimate - Z95 * error, estimate + Z95 * error], *limits).tolist()
    return Interval(estimate, min(low, estimate), max(high, estimate))


def _part(gram: Float[Tensor, "N N"], rows: NDArray[np.int64]) -> Float[Tensor, "n n"]:
    """The Gram matrix of some of the examples, per example of theirs."""
    chosen = torch.from_numpy(rows)
    return gram[chosen][:, chosen] * (len(gram) / len(chosen))
