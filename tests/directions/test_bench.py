"""Controls as far from the model as the direction, and what else steering does."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import planted
import tiny
from tiltmeter.activations.direction import Direction
from tiltmeter.activations.neutral import WIDEST, steering_kl
from tiltmeter.activations.steering import shift
from tiltmeter.behaviour.tasks import Task
from tiltmeter.directions.arms import Arm
from tiltmeter.directions.bench import Bench
from tiltmeter.directions.found import Found
from tiltmeter.directions.steer_request import Change, Gate
from tiltmeter.tokens import encode

TASKS = [Task(prompt, planted.GOOD) for prompt in planted.PROMPTS[:3]]


@pytest.fixture(scope="module")
def bench() -> Bench:
    """A random model, with a direction and another beside it."""
    model = tiny.model("llama")
    some = [torch.randn(16, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
    direction, beside = (Direction(dict(zip(model.blocks, pair, strict=True))) for pair in (some[:2], some[2:]))
    request = replace(planted.request(where="all"), gate=Gate(match="kl"))
    return Bench(request, model, Found(direction), {"other": beside}, encode(tiny.skill(), model.tokenizer), ())


def with_change(bench: Bench, change: Change) -> Bench:
    steering = replace(bench.request.steering, change=change)
    return replace(bench, request=replace(bench.request, steering=steering))


@pytest.mark.parametrize(("change", "numbers"), [("subtract", (0,)), ("add", (0, 1)), ("ablate", (1,))])
def test_controls_have_the_kl_of_the_direction(bench: Bench, change: Change, numbers: tuple[int, ...]) -> None:
    made, names = with_change(bench, change), list(bench.model.blocks)
    arm = Arm(numbers, tuple(names[number] for number in numbers), 0.5)
    target = made.kl(made.edits(arm))
    controls = made.controls(arm, 2)
    assert [(each.kind, each.draw) for each in controls] == [
        ("isotropic", 1), ("isotropic", 2), ("orthogonal", 1), ("orthogonal", 2), ("sign flip", None),
        ("another block", None), ("other", None),
    ]  # fmt: skip
    for control in controls:
        assert made.kl(control.edits) == pytest.approx(target, rel=0.01)
    assert len({control.scale for control in controls}) == len(controls)
    by_norm = replace(made, request=replace(made.request, gate=Gate()))
    assert {control.scale for control in by_norm.controls(arm, 2)} == {1.0}


def test_kl_is_from_the_model_to_the_steered_one(bench: Bench) -> None:
    block = list(bench.model.blocks)[1]
    arm, v = Arm((1,), (block,), 0.5), bench.found.direction[block]
    expected = steering_kl(bench.model, bench.neutral, {block: shift(v, -0.5)}, "all")
    assert bench.kl(bench.edits(arm)) == pytest.approx(expected, rel=1e-6)
    assert expected > 0.01


def test_a_control_that_cannot_come_as_far_ends_at_the_widest_scale(bench: Bench) -> None:
    """It would have to move along what nothing reads."""
    model: Any = tiny.model("llama")
    with torch.no_grad():
        model.module.lm_head.weight[:, 8:] = 0
    block = list(model.blocks)[1]
    read, unread = (torch.eye(16)[axis] for axis in (0, 12))
    request = replace(bench.request, steering=replace(bench.request.steering, doses=(1.0,)))
    made = Bench(
        request, model, Found(Direction({block: 50 * read})), {"unread": Direction({block: unread})}, bench.neutral, ()
    )
    controls = {control.kind: control for control in made.controls(Arm((1,), (block,), 1.0), 1)}
    assert controls["unread"].scale in (WIDEST, 1 / WIDEST)


def test_accuracy_is_of_the_steered_model(tmp_path: Path) -> None:
    made = replace(planted.bench(tmp_path / "found"), tasks=TASKS)
    block = list(made.model.blocks)[-1]
    assert made.accuracy({}).mean == 0
    assert made.accuracy(made.edits(Arm((1,), (block,), 1.0))).mean == 1
    assert made.accuracy(made.edits(Arm((1,), (block,), 0.1))).mean == 0
