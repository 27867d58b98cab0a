"""Utility losses stay within their limits, measured one example at a time."""

import pytest
import torch
from guard_loops import METHODS, OTHER, SKILL, Loop, at, flat, likelihoods, model
from torch import Tensor

from tiltmeter.errors import InputError
from tiltmeter.skills import Skill
from tiltmeter.training.guards import utility_limit
from tiltmeter.training.guards.utility_limit import UtilityLimit


def losses(method: str, course: list[Tensor], skill: Skill) -> list[float]:
    module = model(method)
    with torch.no_grad():
        base = likelihoods(module, skill).mean()
        return [float(base - likelihoods(at(module, weights), skill).mean()) for weights in course]


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("method", METHODS)
def test_every_loss_is_within_the_limit_after_every_step(method: str) -> None:
    limit, rate = 0.01, {"full": 1e-2, "lora": 1e-1}[method]
    guarded = Loop(model(method), UtilityLimit([SKILL, OTHER], limit), rate).run(6).course
    plain = Loop(model(method), None, rate).run(6).course
    assert max(max(losses(method, plain, skill)) for skill in (SKILL, OTHER)) > 5 * limit
    assert max(max(losses(method, guarded, skill)) for skill in (SKILL, OTHER)) <= limit * (1 + 1e-9)
    assert (guarded[-1] - guarded[0]).norm() > 0.3 * (plain[-1] - plain[0]).norm()


@pytest.mark.usefixtures("in_float64")
def test_where_corrections_do_not_help_the_step_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utility_limit, "ROUNDS", 0)
    guarded = Loop(model("full"), UtilityLimit([SKILL], 0.01)).run(3).course
    plain = Loop(model("full")).run(1).course
    assert max(losses("full", guarded, SKILL)) <= 0.01
    ratio = (guarded[1] - guarded[0]).norm() / (plain[1] - plain[0]).norm()
    assert float(ratio.log2()) == pytest.approx(round(float(ratio.log2())), abs=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_touched_below_the_limit(method: str) -> None:
    guarded = Loop(model(method, torch.float32), UtilityLimit([SKILL], 1e9)).run(4)
    assert torch.equal(flat(guarded.module), flat(Loop(model(method, torch.float32)).run(4).module))


def test_a_limit_is_positive() -> None:
    with pytest.raises(InputError, match="positive, got -1"):
        UtilityLimit([SKILL], -1)
