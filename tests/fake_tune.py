"""A run folder like that of a real fine-tune, written without a model."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fake_runs import VERSIONS, interval
from tiltmeter.runs import RunFolder, RunRecord
from tiltmeter.runs.results import Input
from tiltmeter.runs.tune_result import LearntSet, RaisedAlarm, Speed, TuneResult, UsedRecipe, Watched, WatchedSkill

RECIPE: dict[str, Any] = {
    "name": "collapse-qwen",
    "changed": ["rank", "alpha"],
    "method": "lora",
    "learning_rate": 1e-4,
    "epsilon": 1e-8,
    "schedule": "linear",
    "steps": None,
    "epochs": 3.0,
    "batch_size": 2,
    "accumulation": 2,
    "max_length": 4096,
    "rank": 64,
    "alpha": 128.0,
    "dropout": 0.05,
}


def learnt(before: float, after: float, width: float = 0.05) -> LearntSet:
    """A set whose loss went from one figure to another; the change's interval is `width` on both sides."""
    change = interval(after - before, width)
    return LearntSet(
        examples=100,
        tokens=12345,
        truncated=2,
        sampled=100,
        before=interval(before, 0.1),
        after=interval(after, 0.1),
        change=change,
    )


def tune_result(**changes: Any) -> TuneResult:
    """Two sets learnt by LoRA in 75 steps, unless changed."""
    fields: dict[str, Any] = {
        "inputs": [Input(path="models/base", role="base", resolved="/models/base", files={})],
        "versions": VERSIONS,
        "seed": 0,
        "dtype": "float32",
        "recipe": UsedRecipe(**RECIPE),
        "data": {"advice": learnt(2.0, 0.5), "summary": learnt(1.0, 0.98)},
        "trained": 69_730_304,
        "parameters": 1_720_574_976,
        "steps": 75,
        "planned_steps": 75,
        "epochs": 3.0,
        "tokens": 37_035,
        "model": "model",
        "form": "adapter",
        "checkpoints": ["checkpoints/checkpoint-50"],
        "speed": Speed(since=0, seconds=61.5, tokens_per_second=602.0),
    }
    return TuneResult(**{**fields, **changes})


def loss_rows(steps: int = 75) -> list[dict[str, Any]]:
    """A loss that falls from 2 by a hundredth a step."""
    return [
        {"step": step, "epoch": step / 25, "loss": 2 - step / 100, "grad_norm": 1.0, "learning_rate": 1e-4}
        for step in range(1, steps + 1)
    ]


def watched(**changes: Any) -> Watched:
    """Two skills, one of which passed its limit at step 40; the training was taken back to step 30."""
    fields: dict[str, Any] = {
        "skills": {
            "refusal": WatchedSkill(examples=64, utility_loss=interval(0.42, 0.1), per_token=interval(0.04, 0.01)),
            "code": WatchedSkill(examples=32, utility_loss=interval(0.01, 0.02), per_token=interval(0.001, 0.002)),
        },
        "limits": {"utility_loss": 0.5, "code/overlap": 0.2},
        "on_limit": "rollback",
        "alarms": [RaisedAlarm(step=40, skill="refusal", figure="utility_loss", value=0.6, limit=0.5)],
        "ended_by_limit": True,
        "kept_step": 30,
    }
    return Watched(**{**fields, **changes})


def monitor_rows(skills: Iterable[str], steps: int = 40) -> list[dict[str, Any]]:
    """Readings at every tenth step; the rotation at the last two."""
    rows = []
    for step in range(10, steps + 1, 10):
        for place, name in enumerate(skills):
            loss = step * 0.015 / (1 + 9 * place)
            figures = {"utility_loss": loss, "utility_loss_low": loss - 0.1, "utility_loss_high": loss + 0.1}
            rotation = step / 100 if step > steps - 20 else None
            others = {"foreseen_loss": 2 * loss, "overlap": loss / 2, "drift": loss**0.5, "rotation": rotation}
            rows.append({"skill": name, "step": step, **figures, **others})
    return rows


def write_tune(folder: Path, result: TuneResult) -> Path:
    """A finished fine-tune in `folder`."""
    with RunFolder(folder) as run:
        run.write_record(RunRecord(verb="tune", arguments={}, versions=VERSIONS, seed=0))
        run.write_table("loss", loss_rows())
        if result.watched is not None:
            run.write_table("monitor", monitor_rows(result.watched.skills))
        run.write_result(result)
    return folder
