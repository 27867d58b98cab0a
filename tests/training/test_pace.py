import itertools
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset
from transformers import TrainingArguments

from tiltmeter.errors import InputError
from tiltmeter.training.pace import BUDGET, READING, ROTATION, START, Pace, default_pace, tokens_a_step


def _cost(pace: Pace) -> float:
    """The monitor's work, step by step, in passes over the skills."""
    due = [step for step in range(1, pace.last + 1) if pace.is_due(step)]
    return START + sum(READING + ROTATION * pace.has_rotation(step) for step in due)


@pytest.mark.parametrize(
    ("steps", "tokens", "skill", "rotates"),
    itertools.product([60, 1000, 3001], [500.0, 4000.0], [300, 50000], [0, 4]),
)
def test_the_default_pace_keeps_to_the_budget_and_uses_it(steps: int, tokens: float, skill: int, rotates: int) -> None:
    pace = default_pace(steps, tokens, skill, rotates)
    affordable = BUDGET * steps * tokens / skill
    assert pace.is_due(steps)
    assert pace.share == pytest.approx(_cost(pace) * skill / tokens / steps)
    assert pace.fits == (_cost(pace) <= affordable)
    if not pace.fits:
        assert [step for step in range(1, steps + 1) if pace.is_due(step)] == [steps]
        assert _cost(Pace(steps, False, rotates, steps)) > affordable
    elif pace.every > 1:
        assert _cost(Pace(pace.every - 1, pace.early, rotates, steps)) > affordable


def test_early_readings_stand_at_powers_of_two() -> None:
    pace = default_pace(10000, 1000.0, 2000, 4)
    due = [step for step in range(1, 10001) if pace.is_due(step)]
    assert pace.early
    assert due == [2**k for k in range(20) if 2**k < pace.every] + list(range(pace.every, 10000, pace.every)) + [10000]


def test_a_skill_too_large_is_said() -> None:
    text = str(default_pace(60, 500.0, 50000, 4))
    assert "every 60 steps" in text
    assert "every=STEPS" in text
    assert "every=STEPS" not in str(default_pace(10000, 1000.0, 2000, 4))


def _rows(count: int) -> list[dict[str, torch.Tensor]]:
    return [{"input_ids": torch.arange(4 + row % 2)} for row in range(count)]


def _collate(rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    torch.rand(3)  # a collator that draws
    return {"input_ids": torch.nn.utils.rnn.pad_sequence([row["input_ids"] for row in rows], batch_first=True)}


def test_tokens_are_counted_with_padding_and_without_a_random_number() -> None:
    arguments = TrainingArguments(
        output_dir="unused", per_device_train_batch_size=2, gradient_accumulation_steps=3, use_cpu=True
    )
    before = torch.get_rng_state()
    loader: Any = DataLoader(_rows(64), batch_size=2, collate_fn=_collate)  # type: ignore[arg-type]
    assert tokens_a_step(loader, arguments) == 2 * 3 * 5
    assert torch.equal(before, torch.get_rng_state())


class _Stream(IterableDataset[int]):
    def __iter__(self) -> "itertools.count[int]":
        return itertools.count()


def test_what_cannot_be_counted_needs_a_pace() -> None:
    arguments = TrainingArguments(output_dir="unused", use_cpu=True)
    with pytest.raises(InputError, match="is a stream"):
        tokens_a_step(DataLoader(_Stream()), arguments)
    with pytest.raises(InputError, match="no input_ids"):
        tokens_a_step(DataLoader([{"x": 1.0}]), arguments)  # type: ignore[arg-type]
