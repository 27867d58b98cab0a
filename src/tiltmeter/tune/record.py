"""A fine-tune as its run folder holds it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tiltmeter.models import Model
from tiltmeter.runs.record import tool_versions
from tiltmeter.runs.results import Input, interval_record
from tiltmeter.runs.tune_result import LearntSet, Speed, TuneResult, UsedRecipe
from tiltmeter.training.finetune import TrainingLog
from tiltmeter.training.processes import process_count
from tiltmeter.tune.data import DataSet, Nats, longest, per_token
from tiltmeter.tune.request import TuneRequest

_LOSS_COLUMNS = ("step", "epoch", "loss", "grad_norm", "learning_rate")


@dataclass(frozen=True)
class Trained:
    """What came of a fine-tune.

    Attributes:
        weights: of the base.
        before, after: losses on a sample of each set.
        checkpoints: kept ones, by their place in the run folder.
    """

    model: Model
    weights: int
    data: Mapping[str, DataSet]
    before: Mapping[str, Nats]
    after: Mapping[str, Nats]
    log: TrainingLog
    checkpoints: list[str]


def result(request: TuneRequest, inputs: list[Input], trained: Trained) -> TuneResult:
    """`result.json` of a fine-tune."""
    log, recipe = trained.log, request.recipe
    return TuneResult(
        inputs=inputs,
        versions=tool_versions(),
        seed=request.seed,
        dtype=request.running.dtype,
        warnings=_warnings(request, trained),
        recipe=_recipe(request, trained.model),
        data={name: _learnt(name, trained, request.seed) for name in trained.data},
        trained=sum(weights.numel() for weights in trained.model.module.parameters() if weights.requires_grad),
        parameters=trained.weights,
        steps=log.steps,
        planned_steps=log.planned_steps,
        epochs=log.epochs,
        tokens=log.tokens,
        model="model",
        form="adapter" if recipe.method == "lora" else "checkpoint",
        checkpoints=trained.checkpoints,
        speed=_speed(log),
    )


def loss_rows(log: TrainingLog) -> list[dict[str, Any]]:
    """A row per step: the mean loss over the completion tokens of its examples, before the step."""
    return [{column: entry.get(column) for column in _LOSS_COLUMNS} for entry in log.entries if "loss" in entry]


def _recipe(request: TuneRequest, model: Model) -> UsedRecipe:
    fields = asdict(request.recipe) | {"max_length": longest(model, request.recipe.max_length)}
    if request.recipe.method == "full":
        fields |= {"rank": None, "alpha": None, "dropout": None}
    return UsedRecipe(name=request.recipe_name, **fields)


def _learnt(name: str, trained: Trained, seed: int) -> LearntSet:
    data, before, after = trained.data[name], trained.before[name], trained.after[name]
    sample = data.sample(seed)
    return LearntSet(
        examples=len(data.encoded),
        tokens=data.tokens,
        truncated=data.truncated,
        sampled=len(sample),
        before=interval_record(per_token(before, sample, seed)),
        after=interval_record(per_token(after, sample, seed)),
        change=interval_record(per_token(after - before, sample, seed)),
    )


def _speed(log: TrainingLog) -> Speed:
    per_second = log.session_tokens / log.session_seconds if log.session_seconds else None
    return Speed(since=log.resumed_from, seconds=log.session_seconds, tokens_per_second=per_second)


def _warnings(request: TuneRequest, trained: Trained) -> list[str]:
    """What a reader must know besides."""
    limit = longest(trained.model, request.recipe.max_length)
    cut = [
        f"{name}: {data.truncated} of {len(data.encoded)} examples were cut to {limit} tokens"
        for name, data in trained.data.items()
        if data.truncated
    ]
    several = [
        f"trained by {process_count()} processes: where an epoch does not divide by them, its last step is filled up with "
        "examples of its beginning"
    ]
    return cut + (several if process_count() > 1 else [])
