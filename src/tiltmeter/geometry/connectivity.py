"""Is there a barrier on a path, and how low does a figure fall on it? An example is resampled at all points at once."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from tiltmeter.errors import NothingMeasuredError
from tiltmeter.intervals import RESAMPLES, Interval, percentile_interval


@dataclass(frozen=True)
class Extreme:
    """The largest or smallest value over a path's points with its interval, and the point where it sits.

    The extreme is taken anew in each resample of the examples. A maximum over points is biased upward (chance lifts
    some point in each resample), a minimum downward.
    """

    value: Interval
    at: float


@dataclass(frozen=True)
class Barrier:
    """The height of a loss above the straight line between its ends.

    Attributes:
        height: `max_s [loss(s) - ((1-s) loss(0) + s loss(1))]` over s in [0, 1]; the ends are in, so it is at least 0,
            which is the convex case.
        null_p95: 95th percentile of what the choice of examples alone makes of a loss that lies on the line at every
            point: of `max_s` of the resampled less the observed height above the line.
        spread: largest less smallest loss over s in [0, 1].
    """

    height: Extreme
    null_p95: float
    spread: float


def barrier(
    points: Float[np.ndarray, " S"],
    losses: Float[np.ndarray, "S N"],
    weights: Float[np.ndarray, " N"],
    seed: int = 0,
) -> Barrier:
    """The barrier of `loss(s) = sum_n losses[s, n] / sum_n weights[n]`, bootstrapped over the N examples.

    Args:
        points: s in [0, 1], ascending, from 0 to 1.
        losses: each example's loss at each point; of a sum over tokens, weights are numbers of tokens.
    """
    assert (points[0], points[-1]) == (0, 1)
    above = losses - ((1 - points)[:, None] * losses[0] + points[:, None] * losses[-1])
    above[[0, -1]] = 0  # not up to rounding
    means = losses.sum(1) / weights.sum()
    heights, drawn = _resampled(above, np.broadcast_to(weights, above.shape), seed)
    null_p95 = float(np.quantile((drawn - heights).max(1), 0.95))
    return Barrier(_extreme(points, heights, drawn, largest=True), null_p95, float(means.max() - means.min()))


def lowest(
    points: Float[np.ndarray, " S"],
    values: Float[np.ndarray, "S N"],
    weights: Float[np.ndarray, "S N"],
    seed: int = 0,
) -> Extreme:
    """The smallest weighted mean over the points; a weight of 0 leaves an example out at a point.

    Raises:
        NothingMeasuredError: a point where all weights are 0.
    """
    if not weights.sum(1).all():
        raise NothingMeasuredError(f"nothing was scored at s = {points[weights.sum(1).argmin()]:g}")
    means, drawn = _resampled(values * weights, weights, seed)
    return _extreme(points, means, drawn, largest=False)


def _resampled(
    totals: Float[np.ndarray, "S N"], weights: Float[np.ndarray, "S N"], seed: int
) -> tuple[Float[np.ndarray, " S"], Float[np.ndarray, "R S"]]:
    """`sum totals / sum weights` at each point, observed and for the same resamples of examples at all points."""
    count = totals.shape[1]
    times = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=RESAMPLES).astype(float)
    below = times @ weights.T
    drawn = np.divide(times @ totals.T, below, out=np.full_like(below, np.nan), where=below > 0)
    return totals.sum(1) / weights.sum(1), drawn


def _extreme(points: NDArray[Any], values: NDArray[Any], drawn: Float[np.ndarray, "R S"], largest: bool) -> Extreme:
    index = int(values.argmax() if largest else values.argmin())
    whole = drawn[~np.isnan(drawn).any(1)]  # a resample may hold no scored example
    per_resample = whole.max(1) if largest else whole.min(1)
    return Extreme(percentile_interval(float(values[index]), per_resample.tolist()), float(points[index]))
