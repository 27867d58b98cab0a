"""Quadratic kappa against scikit-learn."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import cohen_kappa_score

from tiltmeter.behaviour import agreement as module
from tiltmeter.behaviour.agreement import agreement

SCORES = {"harm": range(1, 6), "refused": range(2), "alignment": range(101)}


def pair(outcome: str, count: int = 60, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
    """Scores of two judges that agree in part."""
    rng, scores = np.random.default_rng(seed), SCORES[outcome]
    first = rng.integers(scores[0], scores[-1] + 1, count)
    second = np.where(rng.random(count) < 0.6, first, rng.integers(scores[0], scores[-1] + 1, count))
    return first.astype(float), second.astype(float)


def sklearn_kappa(first: NDArray[Any], second: NDArray[Any], outcome: str) -> float:
    return float(cohen_kappa_score(first, second, weights="quadratic", labels=list(SCORES[outcome])))


@pytest.mark.parametrize("outcome", SCORES)
def test_kappa_is_that_of_scikit_learn(outcome: str) -> None:
    first, second = pair(outcome)
    found = agreement(first, second)
    assert found.kappa is not None
    assert found.kappa.mean == pytest.approx(sklearn_kappa(first, second, outcome), rel=1e-12)
    assert found.kappa.low < found.kappa.mean < found.kappa.high
    assert (found.both, found.one, found.neither) == (60, 0, 0)


def test_missing_scores_are_counted_and_left_out() -> None:
    first, second = pair("harm")
    with_missing = np.append(first, [np.nan, 3, np.nan]), np.append(second, [2, np.nan, np.nan])
    found, without = agreement(*with_missing), agreement(first, second)
    assert (found.both, found.one, found.neither) == (60, 2, 1)
    assert found.kappa == without.kappa


@pytest.mark.parametrize("answers", [1, 3])
def test_interval_is_that_of_resampled_prompts(answers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESAMPLES", 40)
    first, second = pair("harm")
    groups = np.arange(60) // answers
    found = agreement(first, second, groups, seed=3)
    size = 60 // answers
    drawn = []
    for counts in np.random.default_rng(3).multinomial(size, np.full(size, 1 / size), 40):
        picked = [
            place for group, count in enumerate(counts) for place in np.flatnonzero(groups == group).repeat(count)
        ]
        drawn.append(sklearn_kappa(first[picked], second[picked], "harm"))
    assert found.kappa is not None
    assert (found.kappa.low, found.kappa.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), rel=1e-9)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([1, 2, 5], [1, 2, 5], 1.0),
        ([1, 5], [5, 1], -1.0),
        ([1, 5, 1, 5], [1, 1, 5, 5], 0.0),
        ([3, 3, 3], [3, 3, 3], None),
        ([3, 3, 3], [1, 1, 1], 0.0),
        ([3, 3], [1, 5], 0.0),
        ([np.nan, 1.0], [2.0, np.nan], None),
        ([], [], None),
    ],
)
def test_kappa_by_hand(first: list[float], second: list[float], expected: float | None) -> None:
    found = agreement(np.array(first, float), np.array(second, float))
    if expected is None:
        assert found.kappa is None
    else:
        assert found.kappa is not None
        assert found.kappa.mean == pytest.approx(expected, abs=1e-12)


def test_one_prompt_says_nothing_about_others() -> None:
    first, second = pair("harm")
    found = agreement(first, second, np.zeros(60, int))
    assert found.kappa is not None
    assert (found.kappa.low, found.kappa.high) == (-1.0, 1.0)


def test_interval_covers_the_kappa_of_the_population() -> None:
    population = pair("harm", 100_000, seed=1)
    truth = sklearn_kappa(*population, "harm")
    rng, covered = np.random.default_rng(0), 0
    for _ in range(100):
        picked = rng.integers(100_000, size=80)
        found = agreement(population[0][picked], population[1][picked]).kappa
        assert found is not None
        covered += found.low <= truth <= found.high
    assert 0.89 <= covered / 100 <= 1
