"""A fine-tune as its run folder holds it."""

from dataclasses import asdict
from typing import Any

from tiltmeter.behaviour.utility import UtilityLoss
from tiltmeter.likelihood import completion_lengths
from tiltmeter.models import Model
from tiltmeter.runs.record import tool_versions
from tiltmeter.runs.results import Input, interval_record
from tiltmeter.runs.tune_result import (
    LearntSet,
    RaisedAlarm,
    Speed,
    TuneResult,
    UsedGuard,
    UsedRecipe,
    Watched,
    WatchedSkill,
)
from tiltmeter.training.finetune import TrainingLog
from tiltmeter.training.guards.guard import Guard
from tiltmeter.training.guards.named import KINDS
from tiltmeter.training.monitor import Monitor
from tiltmeter.training.processes import process_count
from tiltmeter.training.recipes import RECIPES
from tiltmeter.tune.data import longest
from tiltmeter.tune.measure import loss_per_token
from tiltmeter.tune.prepare import Prepared, Trained
from tiltmeter.tune.request import TuneRequest

_SELDOM = ("exponent", "exponent_low", "exponent_high", "rotation", "subspace_overlap")  # not at every reading
_LOSS_COLUMNS = ("step", "epoch", "loss", "grad_norm", "learning_rate")


def result(request: TuneRequest, inputs: list[Input], trained: Trained) -> TuneResult:
    """`result.json` of a fine-tune."""
    log, recipe, prepared = trained.log, request.recipe, trained.prepared
    monitor = prepared.watchers.monitor
    return TuneResult(
        inputs=inputs,
        versions=tool_versions(),
        seed=request.seed,
        dtype=request.running.dtype,
        warnings=_warnings(request, prepared),
        recipe=_recipe(request, prepared.model),
        data={name: _learnt(name, trained, request.seed) for name in prepared.data},
        trained=sum(weights.numel() for weights in prepared.model.module.parameters() if weights.requires_grad),
        parameters=prepared.weights,
        steps=log.steps,
        planned_steps=log.planned_steps,
        epochs=log.epochs,
        tokens=log.tokens,
        model="model",
        form="adapter" if recipe.method == "lora" else "checkpoint",
        checkpoints=trained.checkpoints,
        speed=_speed(log),
        watched=None if monitor is None else _watched(request, monitor, trained),
        guards=[_guard(given, guard) for given, guard in prepared.watchers.guards.items()],
        kept_skills=list(prepared.watchers.kept),
    )


def tables(trained: Trained) -> dict[str, list[dict[str, Any]]]:
    """`loss`: a row a step, the mean loss over the completion tokens of its examples before it; `monitor`: readings."""
    loss = [{column: entry.get(column) for column in _LOSS_COLUMNS} for entry in trained.log.entries if "loss" in entry]
    monitor = trained.prepared.watchers.monitor
    if monitor is None:
        return {"loss": loss}
    return {"loss": loss, "monitor": [dict.fromkeys(_SELDOM) | row for row in monitor.rows()]}


def _recipe(request: TuneRequest, model: Model) -> UsedRecipe:
    known = RECIPES.get(request.recipe_name)
    begun = asdict(request.recipe if known is None else known[request.recipe.method])
    changed = [name for name, value in asdict(request.recipe).items() if value != begun[name]]
    fields = asdict(request.recipe) | {"max_length": longest(model, request.recipe.max_length), "changed": changed}
    if request.recipe.method == "full":
        fields |= {"rank": None, "alpha": None, "dropout": None}
    return UsedRecipe(name=request.recipe_name, **fields)


def _learnt(name: str, trained: Trained, seed: int) -> LearntSet:
    prepared = trained.prepared
    data, sample = prepared.data[name], prepared.samples[name]
    before, after = prepared.before.data[name], trained.after.data[name]
    return LearntSet(
        examples=len(data.encoded),
        tokens=data.tokens,
        truncated=data.truncated,
        sampled=len(sample),
        before=interval_record(loss_per_token(before, sample, seed)),
        after=interval_record(loss_per_token(after, sample, seed)),
        change=interval_record(loss_per_token(after - before, sample, seed)),
    )


def _watched(request: TuneRequest, monitor: Monitor, trained: Trained) -> Watched:
    alarms = [RaisedAlarm(**asdict(alarm)) for alarm in monitor.alarms]
    return Watched(
        skills={name: _skill(name, trained) for name in trained.prepared.skills},
        limits=request.watch.limits,
        on_limit=request.watch.on_limit,
        alarms=alarms,
        ended_by_limit=bool(alarms) and request.watch.on_limit != "warn",
        kept_step=monitor.kept_step,
    )


def _skill(name: str, trained: Trained) -> WatchedSkill:
    encoded = trained.prepared.skills[name]
    change = trained.prepared.before.skills[name] - trained.after.skills[name]
    loss = UtilityLoss(change, completion_lengths(encoded))
    return WatchedSkill(
        examples=len(encoded),
        utility_loss=interval_record(loss.per_completion),
        per_token=interval_record(loss.per_token),
    )


def _guard(given: str, guard: Guard) -> UsedGuard:
    name, _, value = given.partition("=")
    kind, done = KINDS[name], guard.corrections
    number = float(value) if value else kind.usual
    return UsedGuard(name=name, value=number, meaning=kind.value, corrected_steps=done.steps, share=done.share)


def _speed(log: TrainingLog) -> Speed:
    per_second = log.session_tokens / log.session_seconds if log.session_seconds else None
    return Speed(since=log.resumed_from, seconds=log.session_seconds, tokens_per_second=per_second)


def _warnings(request: TuneRequest, prepared: Prepared) -> list[str]:
    """What a reader must know besides."""
    limit = longest(prepared.model, request.recipe.max_length)
    cut = [
        f"{name}: {data.truncated} of {len(data.encoded)} examples were cut to {limit} tokens"
        for name, data in prepared.data.items()
        if data.truncated
    ]
    several = [
        f"trained by {process_count()} processes: where an epoch does not divide by them, its last step is filled up "
        "with examples of its beginning"
    ]
    return cut + (several if process_count() > 1 else [])
