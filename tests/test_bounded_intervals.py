"""Score intervals equal published closed forms, and cover the truth as often as they say."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from tiltmeter.bounded_intervals import Bounds, paired_difference, score_interval
from tiltmeter.intervals import Interval, mean_interval

SHARE, SCORE = (0.0, 1.0), (1.0, 5.0)
TRIALS = 400
# By the binomial distribution, fewer are covered in one of a thousand such simulations if 95 % are in truth.
FEWEST = int(stats.binom(TRIALS, 0.95).ppf(0.001))
DISTRIBUTIONS = {  # of scores 1 to 5
    "rare fives": (0.95, 0, 0, 0, 0.05),
    "very rare fives": (0.98, 0, 0, 0, 0.02),
    "all scores": (0.3, 0.2, 0.2, 0.15, 0.15),
    "middle scores": (0.1, 0.2, 0.4, 0.2, 0.1),
    "mostly fives": (0.1, 0.05, 0.05, 0.1, 0.7),
    "ones and twos": (0.7, 0.3, 0, 0, 0),
}


def of_values(values: Sequence[Sequence[float]], bounds: Bounds) -> Interval:
    totals, counts = ([float(f(each)) for each in values] for f in (sum, len))
    return score_interval(np.array(totals), np.array(counts), bounds)


@pytest.mark.parametrize(("yes", "of"), [(0, 20), (1, 20), (3, 60), (30, 60), (59, 60), (60, 60)])
def test_a_share_has_wilsons_interval(yes: int, of: int) -> None:
    found = of_values([[float(index < yes)] for index in range(of)], SHARE)
    level = float(1 - 2 * stats.t.sf(stats.t.ppf(0.975, of - 1), 1e9))  # with the quantile of Student's t
    expected = stats.binomtest(yes, of).proportion_ci(level, method="wilson")
    assert found.mean == pytest.approx(yes / of)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_a_score_is_a_share_of_its_range() -> None:
    rng = np.random.default_rng(0)
    values = [rng.random(3).tolist() for _ in range(12)]
    share, score = of_values(values, SHARE), of_values([[1 + 4 * x for x in each] for each in values], SCORE)
    expected = [1 + 4 * x for x in (share.mean, share.low, share.high)]
    assert [score.mean, score.low, score.high] == pytest.approx(expected)


def test_with_many_prompts_it_is_students_interval() -> None:
    values = np.random.default_rng(0).beta(2, 3, size=20000)
    found = score_interval(values, np.ones(20000), SHARE)
    expected = stats.t(19999, values.mean(), stats.sem(values)).interval(0.95)
    assert (found.low, found.high) == pytest.approx(expected, abs=1.96**2 / 2 / 20000)  # its shift


def test_answers_to_one_prompt_count_as_one_where_they_agree() -> None:
    once = of_values([[1.0], [0.0], [0.0], [1.0], [0.0], [0.0]], SHARE)
    often = of_values([[x] * 50 for x in (1.0, 0.0, 0.0, 1.0, 0.0, 0.0)], SHARE)
    assert (often.mean, often.low, often.high) == pytest.approx((once.mean, once.low, once.high))
    mixed = of_values([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]] * 3, SHARE)
    assert mixed.mean == pytest.approx(once.mean)


def test_a_prompt_weighs_by_its_known_answers() -> None:
    assert of_values([[5.0], [1.0, 1.0, 1.0]], SCORE).mean == 2


@pytest.mark.parametrize("value", [1.0, 3.0, 5.0])
def test_where_nothing_varies_the_width_is_that_of_the_number_of_prompts(value: float) -> None:
    few, many = (of_values([[value]] * count, SCORE) for count in (10, 1000))
    assert few.mean == many.mean == value
    assert few.low <= many.low <= value <= many.high <= few.high
    assert few.high - few.low > 0.5 > many.high - many.low


def test_one_prompt_says_nothing_about_others() -> None:
    assert of_values([[2.0] * 100], SCORE) == Interval(2, 1, 5)


def test_a_difference_of_equal_models_is_zero_but_not_surely() -> None:
    ones = np.ones(60)
    found = paired_difference(ones, ones, SCORE)
    upper = score_interval(ones, ones, SCORE).high - 1
    assert (found.mean, found.low, found.high) == pytest.approx((0, -upper, upper))


def test_a_difference_has_newcombes_interval() -> None:
    """Built here from counts: a both, b and c one only, d none, with phi for the correlation."""
    a, b, c, d = 26, 15, 7, 37
    n = a + b + c + d
    one = np.array([1.0] * (a + b) + [0.0] * (c + d))
    other = np.array([1.0] * a + [0.0] * b + [1.0] * c + [0.0] * d)
    found = paired_difference(one, other, SHARE)
    level = float(1 - 2 * stats.norm.sf(stats.t.ppf(0.975, n - 1)))
    p, q = (a + b) / n, (a + c) / n
    (l1, u1), (l2, u2) = (stats.binomtest(k, n).proportion_ci(level, method="wilson") for k in (a + b, a + c))
    phi = (a * d - b * c) / ((a + b) * (c + d) * (a + c) * (b + d)) ** 0.5
    low = p - q - ((p - l1) ** 2 - 2 * phi * (p - l1) * (u2 - q) + (u2 - q) ** 2) ** 0.5
    high = p - q + ((u1 - p) ** 2 - 2 * phi * (u1 - p) * (q - l2) + (q - l2) ** 2) ** 0.5
    assert (found.mean, found.low, found.high) == pytest.approx((p - q, low, high))


def drawn(rng: np.random.Generator, shape: tuple[int, int], weights: Sequence[float]) -> NDArray[np.float64]:
    """Scores of answers to prompts; half of the answers are their prompt's common one, where there are several."""
    own, common = rng.choice(5, size=shape, p=weights), rng.choice(5, size=(shape[0], 1), p=weights)
    return 1.0 + np.where(rng.random(shape) < 0.5, common, own)


