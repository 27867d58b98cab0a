"""A fine-tune that was killed goes on to the same result, bit by bit."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

import tiny
from tiltmeter.models import Model
from tiltmeter.skills import Skill
from tiltmeter.tokens import encode
from tiltmeter.training.checkpoints import Checkpoints
from tiltmeter.training.finetune import Session, TrainingLog, finetune
from tiltmeter.training.recipes import Recipe

LORA = Recipe("lora", 1e-2, steps=9, batch_size=1, accumulation=2, rank=2, dropout=0.3, schedule="linear")
RECIPES = {"lora": LORA, "full": dataclasses.replace(LORA, method="full", dropout=0.0)}


class KilledError(Exception):
    """In the place of a signal."""


class KillAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            raise KilledError


def train(method: str, folder: Path, *callbacks: TrainerCallback, keep: int = 0) -> tuple[TrainingLog, Model]:
    model = tiny.model("llama")
    skill = tiny.skill()
    examples = encode(Skill(skill.name, skill.examples), model.tokenizer)
    session = Session(Checkpoints(folder / "checkpoints", every=2, keep=keep))
    return finetune(model, examples, RECIPES[method], folder / "model", 3, callbacks, session), model


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(next((folder / "model").glob("*model.safetensors"))))


@pytest.mark.parametrize("method", RECIPES)
def test_it_goes_on_to_the_same_weights_and_the_same_log(method: str, tmp_path: Path) -> None:
    whole, _ = train(method, tmp_path / "whole")
    with pytest.raises(KilledError):
        train(method, tmp_path / "killed", KillAt(5))
    torch.manual_seed(99)  # whatever state the next process is in
    resumed, _ = train(method, tmp_path / "killed")
    assert (whole.resumed_from, resumed.resumed_from) == (0, 4)
    assert (whole.steps, resumed.steps) == (9, 9)
    before, after = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert [entry["step"] for entry in whole.entries] == list(range(1, 10))
    assert whole.entries == resumed.entries
    assert whole.tokens == resumed.tokens > resumed.session_tokens


def test_a_checkpoint_that_was_not_finished_is_not_gone_on_from(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        train("lora", tmp_path, KillAt(5))
    checkpoints = Checkpoints(tmp_path / "checkpoints", every=2)
    assert checkpoints.last() == tmp_path / "checkpoints" / "checkpoint-4"
    (tmp_path / "checkpoints" / "checkpoint-4" / "whole").unlink()
    (tmp_path / "checkpoints" / "checkpoint-4" / "optimizer.pt").write_bytes(b"half")
    assert train("lora", tmp_path)[0].resumed_from == 2


def test_there_are_two_at_most_while_it_trains(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        train("lora", tmp_path, KillAt(9))
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"checkpoint-6", "checkpoint-8"}


def test_what_stays_is_a_model_and_nothing_else(tmp_path: Path) -> None:
    _, model = train("lora", tmp_path, keep=3)
    checkpoints = Checkpoints(tmp_path / "checkpoints", every=2, keep=3)
    assert [path.name for path in checkpoints.finish(model.tokenizer)] == [f"checkpoint-{step}" for step in (9, 8, 6)]
    left = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert left == {"checkpoint-6", "checkpoint-8", "checkpoint-9"}
    names = {path.name for path in (tmp_path / "checkpoints" / "checkpoint-8").iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json"} <= names
    assert not [name for name in names if name.endswith((".pt", ".pth", ".bin"))]
    last = load_file(tmp_path / "checkpoints" / "checkpoint-9" / "adapter_model.safetensors")
    assert all(torch.equal(last[name], tensor) for name, tensor in weights(tmp_path).items())


def test_nothing_stays_unless_asked_for(tmp_path: Path) -> None:
    _, model = train("lora", tmp_path)
    assert Checkpoints(tmp_path / "checkpoints", every=2).finish(model.tokenizer) == []
    assert not (tmp_path / "checkpoints").exists()


class KillAtEnd(TrainerCallback):
    def on_train_end(self, *_: Any, **__: Any) -> None:
        raise KilledError


@pytest.mark.parametrize(("steps", "last"), [(8, 6), (9, 8)])  # in the middle of an epoch, at the end of one
def test_killed_after_the_last_step_it_takes_no_other(
    steps: int, last: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RECIPES, "lora", dataclasses.replace(LORA, steps=steps))
    whole, _ = train("lora", tmp_path / "whole")
    with pytest.raises(KilledError):
        train("lora", tmp_path / "killed", KillAtEnd())
    resumed, _ = train("lora", tmp_path / "killed")
    assert (resumed.steps, resumed.resumed_from) == (steps, last)
    assert resumed.entries == whole.entries
    assert all(
        torch.equal(weights(tmp_path / "whole")[name], tensor) for name, tensor in weights(tmp_path / "killed").items()
    )


class StopAt(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop = control.should_training_stop or state.global_step == 4


def test_what_was_stopped_stays_stopped(tmp_path: Path) -> None:
    stopped, _ = train("lora", tmp_path / "stopped", StopAt())
    with pytest.raises(KilledError):
        train("lora", tmp_path / "killed", StopAt(), KillAtEnd())
    resumed, _ = train("lora", tmp_path / "killed", StopAt())
    assert (stopped.steps, resumed.steps, resumed.planned_steps, resumed.resumed_from) == (4, 4, 9, 2)
    assert resumed.entries == stopped.entries
