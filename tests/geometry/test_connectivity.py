"""Barriers and lowest points against closed forms, plain loops and the rate of false alarms."""

import numpy as np
import pytest
from scipy import stats

from tiltmeter.errors import NothingMeasuredError
from tiltmeter.geometry.connectivity import barrier, lowest

POINTS = np.linspace(0, 1, 11)


def test_the_barrier_of_a_parabola_is_its_height() -> None:
    """4 h s (1-s) on a sloping line: height h in the middle, whatever the line."""
    heights = np.array([1.0, 2.0, 6.0])
    losses = np.stack([4 * s * (1 - s) * heights + 5 * s + np.array([1.0, 2.0, 3.0]) for s in POINTS])
    found = barrier(POINTS, losses, np.ones(3))
    assert found.height.value.mean == pytest.approx(3.0, abs=1e-12)
    assert found.height.at == 0.5
    assert (found.height.value.low, found.height.value.high) == pytest.approx((1.0, 6.0))
    curve = 12 * POINTS * (1 - POINTS) + 5 * POINTS + 2
    assert found.spread == pytest.approx(curve.max() - curve.min())


def test_a_convex_loss_has_no_barrier() -> None:
    losses = np.stack([(s - 0.3) ** 2 * np.array([1.0, 4.0]) for s in POINTS])
    found = barrier(POINTS, losses, np.ones(2))
    assert (found.height.value.mean, found.height.value.low, found.height.value.high) == (0, 0, 0)
    assert found.height.at in (0, 1)


def test_ratios_and_intervals_equal_a_plain_bootstrap() -> None:
    draw = np.random.default_rng(3)
    tokens = draw.integers(1, 9, size=40).astype(float)
    losses = tokens * (1 + 2 * POINTS[:, None] * (1 - POINTS[:, None]) * draw.exponential(size=40)) + draw.normal(
        size=(11, 40)
    )
    found = barrier(POINTS, losses, tokens, seed=1)

    def height(pick: np.ndarray) -> float:
        curve = losses[:, pick].sum(1) / tokens[pick].sum()
        return float(np.max(curve - ((1 - POINTS) * curve[0] + POINTS * curve[-1])))

    assert found.height.value.mean == pytest.approx(height(np.arange(40)), abs=1e-12)
    drawn = [height(pick) for pick in draw.integers(40, size=(4000, 40))]
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert (found.height.value.low, found.height.value.high) == pytest.approx((low, high), rel=0.05)
    curve = losses.sum(1) / tokens.sum()
    assert found.spread == pytest.approx(curve.max() - curve.min())


def test_a_loss_on_the_line_exceeds_the_null_in_one_of_twenty() -> None:
    """Noise by example and point on a straight line: the interval alone would see a barrier in most cases."""
    draw = np.random.default_rng(0)
    over = excluded = 0
    for seed in range(150):
        losses = 1 + POINTS[:, None] + draw.normal(size=(11, 60))
        found = barrier(POINTS, losses, np.ones(60), seed)
        over += found.height.value.mean > found.null_p95
        excluded += found.height.value.low > 0
    low, high = stats.binom.interval(0.999, 150, 0.05)
    assert low <= over <= high
    assert excluded > 75


def test_the_lowest_point_and_its_interval() -> None:
    values = np.array([[5.0, 5, 5, 5], [1, 5, 1, 5], [4, 4, 4, 4]])
    scored = np.ones((3, 4))
    found = lowest(np.array([0.0, 0.5, 1.0]), values, scored)
    assert (found.at, found.value.mean) == (0.5, 3.0)
    assert (found.value.low, found.value.high) == (1.0, 4.0)  # above 4 another point is lower
    scored[1, [0, 2]] = 0  # the judge failed on both
    found = lowest(np.array([0.0, 0.5, 1.0]), values, scored)
    assert (found.at, found.value.mean) == (1.0, 4.0)
    scored[1] = 0
    with pytest.raises(NothingMeasuredError, match=r"s = 0\.5"):
        lowest(np.array([0.0, 0.5, 1.0]), values, scored)
