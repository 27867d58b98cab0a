"""Intervals by bootstrap, and nothing else."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import stats

RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


def mean_interval(values: Float[np.ndarray, " N"], seed: int = 0) -> Interval:
    """The mean of N independent values, with the percentile bootstrap interval."""
    low, high = _bootstrap((values,), np.mean, seed)
    return Interval(float(np.mean(values)), low, high)


def ratio_interval(numerator: Float[np.ndarray, " N"], denominator: Float[np.ndarray, " N"], seed: int = 0) -> Interval:
    """`sum(numerator) / sum(denominator)` with its interval; the N pairs are resampled together."""

    def ratio(a: NDArray[Any], b: NDArray[Any], axis: int = -1) -> Any:
        return a.sum(axis) / b.sum(axis)

    low, high = _bootstrap((numerator, denominator), ratio, seed, paired=True)
    return Interval(float(numerator.sum() / denominator.sum()), low, high)


def spearman_interval(x: Float[np.ndarray, " N"], y: Float[np.ndarray, " N"], seed: int = 0) -> Interval | None:
    """Spearman's rank correlation over N pairs with its interval; None where one side does not vary."""
    if len(set(x.tolist())) < 2 or len(set(y.tolist())) < 2:
        return None
    rng = np.random.default_rng(seed)
    picks = rng.integers(len(x), size=(RESAMPLES, len(x)))
    drawn = [stats.spearmanr(x[pick], y[pick]).statistic for pick in picks if _varies(x[pick]) and _varies(y[pick])]
    return percentile_interval(float(stats.spearmanr(x, y).statistic), drawn)


def _varies(values: NDArray[Any]) -> bool:
    return bool((values != values[0]).any())


def _bootstrap(
    data: tuple[NDArray[Any], ...], statistic: Callable[..., Any], seed: int, paired: bool = False
) -> tuple[float, float]:
    if len(data[0]) < 2 or not any(_varies(values) for values in data):
        point = float(statistic(*data))
        return point, point
    result = stats.bootstrap(
        data,
        statistic,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        paired=paired,
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def percentile_interval(point: float, drawn: Sequence[float]) -> Interval:
    """A point estimate with the percentile interval of its resamples."""
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(point, float(low), float(high))


def crossing_interval(
    times: Float[np.ndarray, " S"], losses: Float[np.ndarray, "S N"], limit: float, seed: int = 0
) -> Interval | None:
    """When the mean over N first exceeds `limit`, linear between times, with its interval; None where it does not.

    Resamples that never cross count as the last time.
    """
    point = _crossing(times, losses.mean(1), limit)
    if point is None:
        return None
    picks = np.random.default_rng(seed).integers(losses.shape[1], size=(RESAMPLES, losses.shape[1]))
    drawn = [_crossing(times, losses[:, pick].mean(1), limit) for pick in picks]
    return percentile_interval(point, [float(times[-1]) if crossing is None else crossing for crossing in drawn])


def _crossing(times: NDArray[Any], values: NDArray[Any], limit: float) -> float | None:
    above = np.flatnonzero(values > limit)
    if not len(above):
        return None
    after = int(above[0])
    if after == 0:
        return float(times[0])
    before = after - 1
    share = (limit - values[before]) / (values[after] - values[before])
    return float(times[before] + share * (times[after] - times[before]))
