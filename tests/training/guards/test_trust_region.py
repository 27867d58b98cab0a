"""Overlaps stay within their limits, measured by dense gradients."""

import pytest
import torch
from guard_loops import METHODS, OTHER, SKILL, Loop, at, flat, gradients, likelihoods, model, overlap
from torch import Tensor

from tiltmeter.errors import InputError
from tiltmeter.training.guards.trust_region import TrustRegion

# The limit is met in float64 to a billionth, where the multiplier's root finding ends; rounding adds less.
ROUNDING = 1 + 1e-9


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("method", METHODS)
def test_the_overlap_of_every_skill_is_within_the_limit_after_every_step(method: str) -> None:
    rows = {skill.name: gradients(model(method), skill) for skill in (SKILL, OTHER)}
    limit = 1e-3
    guarded = Loop(model(method), TrustRegion([SKILL, OTHER], limit)).run(6).course
    plain = Loop(model(method)).run(6).course
    for each in rows.values():
        assert overlap(each, plain[-1] - plain[0]) > 10 * limit
        assert max(overlap(each, weights - guarded[0]) for weights in guarded) <= limit * ROUNDING
    assert max(overlap(each, guarded[-1] - guarded[0]) for each in rows.values()) > 0.9 * limit


@pytest.mark.usefixtures("in_float64")
def test_the_correction_lies_in_the_span_of_the_skills_gradients() -> None:
    rows = gradients(model("full"), SKILL)
    guarded, plain = Loop(model("full"), TrustRegion([SKILL], 1e-4)).run(1), Loop(model("full")).run(1)
    correction = guarded.course[1] - plain.course[1]
    assert correction.norm() > 1e-4
    torch.testing.assert_close(rows.T @ torch.linalg.pinv(rows.T) @ correction, correction, rtol=0, atol=1e-10)


@pytest.mark.usefixtures("in_float64")
def test_the_drift_foreseen_is_within_the_limit_too() -> None:
    rows, limit, h = gradients(model("lora"), SKILL), 1e-3, 2
    course = Loop(model("lora"), TrustRegion([SKILL], limit, horizon=h)).run(9).course
    drifts = [rows @ (weights - course[0]) for weights in course]
    for t in range(2 * h + 1, 10):  # the first parabola stands on the drifts after steps 1, 1 + h, 1 + 2h
        foreseen = 3 * drifts[t] - 3 * drifts[t - h] + drifts[t - 2 * h]
        assert float(foreseen.square().mean()) <= limit * ROUNDING
    present = Loop(model("lora"), TrustRegion([SKILL], limit)).run(9).course
    drifts = [rows @ (weights - present[0]) for weights in present]
    foreseen = torch.stack([3 * drifts[t] - 3 * drifts[t - h] + drifts[t - 2 * h] for t in range(2 * h + 1, 10)])
    assert foreseen.square().mean(1).max() > 1.2 * limit


@pytest.mark.usefixtures("in_float64")
def test_with_new_gradients_the_drift_is_what_the_log_likelihoods_have_changed() -> None:
    base = likelihoods(model("full"), SKILL).detach()
    guard = TrustRegion([SKILL], 1e9, every=2)
    loop = Loop(model("full"), guard).run(3)
    torch.testing.assert_close(guard.drift(), likelihoods(loop.module, SKILL).detach() - base, rtol=0, atol=1e-10)


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("method", METHODS)
def test_with_new_gradients_the_measured_drift_is_held(method: str) -> None:
    """Where the course is curved it is held up to the curvature of one step, not exactly."""

    def measured(weights: Tensor) -> float:
        change = likelihoods(at(model(method), weights), SKILL) - likelihoods(model(method), SKILL)
        return float(change.detach().square().mean())

    guarded, plain = Loop(model(method), TrustRegion([SKILL], 1e-4, every=1)).run(5), Loop(model(method)).run(5)
    assert measured(guarded.course[-1]) < 2e-3 < 0.02 < measured(plain.course[-1])


@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_touched_below_the_limit(method: str) -> None:
    guarded = Loop(model(method, torch.float32), TrustRegion([SKILL], 1e9, every=2, horizon=1)).run(4)
    assert torch.equal(flat(guarded.module), flat(Loop(model(method, torch.float32)).run(4).module))


def test_a_limit_is_positive() -> None:
    with pytest.raises(InputError, match="positive, got 0"):
        TrustRegion([SKILL], 0)
    with pytest.raises(InputError, match="at least one skill"):
        TrustRegion([], 1)
