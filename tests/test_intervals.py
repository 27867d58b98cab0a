"""Intervals cover the truth about as often as they say."""

import numpy as np
import pytest
from scipy import stats

from tiltmeter.intervals import mean_interval, ratio_interval, spearman_interval


def test_the_interval_of_a_mean_covers_it_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    found = [mean_interval(rng.exponential(size=60), seed=trial) for trial in range(300)]
    covered = np.mean([interval.low <= 1 <= interval.high for interval in found])
    assert 0.90 <= covered <= 0.98
    width = np.mean([interval.high - interval.low for interval in found])
    assert width == pytest.approx(2 * 1.96 / 60**0.5, rel=0.1)


def test_the_mean_is_the_mean_and_the_seed_decides_the_interval() -> None:
    values = np.arange(20.0) ** 2
    interval = mean_interval(values, seed=3)
    assert interval.mean == 123.5
    assert 0 < interval.low < 123.5 < interval.high < 361
    assert interval == mean_interval(values, seed=3)
    assert interval != mean_interval(values, seed=4)


def test_a_ratio_resamples_its_pairs_together() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 90, size=50).astype(float)
    exact = ratio_interval(3 * tokens, tokens)
    assert (exact.mean, exact.low, exact.high) == pytest.approx((3, 3, 3))
    noisy = ratio_interval(3 * tokens + rng.normal(size=50), tokens)
    assert noisy.low < 3 < noisy.high
    assert noisy.mean == pytest.approx(3, abs=0.05)


@pytest.mark.parametrize("values", [[2.5], [2.5, 2.5, 2.5], [0.0] * 9])
def test_constant_data_have_an_interval_of_no_width(values: list[float]) -> None:
    interval = mean_interval(np.array(values))
    assert interval.low == interval.mean == interval.high == values[0]
    assert ratio_interval(np.array(values), np.ones(len(values))).high == values[0]


def test_spearman_is_scipys_and_covers_it() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=14)
    y = x**3 + rng.normal(size=14)
    interval = spearman_interval(x, y)
    assert interval is not None
    assert interval.mean == pytest.approx(float(stats.spearmanr(x, y).statistic))
    assert -1 <= interval.low < interval.mean < interval.high <= 1
    perfect = spearman_interval(x, 2 * x)
    assert perfect is not None
    assert (perfect.mean, perfect.low, perfect.high) == pytest.approx((1, 1, 1))


def test_spearman_of_what_does_not_vary_is_none() -> None:
    assert spearman_interval(np.ones(5), np.arange(5.0)) is None
    assert spearman_interval(np.arange(5.0), np.ones(5)) is None
