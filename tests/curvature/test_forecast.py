"""A forecast's course, drift, alarm and trust, against the run itself and against closed forms."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from peft import LoraConfig
from torch import Tensor

import tiny
from tiltmeter.curvature.fisher import Fisher
from tiltmeter.curvature.flow import Flow, krylov
from tiltmeter.curvature.forecast import Course, drift, krylov_course, rolled_course, taylor
from tiltmeter.curvature.instability import Subspace
from tiltmeter.curvature.planned import Plan, group_gradients, planned_flow, roll_out
from tiltmeter.curvature.training_loss import TrainingLoss
from tiltmeter.curvature.training_space import WeightSpace, adapter_space, weight_space
from tiltmeter.likelihood import log_likelihoods
from tiltmeter.tokens import encode
from truth import float64_throughout


@pytest.fixture
def space() -> Iterator[WeightSpace]:
    with float64_throughout(), weight_space(tiny.model("llama", torch.float64)) as found:
        yield found


@pytest.fixture
def loss(space: WeightSpace) -> TrainingLoss:
    return TrainingLoss(space, encode(tiny.skill(), space.model.tokenizer)[:3], 2)


@pytest.fixture
def skill(space: WeightSpace) -> Fisher:
    return Fisher(space.model, tiny.skill(), batch_size=2)


def integrated(loss: TrainingLoss, time: float, steps: int = 20) -> Tensor:
    """The displacement of gradient flow, by the midpoint rule."""
    change = torch.zeros(len(loss.space), dtype=torch.float64)
    h = time / steps
    for _ in range(steps):
        with loss.space.moved(change):
            half = change - h / 2 * loss.gradient()
        with loss.space.moved(half):
            change = change - h * loss.gradient()
    return change


def test_for_short_times_the_course_is_gradient_flows_own(loss: TrainingLoss, skill: Fisher) -> None:
    model, time = krylov(planned_flow(loss, Plan("sgd")), 4), 1e-3
    flow = integrated(loss, time)
    assert (model.change(model.coefficients(time)) - flow).norm() < 5e-4 * flow.norm()
    course = krylov_course(model, loss, [time], {"skill": skill.encoded})
    before = log_likelihoods(loss.space.model, skill.encoded)
    with loss.space.moved(flow):
        expected = before - log_likelihoods(loss.space.model, skill.encoded)
    assert (course.losses["skill"][0] - expected).norm() < 5e-3 * expected.norm()
    assert course.trusted_until == time


def test_drift_and_overlap_are_those_of_the_displacement(loss: TrainingLoss, skill: Fisher) -> None:
    model, times = krylov(planned_flow(loss, Plan("sgd")), 3), [0.01, 0.1]
    rows = skill.coordinates([loss.space.tangent(row) for row in model.rows()]).sum(1)
    found = drift(model, rows, times, Subspace(skill.gram().sum(0), 2))
    for index, time in enumerate(times):
        update = loss.space.displacement(model.change(model.coefficients(time)))
        c = skill.coordinates([update])[0].sum(0)
        assert torch.allclose(found.coordinates[index], c, rtol=1e-8, atol=1e-12)
        assert found.overlap[index] == pytest.approx(float(c.square().mean()))
        assert found.quadratic[index] == pytest.approx(float(c.square().mean() / 2 - c.mean()))


def test_taylors_form_is_the_limit_of_krylovs_for_short_times(loss: TrainingLoss, skill: Fisher) -> None:
    model = krylov(planned_flow(loss, Plan("sgd")), 3)
    rows = skill.coordinates([loss.space.tangent(row) for row in model.rows()]).sum(1)
    acceleration = torch.tensor(model.acceleration) @ rows
    for time, tolerance in ((1e-4, 1e-4), (1e-3, 1e-2)):
        short = taylor(model.size * rows[0], acceleration, [time])
        assert (short - drift(model, rows, [time], Subspace(skill.gram().sum(0), 2)).coordinates).norm() < (
            tolerance * short.norm()
        )


def test_a_roll_out_is_plain_gradient_descent_and_is_taken_back(loss: TrainingLoss) -> None:
    start = loss.space.join(loss.space.parameters)
    plan = Plan("sgd", learning_rate=0.01, steps=3, batch_size=3, max_grad_norm=0)
    expected = start.clone()
    for _ in range(3):
        with loss.space.moved(expected - start):
            expected = expected - 0.01 * loss.gradient()
    seen = roll_out(loss, plan, [3], lambda: loss.space.join(loss.space.parameters))
    assert torch.allclose(seen[0], expected, rtol=1e-10, atol=1e-12)
    assert torch.equal(loss.space.join(loss.space.parameters), start)


def test_a_first_adamw_step_is_the_flows_own(loss: TrainingLoss) -> None:
    plan = Plan("adamw", learning_rate=1e-5, steps=1, batch_size=3, epsilon=1e-3)
    flow = planned_flow(loss, plan)
    start = loss.space.join(loss.space.parameters)
    (after,) = roll_out(loss, plan, [1], lambda: loss.space.join(loss.space.parameters))
    assert torch.allclose(after - start, -1e-5 * flow.scaled(flow.scaled(flow.gradient)), rtol=1e-6, atol=1e-14)


def test_an_adapters_flow_follows_its_adamw_run() -> None:
    """A stands still at the first step; the flow's own scale for it has to come from what its gradient becomes."""
    model = tiny.model("llama", torch.float64)
    with float64_throughout(), adapter_space(model, LoraConfig(r=2, target_modules=["q_proj", "up_proj"])) as space:
        loss = TrainingLoss(space, encode(tiny.skill(), model.tokenizer))
        plan = Plan("adamw", learning_rate=1e-3, steps=10, batch_size=5, epsilon=1e-2)
        found = krylov(planned_flow(loss, plan), 4)
        start = space.join(space.parameters)
        (after,) = roll_out(loss, plan, [10], lambda: space.join(space.parameters))
        ours, theirs = space.split(found.change(found.coefficients(plan.time))), space.split(after - start)
        for factor, least in (("B", 0.99), ("A", 0.9)):
            a, b = (torch.cat([x.flatten() for n, x in each.items() if n.endswith(factor)]) for each in (ours, theirs))
            assert float(a @ b / (a.norm() * b.norm())) > least
            assert 0.5 < float(a.norm() / b.norm()) < 2


