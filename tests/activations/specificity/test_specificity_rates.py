"""How often the gate is wrong, and right, in simulated batteries."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from made_arms import SHARE
from scipy import stats
from simulated_steering import World

from tiltmeter.activations.specificity.gate import Battery, gate

BATTERIES = 200
FEWER = 40
KINDS = ("isotropic", "anisotropic", "orthogonal", "permuted means")
EXCHANGEABLE = World(common=0.8, spread=0.1, kinds=dict.fromkeys(KINDS, 0.0), answers=8)
PLANTED = replace(EXCHANGEABLE, common=0.1, spread=0.1, planted=0.8, prompts=9)


def calls(world: World, batteries: int, twin: bool = False) -> list[Battery]:
    return [gate(world.arms(np.random.default_rng(seed), twin), SHARE) for seed in range(batteries)]


def count(found: Sequence[Battery], *verdicts: str) -> int:
    return sum(battery.verdict in verdicts for battery in found)


def most(batteries: int) -> float:
    """More come up in one of a thousand such simulations at a rate of 5 %."""
    return float(stats.binom(batteries, 0.05).ppf(0.999))


def test_a_direction_like_the_controls_is_specific_in_at_most_5_percent_of_batteries() -> None:
    """Every vector has a real effect, at three doses."""
    found = calls(EXCHANGEABLE, BATTERIES)
    assert count(found, "specific") <= 0.05 * BATTERIES
    assert count(found, "not specific") > 0.8 * BATTERIES


def test_a_direction_like_one_kind_of_control_alone_is_specific_as_rarely() -> None:
    """The hardest case: independent blocks, few ties, and all other kinds do nothing."""
    kinds = {**dict.fromkeys(KINDS, -0.5), "anisotropic": 0.0}
    world = replace(EXCHANGEABLE, common=0.5, kinds=kinds, answers=32, blocks=3, doses=(1.0,))
    found = calls(world, BATTERIES // 2)
    assert 0 < count(found, "specific") <= most(BATTERIES // 2)
    others = [max(c.p for c in arm.measured.drawn if c.kind != "anisotropic") for b in found for arm in b.arms]
    assert np.mean(np.array(others) < 0.02) > 0.8  # without the one kind, most would be specific


def test_a_given_vector_that_does_the_same_is_found_out() -> None:
    world = replace(EXCHANGEABLE, common=0.6, kinds=dict.fromkeys(KINDS[:1], -0.6))
    assert count(calls(world, FEWER), "specific") > 0.8 * FEWER
    assert count(calls(world, FEWER, twin=True), "specific") <= most(FEWER)


def test_no_effect_at_all_is_called_one_in_at_most_5_percent_of_batteries() -> None:
    found = calls(World(kinds=dict.fromkeys(KINDS, 0.0)), FEWER)
    assert count(found, "none") >= 0.95 * FEWER


def test_a_planted_direction_passes_and_a_random_one_fails_in_20_of_20_seeds() -> None:
    assert count(calls(PLANTED, 20), "specific") == 20
    assert count(calls(replace(PLANTED, common=0.9, planted=0.0), 20), "not specific") == 20
    assert count(calls(replace(PLANTED, planted=0.0), 20), "specific") == 0
