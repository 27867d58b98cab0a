import itertools
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

import tiltmeter as tm
import tiny
from tiltmeter.curvature.fisher import Fisher
from tiltmeter.curvature.joint import joint_gram
from tiltmeter.curvature.rotation import rotation
from tiltmeter.curvature.sites import sites
from tiltmeter.errors import InputError
from tiltmeter.models import load_model, load_tuned
from tiltmeter.skills import Skill
from tiltmeter.training.gauge import Gauging
from tiltmeter.training.monitor import Monitor
from tiltmeter.training.reading import Reading
from tiny_training import assert_is_audit, same, save_base, trainer, weights

METHODS = ["full", "lora"]
SKILL = tiny.skill()
DIMS = Gauging(dims=3)
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulation": {"gradient_accumulation_steps": 2},
    "bf16": {"bf16": True},
    "checkpointing": {
        "gradient_checkpointing": True,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
    },
}


class Heard(TrainerCallback):
    """What a tracker is told."""

    def __init__(self) -> None:
        self.logs: list[tuple[int, dict[str, Any]]] = []

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any
    ) -> None:
        self.logs.append((state.global_step, dict(logs)))


class Weights(TrainerCallback):
    """The weights after each step, before a monitor that comes later acts."""

    def __init__(self) -> None:
        self.at: dict[int, dict[str, Tensor]] = {}

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        self.at[state.global_step] = weights(model)


def _monitored(folder: Path, method: str, monitor: Monitor, **settings: Any) -> Trainer:
    made = trainer(folder, method, [monitor], **settings)
    made.train()
    return made


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("method", METHODS)
def test_readings_are_an_audit_of_the_checkpoint(method: str, settings: str, tmp_path: Path) -> None:
    monitor = Monitor(SKILL, every=3, how=DIMS)
    _monitored(tmp_path / "run", method, monitor, save_strategy="steps", save_steps=3, **SETTINGS[settings])
    base = save_base(tmp_path / "base")
    for reading in monitor.readings:
        assert_is_audit(reading, base, tmp_path / "run" / f"checkpoint-{reading.step}", DIMS)
    assert [reading.step for reading in monitor.readings] == [3, 6]


@pytest.mark.parametrize("method", METHODS)
def test_rotation_is_that_of_the_two_checkpoints(method: str, tmp_path: Path) -> None:
    monitor = Monitor(SKILL, every=6, how=DIMS)
    _monitored(tmp_path / "run", method, monitor, save_strategy="steps", save_steps=6)
    base = load_model(save_base(tmp_path / "base"))
    fisher = Fisher(base, SKILL)
    tuned = load_tuned(tmp_path / "base", tmp_path / "run" / "checkpoint-6")
    expected = rotation(joint_gram(fisher, fisher.at(_merged(tuned))).at(sites(fisher)[:1]), 0, 3)
    assert expected is not None
    reading = monitor.readings[-1]
    assert reading.rotation == pytest.approx(expected.sine, rel=1e-4)
    assert reading.subspace_overlap == pytest.approx(expected.overlap, rel=1e-4)
    assert 0.01 < expected.sine < 1


def _merged(model: Any) -> Any:
    """Adapters in a model become part of its weights."""
    from peft.tuners.lora import LoraLayer

    for name, layer in [*model.module.named_modules()]:
        if isinstance(layer, LoraLayer):
            layer.merge()
            parent, _, child = name.rpartition(".")
            setattr(model.module.get_submodule(parent), child, layer.get_base_layer())
    return tm.models.assemble(model.module, model.tokenizer)


@pytest.mark.parametrize(
    ("method", "settings"), [*itertools.product(METHODS, SETTINGS), ("pissa", "plain"), ("pissa", "bf16")]
)
def test_training_is_the_same_with_and_without_a_monitor(method: str, settings: str, tmp_path: Path) -> None:
    monitor = Monitor(SKILL, every=1, on_limit="rollback", how=Gauging(labels="sampled"))
    watched = _monitored(tmp_path, method, monitor, **SETTINGS[settings])
    alone = trainer(tmp_path, method, [], **SETTINGS[settings])
    alone.train()
    assert same(weights(watched.model), weights(alone.model))
    assert len(monitor.readings) == 6
    assert monitor.readings[-1].norm > 0


