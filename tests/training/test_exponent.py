import numpy as np
import pytest

from tiltmeter.intervals import Interval
from tiltmeter.training.exponent import foreseen, local_exponent

RNG = np.random.default_rng(0)


def _points(times: list[float], power: float, examples: int = 40) -> list[tuple[float, list[float]]]:
    scale = RNG.uniform(0.5, 1.5, examples)
    return [(time, (scale * time**power).tolist()) for time in times]


@pytest.mark.parametrize("power", [1.0, 2.5, 4.0])
def test_a_power_law_has_its_exponent(power: float) -> None:
    found = local_exponent(_points([0.1, 0.2, 0.3, 0.4], power))
    assert found is not None
    assert (found.mean, found.low, found.high) == pytest.approx((power, power, power), rel=1e-9)


def test_it_is_local() -> None:
    early, late = _points([0.1, 0.2, 0.3], 1.0), _points([1.0, 1.5, 1.9], 4.0)
    found = local_exponent([*early, *late])
    assert found is not None
    assert found.mean == pytest.approx(4.0)


def test_it_is_the_least_squares_slope_of_the_means_with_an_interval_around_it() -> None:
    times = [0.5, 0.7, 1.0]
    losses = [(time**2 * (1 + 0.3 * RNG.standard_normal(30))).tolist() for time in times]
    found = local_exponent(list(zip(times, losses, strict=True)))
    slope = np.polyfit(np.log(times), np.log(np.mean(losses, axis=1)), 1)[0]
    assert found is not None
    assert found.mean == pytest.approx(slope)
    assert found.low < slope < found.high
    assert found.high - found.low < 1


@pytest.mark.parametrize(
    "points",
    [
        [],
        [(0.1, [1.0, 2.0])],
        [(0.1, [1.0, 2.0]), (0.1, [1.0, 2.0])],
        [(0.0, [1.0, 2.0]), (0.1, [1.0, 2.0])],
        [(0.1, [1.0, -0.5]), (0.2, [1.0, 2.0])],  # -0.5 alone is drawn in a quarter of the resamples
    ],
)
def test_there_is_none_where_the_loss_is_not_clearly_above_zero(points: list[tuple[float, list[float]]]) -> None:
    assert local_exponent(points) is None


@pytest.mark.parametrize(
    ("power", "end", "expected"),
    [
        (3.0, 9.0, 0.1 * 2**3),  # a loss 0.1 (t/2)^3 at t = 4
        (3.0, 2.5, 0.1 * 1.25**3),  # and at the end of training
        (3.0, 2.0, 0.1),
        (6.0, 9.0, 0.1 * 2**4),
        (-1.0, 9.0, 0.1),
    ],
)
def test_a_loss_is_foreseen_by_its_exponent(power: float, end: float, expected: float) -> None:
    assert foreseen(0.1, Interval(power, power - 1, power + 1), 2.0, end) == pytest.approx(expected)


def test_without_an_exponent_the_loss_itself_is_foreseen() -> None:
    assert foreseen(0.1, None, 2.0, 9.0) == 0.1
    assert foreseen(0.0, None, 0.0, 9.0) == 0.0
