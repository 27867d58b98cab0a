"""A guard says what it did to the optimizer's steps."""

from pathlib import Path

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

import tiny
import tiny_training
from tiltmeter.training.guards.guard import Corrections, Guard


class Third(Guard):
    """Takes a third of every second step, and leaves the others."""

    def corrected(self, before: Float[Tensor, " P"]) -> Float[Tensor, " P"] | None:
        after = self.trained.read()
        self.trained.write(torch.zeros_like(after))  # as some guards try values on the way
        if self.step % 2:
            self.trained.write(after)
            return None
        return before + (after - before) / 3


def test_the_mean_share_of_the_steps_that_were_changed(tmp_path: Path) -> None:
    guard = Third([tiny.skill()], tiny.tokenizer())
    assert guard.corrections == Corrections(0, None)
    tiny_training.trainer(tmp_path, "lora", [guard], max_steps=5).train()
    assert guard.corrections.steps == 3
    assert guard.corrections.share == pytest.approx(2 / 3, rel=1e-5)


def test_they_go_on_with_the_training(tmp_path: Path) -> None:
    saving = {"max_steps": 5, "save_strategy": "steps", "save_steps": 3}
    tiny_training.trainer(tmp_path, "lora", [Third([tiny.skill()], tiny.tokenizer())], **saving).train()
    guard = Third([tiny.skill()], tiny.tokenizer())
    tiny_training.trainer(tmp_path, "lora", [guard], **saving).train(
        resume_from_checkpoint=str(tmp_path / "checkpoint-3")
    )
    assert guard.corrections.steps == 3