@pytest.mark.parametrize("method", METHODS)
def test_readings_after_a_resume_are_those_of_one_run(method: str, tmp_path: Path) -> None:
    whole, first, second = (Monitor(SKILL, every=2) for _ in range(3))
    saving = {"save_strategy": "steps", "save_steps": 3}
    uninterrupted = _monitored(tmp_path / "whole", method, whole, **saving)
    made = trainer(tmp_path / "parts", method, [first, _StopAt(3)], **saving)
    made.train()
    assert [reading.step for reading in first.readings] == [2, 3]  # the last one because training ended
    resumed = trainer(tmp_path / "parts", method, [second], **saving)
    resumed.train(resume_from_checkpoint=True)
    assert second.readings == whole.readings
    assert [reading.step for reading in second.readings] == [2, 4, 6]
    assert same(weights(uninterrupted.model), weights(resumed.model))


class _StopAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self._step = step

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        control.should_training_stop |= state.global_step == self._step
        return control


def test_a_resume_never_takes_the_checkpoint_for_thesave_base(tmp_path: Path) -> None:
    saving: dict[str, Any] = {"save_strategy": "steps", "save_steps": 3}
    base = save_base(tmp_path / "base")
    trainer(tmp_path, "full", [Monitor(SKILL, every=2), _StopAt(3)], **saving).train()
    late = trainer(tmp_path, "full", [], **saving)
    late.add_callback(Monitor(SKILL, every=2))
    with pytest.raises(InputError, match="its weights are no base"):
        late.train(resume_from_checkpoint=True)
    other = trainer(tmp_path, "full", [], **saving)
    with torch.no_grad():
        next(other.callback_handler.model.parameters()).add_(1)
    other.add_callback(monitor := Monitor(SKILL, every=2))
    monitor.on_init_end(other.args, other.state, other.control, other.model, other.processing_class)
    with pytest.raises(InputError, match="not the one that this training began with"):
        other.train(resume_from_checkpoint=True)
    late = trainer(tmp_path, "full", [], **saving)
    late.add_callback(monitor := Monitor(SKILL, every=2, base=base))
    late.train(resume_from_checkpoint=True)
    whole = Monitor(SKILL, every=2)
    _monitored(tmp_path / "whole", "full", whole)
    assert monitor.readings == whole.readings


@pytest.mark.parametrize("method", METHODS)
def test_rollback_gives_back_the_last_good_weights(method: str, tmp_path: Path) -> None:
    free = Monitor(SKILL, every=2)
    _monitored(tmp_path, method, free)
    second, third = (free.readings[place].overlap for place in (0, 1))
    seen, held = Weights(), Monitor(SKILL, every=2, limits={"overlap": (second + third) / 2}, on_limit="rollback")
    saving: dict[str, Any] = {"save_strategy": "steps", "save_steps": 1}
    made = trainer(tmp_path / "held", method, [seen, held], **saving)
    made.train()
    assert second < third
    assert max(seen.at) == 4
    assert same(weights(made.model), seen.at[2])
    assert not same(seen.at[2], seen.at[4])
    assert held.kept_step == 2
    assert [(alarm.step, alarm.figure, alarm.skill) for alarm in held.alarms] == [(4, "overlap", "test")]
    assert not (tmp_path / "held" / "checkpoint-4").exists()  # weights and optimizer would not belong together


def test_without_any_good_reading_rollback_is_to_the_start(tmp_path: Path) -> None:
    monitor = Monitor(SKILL, every=1, limits={"test/overlap": 0.0}, on_limit="rollback")
    made = trainer(tmp_path, "full", [monitor])
    start = weights(made.model)
    made.train()
    assert same(weights(made.model), start)
    assert (monitor.kept_step, made.state.global_step) == (0, 1)


