"""Figures of projections onto directions that were found on other prompts, and their intervals.

Projections are less the midpoint of the training prompts' two means: above 0 is tuned.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import stats

from tiltmeter.activations.separation.folds import Folds
from tiltmeter.intervals import CONFIDENCE, Interval

# A pair's inner product enters a cross-fitted figure twice, each of the two prompts testing what the other helped find.
DEPENDENCE = 2
_NO_VARIANCE = 1e-12


@dataclass(frozen=True, eq=False)
class Projections:
    """Of N prompts, in units of the activations.

    Attributes:
        base, tuned: both models' activations, each projected onto the unit direction of its prompt's fold.
        fold: where each prompt was held out.
    """

    base: Float[np.ndarray, " N"]
    tuned: Float[np.ndarray, " N"]
    fold: Folds

    def accuracy(self) -> Interval:
        """Balanced accuracy of the threshold 0; a projection of 0 counts half."""
        return cross_fitted_interval(correct(self.base, self.tuned))

    def auroc(self) -> Interval:
        """The chance that a tuned projection is above a base one of the same fold, by prompts averaged over folds.

        The interval is over prompts: a prompt's value is `P(tuned_i > base_j) + P(tuned_j > base_i) - AUROC` over the
        j of its fold. Source: DeLong et al. (1988); two readings of a prompt as in Obuchowski (1997).
        """
        values = np.empty(len(self.fold))
        for fold in np.unique(self.fold):
            inside = self.fold == fold
            tuned, base = placements(self.base[inside], self.tuned[inside])
            values[inside] = tuned + base - tuned.mean()
        return cross_fitted_interval(values)

    def d_prime(self) -> float:
        """`(mean(tuned) - mean(base)) / sqrt((var(tuned) + var(base)) / 2)`, with sign; infinite where none varies."""
        spread = math.sqrt((self.base.var(ddof=1) + self.tuned.var(ddof=1)) / 2)
        difference = float((self.tuned - self.base).mean())
        return difference / spread if spread else math.copysign(math.inf, difference)


def correct(base: Float[np.ndarray, " N"], tuned: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """The share of each prompt's two projections that is on its own side of 0; the mean is the balanced accuracy."""
    share: NDArray[Any] = (2 + np.sign(tuned) - np.sign(base)) / 4
    return share


def placements(
    base: Float[np.ndarray, "*P n"], tuned: Float[np.ndarray, "*P n"]
) -> tuple[Float[np.ndarray, "*P n"], Float[np.ndarray, "*P n"]]:
    """The share of base values below each tuned one, and of tuned values above each base one; ties count half.

    The mean of either is the AUROC. `R_i - r_i` of n, R the rank among all and r the rank among its own side.
    """
    n = base.shape[-1]
    ranks = stats.rankdata(np.concatenate([base, tuned], -1), axis=-1)
    below = (ranks[..., n:] - stats.rankdata(tuned, axis=-1)) / n
    above = 1 - (ranks[..., :n] - stats.rankdata(base, axis=-1)) / n
    return below, above


def cross_fitted_interval(values: Float[np.ndarray, " N"]) -> Interval:
    """The mean m of N prompts' cross-fitted values, which is within [0, 1], with an interval that noise does not fool.

    Held-out values are not independent: the inner product of the differences of prompts i and j enters as a test of i
    and as one of j. Where there is nothing but noise to find, the variance of m is up to twice that of a mean of
    independent values, and the bootstrap over prompts holds 0.5 in 87 to 90 % of draws. So: v twice the variance of a
    mean of independent values, `n = m (1-m) / v` the number of yes-or-no answers that would vary as much (N/2 where
    nothing varies), times the square of z over Student's t with N - 1 degrees of freedom, and the exact binomial
    interval of m n in n.

    `benchmarks/noise_separability.py`: it holds 0.5 in at least 97 % of noise draws. It is too wide where the direction
    is found almost without error, and too narrow (87 %) where a few prompts of outsize activations set the midpoint.

    Source: Clopper and Pearson (1934) at effective sizes as in Korn and Graubard (1998); dependence between folds as in
        Bates, Hastie and Tibshirani (2023).
    """
    N = len(values)
    mean = min(max(float(values.mean()), 0.0), 1.0)
    variance = DEPENDENCE * float(values.var(ddof=1)) / N
    size = mean * (1 - mean) / variance if variance > _NO_VARIANCE else N / DEPENDENCE
    tail = (1 - CONFIDENCE) / 2
    size *= float(stats.norm.ppf(tail) / stats.t.ppf(tail, N - 1)) ** 2
    yes, no = mean * size, (1 - mean) * size
    low = float(stats.beta.ppf(tail, yes, no + 1)) if yes else 0.0
    high = float(stats.beta.isf(tail, yes + 1, no)) if no else 1.0
    return Interval(mean, low, high)
