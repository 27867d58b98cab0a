"""The applied update's part in a skill's subspace is zero, and the rest is what the optimizer did."""

import pytest
import torch
from guard_loops import METHODS, OTHER, SKILL, Loop, at, gradients, model, trained
from torch import Tensor

from tiltmeter.skills import Skill
from tiltmeter.training.guards.projection import Projection
from tiltmeter.training.guards.subspace import outside, top_directions

pytestmark = pytest.mark.usefixtures("in_float64")


def projectors(rows: list[Tensor], sizes: list[int], dims: int) -> list[Tensor]:
    """Dense, from the eigenvectors of `F = G^T G / N`, matrix by matrix; of several skills the span of all."""
    found = []
    for parts in zip(*(each.split(sizes, dim=1) for each in rows), strict=True):
        tops = []
        for part in parts:
            values, vectors = torch.linalg.eigh(part.T @ part / len(part))
            kept = values[-dims:] > 1e-12 * values[-1].clamp(min=1e-30)
            tops.append(vectors[:, -dims:][:, kept])
        together = torch.cat(tops, 1)
        found.append(together @ torch.linalg.pinv(together))
    return found


def inside(step: Tensor, P: list[Tensor]) -> Tensor:
    parts = step.split([len(each) for each in P])
    return torch.cat([each @ part for each, part in zip(P, parts, strict=True)])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("skills", [[SKILL], [SKILL, OTHER]], ids=["one skill", "two skills"])
def test_a_step_is_the_unguarded_one_without_its_part_in_the_subspace(method: str, skills: list[Skill]) -> None:
    module = model(method)
    sizes = [parameter.numel() for parameter in trained(module)]
    P = projectors([gradients(module, skill) for skill in skills], sizes, dims=1)
    guarded = Loop(module, Projection(skills, dims=1)).run(1)
    plain = Loop(model(method)).run(1)
    step, expected = (loop.course[1] - loop.course[0] for loop in (guarded, plain))
    assert inside(step, P).abs().max() < 1e-10 < 1e-4 < inside(expected, P).norm()
    torch.testing.assert_close(step, expected - inside(expected, P), rtol=0, atol=1e-10)


def test_it_stays_outside_over_many_steps_of_adamw() -> None:
    module = model("full")
    P = projectors([gradients(module, SKILL)], [parameter.numel() for parameter in trained(module)], dims=2)
    loop = Loop(module, Projection([SKILL], dims=2)).run(5)
    assert inside(loop.course[-1] - loop.course[0], P).abs().max() < 1e-10


def test_a_projected_gradient_would_not_do() -> None:
    """AdamW scales coordinate by coordinate: its step has a part in the subspace that its gradients had none in."""
    module = model("full")
    P = projectors([gradients(module, SKILL)], [parameter.numel() for parameter in trained(module)], dims=2)
    loop = Loop(module)
    loop.optimizer.register_step_pre_hook(lambda *_: project_gradients(loop, P))
    loop.run(1)
    step = loop.course[1] - loop.course[0]
    assert inside(step, P).norm() > 0.05 * step.norm()


def project_gradients(loop: Loop, P: list[Tensor]) -> None:
    for parameter, each in zip(trained(loop.module), P, strict=True):
        assert parameter.grad is not None
        parameter.grad -= (each @ parameter.grad.flatten()).view_as(parameter)


def test_the_tracked_subspace_is_the_present_one() -> None:
    loop = Loop(model("lora"), Projection([SKILL], dims=1, every=2)).run(4)
    sizes = [parameter.numel() for parameter in trained(loop.module)]
    for step in range(4):
        taken = at(model("lora"), loop.course[step - step % 2])
        P = projectors([gradients(taken, SKILL)], sizes, dims=1)
        assert inside(loop.course[step + 1] - loop.course[step], P).abs().max() < 1e-10
    first = projectors([gradients(model("lora"), SKILL)], sizes, dims=1)
    assert inside(loop.course[4] - loop.course[3], first).norm() > 1e-6


def test_the_projector_is_one() -> None:
    rows = torch.randn(6, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for dims, trace in ((3, 3), (6, 6), (9, 6)):
        V = top_directions(rows, dims)
        P = V @ V.T
        torch.testing.assert_close(P @ P, P)
        torch.testing.assert_close(P, P.T)
        assert float(P.trace()) == pytest.approx(trace)
    _, vectors = torch.linalg.eigh(rows.T @ rows)
    top = vectors[:, -3:]
    torch.testing.assert_close(top_directions(rows, 3) @ top_directions(rows, 3).T, top @ top.T)
    step = torch.randn(40, dtype=torch.float64)
    torch.testing.assert_close(outside(step, [top_directions(rows, 3)]), step - top @ top.T @ step)


def test_gradients_that_are_zero_have_no_directions() -> None:
    assert top_directions(torch.zeros(4, 7), 3).shape == (7, 0)
    step = torch.ones(7)
    assert torch.equal(outside(step, [top_directions(torch.zeros(4, 7), 3)]), step)