def test_a_limit_warns_once_or_stops(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    warned = Monitor(SKILL, every=1, limits={"overlap": 0.0})
    with caplog.at_level(logging.WARNING, "tiltmeter"):
        made = _monitored(tmp_path, "lora", warned)
    assert made.state.global_step == 6
    assert [alarm.step for alarm in warned.alarms] == [1]
    assert [record.getMessage() for record in caplog.records] == [f"monitor: {warned.alarms[0]}"]
    stopped = Monitor(SKILL, every=2, limits={"overlap": 0.0}, on_limit="stop")
    seen = Weights()
    made = trainer(tmp_path, "lora", [seen, stopped])
    made.train()
    assert made.state.global_step == 2
    assert same(weights(made.model), seen.at[2])


def test_weights_that_are_no_numbers_exceed_every_limit() -> None:
    from tiltmeter.intervals import Interval
    from tiltmeter.training.reading import Limit

    nothing = Interval(float("nan"), float("nan"), float("nan"))
    values = dict.fromkeys(("time", "norm", "overlap", "normalised_overlap", "drift", "foreseen_loss"), float("nan"))
    reading = Reading(
        **values,
        skill="test",
        step=1,
        coordinates=(float("nan"),),
        losses=(float("nan"),),
        utility_loss=nothing,
        utility_loss_per_token=nothing,
        exponent=None,
        rotation=None,
        subspace_overlap=None,
    )
    assert Limit("utility_loss", None, 1e9).is_exceeded(reading)
    assert not Limit("utility_loss", "other", 1.0).is_exceeded(reading)
    assert not Limit("rotation", None, 0.0).is_exceeded(reading)


def test_trackers_are_told_wherever_they_stand(tmp_path: Path) -> None:
    monitor, before, after = Monitor(SKILL, every=3), Heard(), Heard()
    settings: dict[str, Any] = {"logging_strategy": "steps", "logging_steps": 3}
    made = trainer(tmp_path, "lora", [before, monitor, after], **settings)
    made.train()
    name = "tiltmeter/test/overlap"
    overlaps = [(reading.step, reading.overlap) for reading in monitor.readings]
    for heard in (before, after):
        assert [(step, logs[name]) for step, logs in heard.logs if name in logs] == overlaps
        assert [step for step, logs in heard.logs if "loss" in logs] == [3, 6]  # the Trainer's own come as before
    assert [(entry["step"], entry[name]) for entry in made.state.log_history if name in entry] == overlaps
    assert all(isinstance(value, float | int) for _, logs in before.logs for value in logs.values())


def test_rows_are_a_table(tmp_path: Path) -> None:
    other = Skill("other", SKILL.examples[:3])
    monitor = Monitor(SKILL, other, every=2)
    _monitored(tmp_path, "lora", monitor)
    rows = monitor.rows()
    assert [(row["step"], row["skill"]) for row in rows] == [(s, n) for s in (2, 4, 6) for n in ("test", "other")]
    assert len({tuple(row) for row in rows}) == 1
    assert [row["rotation"] is None for row in rows] == [True] * 4 + [False] * 2
    assert rows[-1]["utility_loss_low"] <= rows[-1]["utility_loss"] <= rows[-1]["utility_loss_high"]
    # linear schedule: 6 steps from 5e-3
    assert [row["time"] for row in rows[::2]] == pytest.approx([5e-3 * s for s in (11 / 6, 18 / 6, 21 / 6)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"limits": {"harm": 1.0}}, "limit 'harm': expected one of first_order"),
        ({"limits": {"refusal/overlap": 1.0}}, "with a skill of test"),
        ({"every": 0}, "at least one step"),
        ({"on_limit": "explode"}, "expected one of warn, stop, rollback"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Monitor(SKILL, **arguments)


def test_skills_are_needed_and_have_names_of_their_own(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="skills of different names"):
        Monitor()
    with pytest.raises(InputError, match="skills of different names"):
        Monitor(SKILL, SKILL)


def test_a_tokenizer_is_needed(tmp_path: Path) -> None:
    made = trainer(tmp_path, "full", [])
    with pytest.raises(InputError, match="needs the model's fast tokenizer"):
        Monitor(SKILL).on_init_end(made.args, made.state, made.control, made.model)


def test_the_public_name_is_the_monitor() -> None:
    assert tm.Monitor is Monitor
