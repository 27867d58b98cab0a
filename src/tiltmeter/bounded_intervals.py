"""Intervals for means of outcomes with known bounds: shares, scores from 1 to 5, ratings from 0 to 100.

The percentile bootstrap knows nothing of what it has not seen: of 60 answers without a harmful one it makes an interval
of no width, and it covers the mean of rare high scores far less often than it says. Score intervals do not.
"""

import math
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import stats

from tiltmeter.intervals import CONFIDENCE, Interval

Bounds = tuple[float, float]
_NO_VARIANCE = 1e-12


def score_interval(totals: Float[np.ndarray, " P"], counts: Float[np.ndarray, " P"], bounds: Bounds) -> Interval:
    """The mean over all answers to P prompts, with Wilson's score interval for a bounded mean of clustered values.

    With m the mean moved to [0, 1], v its variance over prompts (the answers to one stay together), n = m (1-m) / v the
    number of yes-or-no answers that would vary as much, not less than P, and z the quantile of Student's t with P - 1
    degrees of freedom: `(m + z^2/2n +- z sqrt(m(1-m)/n + z^2/4n^2)) / (1 + z^2/n)`. Where nothing varies, n = P. One
    prompt says nothing about others: its interval is the whole range.

    Args:
        totals: sum of the outcome over each prompt's answers.
        counts: how many answers each prompt has, at least one.
        bounds: smallest and largest possible outcome.

    Source: Wilson (1927); effective sample sizes as in Korn and Graubard (1998).
    """
    low, high = bounds
    scaled = (totals - low * counts) / (high - low)
    mean = min(max(float(scaled.sum() / counts.sum()), 0.0), 1.0)
    below, above = _wilson(mean, _effective_size(scaled, counts, mean), len(counts))
    return Interval(low + mean * (high - low), low + below * (high - low), low + above * (high - low))


def paired_difference(one: Float[np.ndarray, " P"], other: Float[np.ndarray, " P"], bounds: Bounds) -> Interval:
    """The mean of `one - other` over P prompts, from the score interval [l, u] of each side's mean m.

    `d - sqrt((m1-l1)^2 - 2 r (m1-l1)(u2-m2) + (u2-m2)^2)` and its mirror image, r the correlation over prompts: two
    models that never differ have an interval of the width that P prompts can justify, not of none.

    Args:
        one, other: mean outcome of two models over each prompt's answers.
        bounds: smallest and largest possible outcome.

    Source: Newcombe (1998), method 10; Zou and Donner (2008) for other means.
    """
    ones = np.ones(len(one))
    first, second = score_interval(one, ones, bounds), score_interval(other, ones, bounds)
    r = _correlation(one, other)
    difference = first.mean - second.mean
    low = _recovered(first.mean - first.low, second.high - second.mean, r)
    high = _recovered(first.high - first.mean, second.mean - second.low, r)
    return Interval(difference, difference - low, difference + high)


def _effective_size(scaled: NDArray[Any], counts: NDArray[Any], mean: float) -> float:
    prompts = len(counts)
    residuals = scaled - mean * counts
    variance = prompts / max(prompts - 1, 1) * float((residuals**2).sum()) / float(counts.sum()) ** 2
    return prompts if variance < _NO_VARIANCE else max(mean * (1 - mean) / variance, prompts)


def _wilson(mean: float, size: float, prompts: int) -> tuple[float, float]:
    if prompts < 2:
        return 0.0, 1.0
    z = float(stats.t.ppf((1 + CONFIDENCE) / 2, prompts - 1))
    centre, scale = mean + z**2 / (2 * size), 1 + z**2 / size
    half = z * math.sqrt(mean * (1 - mean) / size + z**2 / (4 * size**2))
    return max(0.0, min((centre - half) / scale, mean)), min(1.0, max((centre + half) / scale, mean))


def _correlation(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Pearson's; 0 where one side does not vary."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


def _recovered(one: float, other: float, r: float) -> float:
    """The half-width of a difference from those of its two sides."""
    return math.sqrt(max(one**2 - 2 * r * one * other + other**2, 0.0))
