"""Tests of paired differences against enumeration and published values."""

from itertools import product

import numpy as np
import pytest

from tiltmeter.paired_tests import holm, sign_flip_test


def test_few_differences_are_tested_exactly() -> None:
    differences = np.array([1.0, 2.0, 0.5, -0.25, 3.0, 0.0, 1.5])
    signs = np.array([*product((-1, 1), repeat=7)])
    means = signs @ differences / 7
    expected = np.mean(np.abs(means) >= abs(differences.mean()) - 1e-12)
    assert sign_flip_test(differences) == pytest.approx(expected)


def test_many_differences_are_tested_by_draws() -> None:
    rng = np.random.default_rng(0)
    small = [sign_flip_test(rng.normal(size=40), seed) for seed in range(40)]
    assert 0 <= sum(p < 0.05 for p in small) <= 7
    assert np.mean(small) == pytest.approx(0.5, abs=0.15)
    assert sign_flip_test(rng.normal(1, 1, size=40)) == pytest.approx(2 / 10000)
    some = rng.normal(0.3, 1, size=40)
    assert sign_flip_test(some, 1) == sign_flip_test(some, 1) != sign_flip_test(some, 2)


def test_no_difference_at_all() -> None:
    assert sign_flip_test(np.zeros(9)) == 1


def test_one_difference_says_nothing() -> None:
    assert sign_flip_test(np.array([3.0])) == 1


@pytest.mark.parametrize(
    ("given", "expected"),
    [  # R: p.adjust(x, "holm")
        ([0.01, 0.02, 0.03, 0.04, 0.05], [0.05, 0.08, 0.09, 0.09, 0.09]),
        ([0.04, 0.001, 0.7, 0.02], [0.08, 0.004, 0.7, 0.06]),
        ([0.6, 0.9], [1.0, 1.0]),
        ([0.03], [0.03]),
        ([], []),
    ],
)
def test_holm_is_rs(given: list[float], expected: list[float]) -> None:
    assert holm(given) == pytest.approx(expected)