@pytest.mark.parametrize("shape", [(20, 1), (60, 1), (60, 4)], ids=str)
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_intervals_cover_at_the_nominal_rate(name: str, shape: tuple[int, int]) -> None:
    rng, weights = np.random.default_rng(0), DISTRIBUTIONS[name]
    mean, fives = float(np.dot(weights, [1, 2, 3, 4, 5])), weights[4]
    counts = np.full(shape[0], float(shape[1]))
    covered = np.zeros(2)
    for _ in range(TRIALS):
        scores = drawn(rng, shape, weights)
        found = score_interval(scores.sum(1), counts, SCORE)
        share = score_interval((scores == 5).sum(1).astype(float), counts, SHARE)
        covered += [found.low <= mean <= found.high, share.low <= fives <= share.high]
    assert covered.min() >= FEWEST


def test_few_prompts_of_which_one_alone_does_harm_are_not_covered() -> None:
    """Where score intervals fail: fifty answers each to eight prompts, most of them to one."""
    rng, covered = np.random.default_rng(0), 0
    for _ in range(TRIALS):
        harmful = rng.random((8, 1)) < 0.05
        scores = 1.0 + 4 * (rng.random((8, 50)) < np.where(harmful, 0.9, 0.02))
        found = score_interval(scores.sum(1), np.full(8, 50.0), SCORE)
        covered += found.low <= 1 + 4 * (0.05 * 0.9 + 0.95 * 0.02) <= found.high
    assert covered / TRIALS < 0.9


def test_the_bootstrap_does_not_cover_rare_harm() -> None:
    """What the score interval is for."""
    rng = np.random.default_rng(0)
    found = [mean_interval(drawn(rng, (20, 1), DISTRIBUTIONS["rare fives"])[:, 0], seed=n) for n in range(TRIALS // 4)]
    assert np.mean([each.low <= 1.2 <= each.high for each in found]) < 0.8


@pytest.mark.parametrize("shape", [(20, 1), (60, 1), (60, 4)], ids=str)
@pytest.mark.parametrize(
    ("one", "other"),
    [("all scores", "rare fives"), ("rare fives", "very rare fives"), ("mostly fives", "middle scores")],
)
def test_paired_differences_cover_at_the_nominal_rate(one: str, other: str, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    weights = [DISTRIBUTIONS[name] for name in (one, other)]
    truth = float(np.dot(weights, [1, 2, 3, 4, 5]) @ [1, -1])
    covered = 0
    for _ in range(TRIALS):
        first, second = linked(rng, shape, weights)
        found = paired_difference(first.mean(1), second.mean(1), SCORE)
        covered += found.low <= truth <= found.high
    assert covered >= FEWEST


def linked(rng: np.random.Generator, shape: tuple[int, int], weights: Sequence[Sequence[float]]) -> list[NDArray[Any]]:
    """Scores of two models to the same prompts: where a prompt is hard for one, it is often hard for the other."""
    common = rng.random((shape[0], 1))
    places = [np.where(rng.random(shape) < 0.6, common, rng.random(shape)) for _ in weights]
    return [1.0 + np.searchsorted(np.cumsum(w)[:-1], place) for w, place in zip(weights, places, strict=True)]
