"""How fast a loss grows: its local exponent, and where that leads."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from tiltmeter.intervals import RESAMPLES, Interval, percentile_interval

WINDOW = 2.0  # the slope is taken over the last doubling of the time
QUARTIC = 4.0  # the study's exponent at the onset: growth that is faster for a while is not carried on


def local_exponent(points: Sequence[tuple[float, Sequence[float]]], seed: int = 0) -> Interval | None:
    """The log-log slope of the mean loss over time at the last point, by least squares, with its interval.

    Over the points of the last doubling of the time, and at least the last two. The N examples are resampled, the same
    ones at each time. A loss `k t^p` has the exponent p. Source: collapse, where 4 is expected; measured here instead.

    Args:
        points: `(time, losses of the N examples)`, in order of time.
        seed: of the resampling.

    Returns:
        None with fewer than two times above 0, and where the mean loss is not above 0 in every resample.
    """
    times = np.array([time for time, _ in points])
    used = _window(times)
    if len(used) < 2:
        return None
    losses = np.array([points[index][1] for index in used])
    x = np.log(times[used])
    picks = np.random.default_rng(seed).integers(losses.shape[1], size=(RESAMPLES, losses.shape[1]))
    means = np.vstack([losses.mean(1), losses[:, picks].mean(2).T])
    if not (means > 0).all():
        return None
    slopes = _slopes(x, np.log(means))
    return percentile_interval(float(slopes[0]), slopes[1:].tolist())


def foreseen(loss: float, exponent: Interval | None, time: float, end: float) -> float:
    """`loss (T/time)^p` at `T = min(2 time, end)`: the loss to come, if it goes on as in the last doubling of the time.

    With the local exponent as p, at most 4 and at least 0; the loss itself where there is no exponent.
    """
    power = 0.0 if exponent is None else min(max(exponent.mean, 0.0), QUARTIC)
    return loss if time == 0 else loss * (min(WINDOW * time, end) / time) ** power


def _window(times: Float[np.ndarray, " S"]) -> list[int]:
    """The points that count: of several at one time, the last."""
    last = {time: index for index, time in enumerate(times.tolist()) if time > 0}
    found = list(last.values())
    recent = [index for index in found if times[index] * WINDOW >= times[-1]]
    return recent if len(recent) > 1 else found[-2:]


def _slopes(x: Float[np.ndarray, " S"], y: Float[np.ndarray, "R S"]) -> NDArray[np.float64]:
    centred = x - x.mean()
    slopes: NDArray[np.float64] = (y - y.mean(1, keepdims=True)) @ centred / (centred @ centred)
    return slopes
