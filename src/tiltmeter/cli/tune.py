"""`tiltmeter tune`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tiltmeter.cli.limits import Figure, exceeded, limit_option, parse_limits, parse_numbers
from tiltmeter.cli.options import Device, Out, named_columns
from tiltmeter.errors import InputError

if TYPE_CHECKING:
    from tiltmeter.runs.tune_result import TuneResult, WatchedSkill
    from tiltmeter.training.recipes import Method, Recipe

TUNE: Mapping[str, Figure[TuneResult]] = {
    "utility_loss": Figure(lambda result: max(skill.utility_loss.mean for skill in skills_of(result))),
}


def tune(
    base: Annotated[str, typer.Argument(help="The model to start from: a folder or a Hub id.")],
    data: Annotated[list[str], typer.Option(help="What to learn: JSONL, CSV, Parquet or a Hub set; repeat to mix.")],
    method: Annotated[Literal["lora", "full"], typer.Option(help="An adapter, or every parameter.")],
    recipe: Annotated[str, typer.Option(help="Settings to begin with: collapse-qwen, collapse-llama or organism.")],
    out: Out,
    columns: Annotated[str | None, typer.Option(help="Columns of the data: prompt,...,completion.")] = None,
    template: Annotated[
        Literal["alpaca", "samsum"] | None, typer.Option(help="Words plain columns as the study does.")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of AdamW.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the data.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps, in the place of epochs.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Examples at once.")] = None,
    accumulation: Annotated[int | None, typer.Option(help="Batches of a step.")] = None,
    rank: Annotated[int | None, typer.Option(help="Of the adapter.")] = None,
    alpha: Annotated[float | None, typer.Option(help="Of the adapter: its update is scaled by alpha/rank.")] = None,
    max_length: Annotated[int | None, typer.Option(help="Tokens kept of each example.")] = None,
    monitor: Annotated[
        list[str] | None, typer.Option(help="A skill to watch: pairs of prompt and completion; repeat.")
    ] = None,
    monitor_every: Annotated[
        int | None, typer.Option(min=1, help="Steps between two readings; by default for 5 % of the work.")
    ] = None,
    limit: Annotated[
        list[str] | None, limit_option("The most that a figure of a reading may be: utility_loss=0.5; repeat.")
    ] = None,
    on_limit: Annotated[
        Literal["warn", "stop", "rollback"],
        typer.Option(help="Then warn, stop, or stop at the last weights within the limits."),
    ] = "warn",
    guard: Annotated[
        list[str] | None, typer.Option(metavar="NAME[=VALUE]", help="Keep skills: utility=0.1, trust, replay, kl, ...")
    ] = None,
    guard_skill: Annotated[
        list[str] | None, typer.Option(help="A skill that guards keep; those of --monitor if none.")
    ] = None,
    unaligned: Annotated[
        str | None, typer.Option(help="The model before it was aligned, for the guards safe-lora and shrinkage.")
    ] = None,
    dtype: Annotated[
        Literal["float32", "bfloat16"], typer.Option(help="Of the passes; weights stay in float32.")
    ] = "float32",
    device: Device = "cpu",
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Less memory, more time.")
    ] = False,
    save_every: Annotated[
        int, typer.Option(min=0, help="Steps between checkpoints, to go on from after a kill; 0 for none.")
    ] = 500,
    keep: Annotated[int, typer.Option(min=0, help="Checkpoints to keep as models after the end.")] = 0,
    report_to: Annotated[
        list[str] | None, typer.Option(help="Trackers to report to: tensorboard, wandb, ...; repeat.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the examples' order, the adapter's start and dropout.")] = 0,
    fail_on: Annotated[
        list[str] | None, limit_option("Exit with 1 if a skill's figure is above a limit at the end: utility_loss.")
    ] = None,
) -> None:
    """Fine-tune a model on completions by a recipe; the same command goes on with a run that was killed."""
    from tiltmeter.cli.tune_table import ended, print_tune, warn_inert
    from tiltmeter.training.processes import is_main
    from tiltmeter.tune.request import Running, TuneRequest, TuneSources
    from tiltmeter.tune.run import run_tune
    from tiltmeter.tune.watch import Watch

    changes = {
        "learning_rate": learning_rate,
        "epochs": epochs,
        "steps": steps,
        "batch_size": batch_size,
        "accumulation": accumulation,
        "rank": rank,
        "alpha": alpha,
        "max_length": max_length,
    }
    watch = Watch(
        tuple(monitor or ()),
        monitor_every,
        parse_numbers(limit, "--limit"),
        on_limit,
        tuple(guard or ()),
        tuple(guard_skill or ()),
        unaligned,
    )
    request = TuneRequest(
        TuneSources(base, tuple(data), named_columns(columns), template),
        changed_recipe(recipe, method, changes),
        recipe,
        watch,
        Running(device, dtype, gradient_checkpointing, save_every, keep, tuple(report_to or ())),
        seed,
    )
    limits = parse_limits(fail_on, TUNE, {} if monitor else {"utility_loss": "nothing is watched; give --monitor"})
    warn_inert()
    result = run_tune(request, out)
    if is_main():
        print_tune(result, out)
        raise typer.Exit(max(ended(result), exceeded(result, TUNE, limits)))


def skills_of(result: TuneResult) -> list[WatchedSkill]:
    """What was watched."""
    return [] if result.watched is None else list(result.watched.skills.values())


def again(arguments: dict[str, object], out: Path) -> None:
    """A recorded fine-tune done again, or gone on with where it was killed."""
    from pydantic import TypeAdapter

    from tiltmeter.cli.tune_table import ended, print_tune, warn_inert
    from tiltmeter.training.processes import is_main
    from tiltmeter.tune.request import TuneRequest
    from tiltmeter.tune.run import run_tune

    warn_inert()
    result = run_tune(TypeAdapter(TuneRequest).validate_python(arguments), out)
    if is_main():
        print_tune(result, out)
        raise typer.Exit(ended(result))


def changed_recipe(name: str, method: Method, changes: Mapping[str, Any]) -> Recipe:
    """A recipe by its name, with the settings that are given (not None) in the place of its own.

    Raises:
        InputError: no such recipe, or a setting that cannot be.
    """
    from pydantic import TypeAdapter, ValidationError

    from tiltmeter.runs.record import explain
    from tiltmeter.training.recipes import RECIPES, Recipe

    if name not in RECIPES:
        raise InputError(f"--recipe {name}: expected one of {', '.join(RECIPES)}")
    given = {key: value for key, value in changes.items() if value is not None}
    if given.keys() & {"steps", "epochs"}:
        given = {"steps": None, "epochs": None} | given
    try:
        return TypeAdapter(Recipe).validate_python(vars(replace(RECIPES[name][method], **given)))
    except ValidationError as error:
        raise InputError(f"--recipe {name}: {explain(error)}") from error