def test_groups_make_up_the_whole_gradient(loss: TrainingLoss) -> None:
    parts = group_gradients(loss, 2)
    assert sum(share for share, _ in parts) == pytest.approx(1)
    whole = torch.stack([share * gradient for share, gradient in parts]).sum(0)
    assert torch.allclose(whole, loss.gradient(), rtol=1e-9, atol=1e-12)


def test_a_bounded_flow_does_not_run_away_along_negative_curvature() -> None:
    H = torch.diag(torch.tensor([-3.0, 1.0], dtype=torch.float64))
    g = torch.ones(2, dtype=torch.float64)
    free, bounded = (krylov(Flow(g, lambda v: H @ v, is_bounded=bound), 2) for bound in (False, True))
    time = 4.0
    assert free.change(free.coefficients(time))[0].item() == pytest.approx(-(np.exp(12) - 1) / 3)
    assert bounded.change(bounded.coefficients(time)).tolist() == pytest.approx([-time, -(1 - np.exp(-time))])


def course(**changes: object) -> Course:
    fields: dict[str, object] = {
        "method": "krylov",
        "times": [1.0, 2.0, 4.0],
        "losses": {"skill": torch.tensor([[0.1, 0.3], [0.4, 0.8], [2.0, 3.0]], dtype=torch.float64)},
        "data_losses": [0.9, 0.8, 0.6],
        "expected": [0.9, 0.79, 0.2],
        "disagreement": [0.0, 0.01, 0.02],
        "start": 1.0,
    }
    return Course(**{**fields, **changes})  # type: ignore[arg-type]


def test_trust_ends_where_the_quadratic_model_misses_the_loss() -> None:
    assert course().trusted_until == 2
    assert course(expected=[0.5, 0.8, 0.6]).trusted_until == 0


def test_trust_ends_where_products_disagree_or_the_forecast_is_held() -> None:
    assert course(disagreement=[0.0, 0.3, 0.0]).trusted_until == 1
    assert course(held_from=2.0).trusted_until == 1
    assert course(method="roll-out", expected=None, disagreement=None).trusted_until == 4


def test_trust_in_a_skill_ends_where_its_own_quadratic_model_misses_its_loss() -> None:
    found = course(expected=[0.9, 0.79, 0.61])
    assert found.trusted_until == 4
    assert found.trusted_for([0.2, 0.6, 2.5], [0.2, 0.6, 2.5]) == 4
    assert found.trusted_for([0.2, 0.6, 2.5], [0.17, 0.45, 2.5]) == 1
    assert found.trusted_for([0.2, 0.6, 2.5], [0.2, 0.6, float("nan")]) == 2
    assert found.trusted_for([0.001, 0.002, -0.003], [0.0, 0.004, 0.006]) == 4  # a miss below 0.01 nats is none
    assert course().trusted_for([0.2, 0.6, 2.5], [0.2, 0.6, 2.5]) == 2  # no further than the flow itself


def test_an_alarm_is_where_the_mean_crosses_the_limit_with_an_interval() -> None:
    found = course().alarm("skill", 0.4)
    assert found is not None
    assert found.mean == pytest.approx(1.5)  # 0.2 at 1, 0.6 at 2
    assert found.low < found.mean < found.high
    assert course().alarm("skill", 3.0) is None
    halved = course().alarm("skill", 0.4, torch.tensor([0.5, 0.5], dtype=torch.float64))
    assert halved is not None
    assert halved.mean == pytest.approx(2 + 2 * (0.4 - 0.3) / (1.25 - 0.3))


def test_a_forecast_that_would_rise_is_held(loss: TrainingLoss, skill: Fisher) -> None:
    model = krylov(planned_flow(loss, Plan("sgd")), 1)
    times = [1e-3, 50.0, 100.0, 1e4]
    found = krylov_course(model, loss, times, {"skill": skill.encoded})
    assert found.held_from in times[1:]
    first = times.index(found.held_from)
    for index in range(first, len(times)):
        assert torch.equal(found.losses["skill"][index], found.losses["skill"][first - 1])
        assert found.data_losses[index] == found.data_losses[first - 1]
    assert found.trusted_until <= 1e-3


def test_a_rolled_course_reads_as_times(loss: TrainingLoss, skill: Fisher) -> None:
    plan = Plan("sgd", learning_rate=0.01, steps=4, batch_size=3)
    found = rolled_course(loss, plan, [2, 4], {"skill": skill.encoded})
    assert found.times == pytest.approx([0.02, 0.04])
    assert found.losses["skill"].shape == (2, 5)
    assert found.data_losses[1] < found.data_losses[0] < found.start
