"""Verdicts on arms and batteries."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from made_arms import SCORE, SHARE, moved, noisy_arm, plain_arms

from tiltmeter.activations.specificity.arm import Arm, ArmEffect, measure_arm
from tiltmeter.activations.specificity.gate import Battery, draws_needed, gate
from tiltmeter.activations.specificity.wording import sentence
from tiltmeter.bounded_intervals import paired_difference
from tiltmeter.errors import InputError, NothingMeasuredError
from tiltmeter.paired_tests import holm


def test_p_values_are_adjusted_for_all_arms() -> None:
    arms = [noisy_arm(seed, block=str(seed)) for seed in range(5)]
    found, alone = gate(arms, SCORE), [measure_arm(arm, SCORE) for arm in arms]
    assert [arm.measured for arm in found.arms] == alone
    assert [arm.p_causal for arm in found.arms] == holm([each.p_causal for each in alone])
    assert [arm.p_specific for arm in found.arms] == holm([each.p_specific for each in alone])


def by_name(found: Battery) -> dict[str, Any]:
    return {arm.measured.block: (arm.verdict, arm.p_causal, arm.p_specific, arm.causal) for arm in found.arms}


def test_orders_do_not_matter() -> None:
    arms = [noisy_arm(seed, block=str(seed)) for seed in range(4)]
    expected = gate(arms, SCORE)
    turned = gate(arms[::-1], SCORE)
    assert by_name(turned) == by_name(expected)
    assert (turned.verdict, turned.leading) == (expected.verdict, expected.leading)
    order = np.random.default_rng(0).permutation(6)
    shuffled = gate([moved(arm, lambda x: x[..., order]) for arm in arms], SCORE)
    for one, other in zip(shuffled.arms, expected.arms, strict=True):
        assert (one.p_causal, one.p_specific, one.verdict) == (other.p_causal, other.p_specific, other.verdict)
    reversed_draws = [
        replace(
            arm,
            drawn={kind: arm.drawn[kind][::-1] for kind in sorted(arm.drawn, reverse=True)},
            single={kind: arm.single[kind] for kind in sorted(arm.single)},
        )
        for arm in arms
    ]
    assert by_name(gate(reversed_draws, SCORE)) == by_name(expected)


def test_units_do_not_matter() -> None:
    scores, shares = (gate([noisy_arm(seed, bounds=bounds) for seed in range(4)], bounds) for bounds in (SCORE, SHARE))
    assert [arm.verdict for arm in scores.arms] == [arm.verdict for arm in shares.arms]
    assert [arm.p_specific for arm in scores.arms] == [arm.p_specific for arm in shares.arms]


def test_an_outcome_that_should_rise_comes_as_its_negative() -> None:
    arms = [noisy_arm(seed) for seed in range(4)]
    mirrored = gate([moved(moved(arm, lambda x: 6 - x), np.negative) for arm in arms], (-5.0, -1.0))
    assert by_name(mirrored) == by_name(gate(arms, SCORE))


def only(found: Battery) -> tuple[str, float, float]:
    (arm,) = found.arms
    return arm.verdict, arm.p_causal, arm.p_specific


def test_outcomes_that_are_all_equal_show_nothing() -> None:
    assert only(gate(plain_arms([0.0]), SHARE)) == ("none", 1.0, 1.0)


def test_one_prompt_shows_nothing() -> None:
    found = gate(plain_arms([1.0], prompts=1), SHARE)
    assert only(found) == ("none", 1.0, 1.0)
    assert not found.can_pass


def test_controls_that_do_the_same_are_as_good() -> None:
    """In any order of summation."""
    rng = np.random.default_rng(0)
    unsteered, steered = 0.7 + 0.3 * rng.random(12), 0.3 * rng.random(12)
    same = np.asfortranarray(np.tile(steered, (99, 1)))
    found = gate([Arm("0", 1.0, unsteered, steered, {"copies": same}, {})], SHARE)
    assert found.verdict == "not specific"
    assert found.arms[0].measured.drawn[0].p == 1
    assert found.can_pass
    twin = gate([Arm("0", 1.0, unsteered, steered, {"weak": np.ones((99, 12))}, {"twin": steered})], SHARE)
    assert only(twin)[::2] == ("not specific", 1.0)


def test_a_change_the_wrong_way_is_no_effect() -> None:
    worse = {"isotropic": np.ones((59, 10))}
    found = gate([Arm("0", 1.0, np.zeros(10), np.full(10, 0.5), worse, {})], SHARE)
    assert only(found)[::2] == ("none", 1.0)
    assert found.arms[0].p_causal < 0.01


def test_an_arm_without_outcomes_shows_nothing() -> None:
    (good,) = plain_arms([0.8])
    empty = np.full(10, np.nan)
    found = gate([good, replace(good, block="empty", steered=empty)], SHARE)
    assert [arm.verdict for arm in found.arms] == ["specific", "none"]
    missing = found.arms[1].measured
    assert (missing.effect, missing.prompts, missing.p_causal, missing.drawn[0].p) == (None, 0, 1.0, 1.0)
    with pytest.raises(NothingMeasuredError, match="no prompt has a verdict both with and without"):
        gate([replace(good, steered=empty), replace(good, unsteered=empty)], SHARE)


def test_an_arm_without_random_controls_is_never_specific() -> None:
    skipped = gate(plain_arms([0.8], others=()), SHARE)
    assert (skipped.verdict, skipped.can_pass) == ("not specific", False)
    (arm,) = plain_arms([0.8], others=())
    assert gate([replace(arm, single={"sign flip": np.ones(10)})], SHARE).verdict == "not specific"


@pytest.mark.parametrize(
    ("effects", "after", "expected"),
    [
        ([[0.8], [0.0]], [1.0, 1.0], "specific"),
        ([[0.8], [0.5]], [0.5, 1.0], "not specific"),  # the stronger one broke the model
        ([[0.8], [0.0]], [0.5, 1.0], "broke"),
        ([[0.0], [0.0]], [0.5, 1.0], "none"),  # what broke it had no effect either
        ([[0.0], [0.0]], [0.5, 0.5], "broke"),
        ([[0.8], [0.0]], [0.95, 1.0], "specific"),  # within the limit
    ],
)
def test_a_broken_model_does_not_count(effects: list[list[float]], after: list[float], expected: str) -> None:
    others = [0.6] * 99
    arms = [plain_arms(effect, others, after=a)[0] for effect, a in zip(effects, after, strict=True)]
    found = gate([replace(arm, block=str(number)) for number, arm in enumerate(arms)], SHARE)
    assert found.verdict == found.leading.verdict == expected
    assert (found.arms[0].verdict == "broke") == (after[0] < 0.9)


def test_a_fall_of_coherence_by_chance_breaks_nothing() -> None:
    before, after = np.ones(10), np.array([0.0, 0, *[1.0] * 8])
    (arm,) = plain_arms([0.8])
    found = gate([replace(arm, coherent_before=before, coherent_after=after)], SHARE)
    fall = found.arms[0].measured.coherence_fall
    assert fall == paired_difference(before, after, SHARE)
    assert fall.mean > 0.1 > 0 > fall.low
    scores = replace(moved(arm, lambda x: 1 + 4 * x), coherent_before=before, coherent_after=after)
    assert measure_arm(scores, SCORE).coherence_fall == fall
    assert found.verdict == "specific"
    assert gate([replace(arm, coherent_before=before, coherent_after=after * np.nan)], SHARE).verdict == "specific"
    much = np.array([0.0] * 5 + [1.0] * 5)
    worse = replace(arm, coherent_before=before, coherent_after=much)
    assert gate([worse], SHARE).verdict == "broke"
    assert gate([worse], SHARE, coherence_limit=0.6).verdict == "specific"


@pytest.mark.parametrize("level", [0.05, 0.01, 0.1, 0.3])
def test_draws_needed_are_the_fewest(level: float) -> None:
    for arms in range(1, 120):
        expected = next(d for d in range(1, 20000) if arms / (1 + d) <= level + 1e-12)
        assert draws_needed(arms, level) == expected


@pytest.mark.parametrize("arms", [1, 3, 7, 12])
def test_one_draw_too_few_cannot_pass(arms: int) -> None:
    needed = draws_needed(arms)
    effects = [0.9, *[0.0] * (arms - 1)]
    enough = gate(plain_arms(effects, (0.0,) * needed, prompts=13), SHARE)
    short = gate(plain_arms(effects, (0.0,) * (needed - 1), prompts=13), SHARE)
    assert (enough.verdict, enough.can_pass) == ("specific", True)
    assert (short.verdict, short.can_pass) == ("not specific", False)
    assert f"it takes {needed} draws" in sentence(short)


def test_too_few_prompts_cannot_pass() -> None:
    found = gate(plain_arms([0.9], prompts=5), SHARE)
    assert not found.can_pass
    assert gate(plain_arms([0.9], prompts=6), SHARE).can_pass
    smallest = ArmEffect("0", 1.0, 5, None, 1.0, measure_arm(plain_arms([0.9])[0], SHARE).drawn, (), None).smallest_p
    assert smallest == 2 / 2**5


ONES = np.ones(4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gate([], SHARE), "expected at least one block and dose, got none"),
        (lambda: gate(plain_arms([0.5]), SHARE, level=1.0), "expected a level between 0 and 1, got 1"),
        (lambda: draws_needed(3, 0.0), "expected a level between 0 and 1, got 0"),
        (lambda: gate(plain_arms([0.5]), SCORE), "block 0, dose 1, steered: expected values from 1 to 5, got 0.5"),
        (lambda: gate(plain_arms([0.5], [-1.0]), SHARE), "isotropic: expected values from 0 to 1, got 2"),
        (lambda: gate(plain_arms([0.5], after=1.5), SHARE), "coherent after: expected values from 0 to 1, got 1.5"),
        (
            lambda: Arm("7", 1, ONES, ONES, {"a": np.ones((0, 4))}, {}),
            "block 7, dose 1, a: expected at least one draw, got none",
        ),
    ],
)
def test_what_cannot_be_used_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
