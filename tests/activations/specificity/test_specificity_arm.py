"""What one arm shows, against plain loops."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from made_arms import SCORE, SHARE, noisy_arm, plain_arms
from numpy.typing import NDArray

from tiltmeter.activations.specificity.arm import Arm, DrawnControl, measure_arm
from tiltmeter.activations.specificity.gate import gate
from tiltmeter.bounded_intervals import paired_difference


def flipped(differences: Sequence[float]) -> list[float]:
    """The mean under every choice of signs."""
    choices = product((1, -1), repeat=len(differences))
    return [sum(s * d for s, d in zip(signs, differences, strict=True)) / len(differences) for signs in choices]


def pairs(one: NDArray[Any], other: NDArray[Any]) -> list[float]:
    return [a - b for a, b in zip(one, other, strict=True) if not math.isnan(a) and not math.isnan(b)]


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


@pytest.mark.parametrize("seed", range(8))
def test_an_arm_is_what_plain_loops_find(seed: int) -> None:
    arm = noisy_arm(seed)
    found = measure_arm(arm, SCORE)
    differences = pairs(arm.unsteered, arm.steered)
    effect = mean(differences)
    assert found.prompts == len(differences)
    assert found.effect is not None
    assert found.effect.mean == pytest.approx(effect)
    means = flipped(differences)
    assert found.p_causal == pytest.approx(sum(abs(m) >= abs(effect) - 1e-9 for m in means) / len(means))

    for control, values in zip(found.drawn, arm.drawn.values(), strict=True):
        effects = [mean(pairs(arm.unsteered, draw)) for draw in values]
        assert control.draws == len(effects)
        assert control.mean == pytest.approx(mean(effects))
        assert control.p == pytest.approx((1 + sum(e >= effect - 1e-9 for e in effects)) / (1 + len(effects)))

    for single, line in zip(found.single, arm.single.values(), strict=True):
        excesses = pairs(line, arm.steered)
        above = [m >= mean(excesses) - 1e-9 for m in flipped(excesses)]
        assert single.excess is not None
        assert single.excess.mean == pytest.approx(mean(excesses))
        assert single.p == pytest.approx(sum(above) / len(above) if mean(excesses) > 1e-8 else 1.0)

    every = [found.p_causal, *(each.p for each in found.controls)]
    assert found.p_specific == max(every)


def test_seeds_of_the_loops_cover_both_sides() -> None:
    found = [measure_arm(noisy_arm(seed), SCORE) for seed in range(8)]
    assert {single.p == 1 for each in found for single in each.single} == {True, False}
    assert {math.isclose(control.p, 1 / (1 + control.draws)) for each in found for control in each.drawn} == {
        True,
        False,
    }


def test_intervals_are_those_of_paired_differences() -> None:
    arm = noisy_arm(0)
    known = ~np.isnan(arm.unsteered) & ~np.isnan(arm.steered)
    assert measure_arm(arm, SCORE).effect == paired_difference(arm.unsteered[known], arm.steered[known], SCORE)


@pytest.mark.parametrize("draws", [19, 20, 38, 39, 59, 100, 199])
def test_an_effect_is_above_the_percentile_where_p_is_at_most_5_percent(draws: int) -> None:
    """The controls' effects are 1 to D thousandths; the direction's lies between them."""
    steered = 1 - np.arange(1.0, draws + 1)[:, None] / 1000
    sides = set()
    for number in range(draws + 1):
        effect = number / 1000 + 0.0005
        arm = Arm("0", 1, np.ones(1), np.array([1 - effect]), {"isotropic": steered}, {})
        (control,) = measure_arm(arm, SHARE).drawn
        assert (control.p <= 0.05 + 1e-12) == (effect > control.p95)
        sides.add(effect > control.p95)
    assert sides == {True, False}


def test_too_few_draws_have_their_largest_as_percentile() -> None:
    arm = Arm("0", 1, np.ones(1), np.ones(1), {"isotropic": 1 - np.array([[0.1], [0.3], [0.2]])}, {})
    assert measure_arm(arm, SHARE).drawn[0].p95 == pytest.approx(0.3)


def test_the_closest_control_has_the_largest_p_and_then_the_least_distance() -> None:
    ones = np.ones(10)
    kinds = {name: 1 - np.tile(effect, (59, 10)) for name, effect in (("a", 0.1), ("b", 0.3), ("c", 0.2))}
    (arm,) = plain_arms([0.8])
    closest = measure_arm(replace(arm, drawn=kinds), SHARE).closest
    assert closest is not None
    assert closest.kind == "b"
    stronger = kinds | {"c": kinds["c"] - np.r_[0.7, np.zeros(58)][:, None]}
    assert (
        measure_arm(replace(arm, drawn=stronger), SHARE).closest
        == measure_arm(replace(arm, drawn={"c": stronger["c"]}), SHARE).closest
    )
    given = {"x": 0.3 * ones, "y": 0.1 * ones, "z": ones}
    assert [each.p for each in measure_arm(replace(arm, single=given), SHARE).single][1:] == [1.0, 2**-10]
    closest = measure_arm(replace(arm, drawn={}, single=given), SHARE).closest
    assert closest is not None
    assert closest.kind == "y"
    given = {"far": ones, "near": 0.3 * ones}
    closest = measure_arm(replace(arm, drawn={}, single=given), SHARE).closest
    assert closest is not None
    assert closest.kind == "near"
    assert measure_arm(replace(arm, drawn={}), SHARE).closest is None


def test_controls_without_outcomes_count_as_the_strongest() -> None:
    (arm,) = plain_arms([0.8])
    gone = arm.drawn["isotropic"].copy()
    gone[:4] = np.nan
    measured = measure_arm(replace(arm, drawn={"isotropic": gone}), SHARE)
    assert measured.drawn[0] == DrawnControl("isotropic", 59, 4 / 59, 1.0, 5 / 60)
    found = gate([replace(arm, single={"benign": np.full(10, np.nan)})], SHARE)
    assert (found.verdict, found.arms[0].p_specific) == ("not specific", 1.0)
    assert not found.can_pass
    assert found.arms[0].measured.smallest_p == 1
