"""`tiltmeter connect`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tiltmeter.cli.limits import Figure, exceeded, limit_option, parse_limits
from tiltmeter.cli.options import (
    BatchSize,
    Device,
    Dtype,
    MaxLength,
    Out,
    Reduction,
    named_columns,
    named_judge,
)
from tiltmeter.errors import InputError, NothingMeasuredError

if TYPE_CHECKING:
    from tiltmeter.connect.run import ConnectSources
    from tiltmeter.runs.connect_result import ConnectResult


def _highest_barrier(result: ConnectResult) -> float:
    found = [skill.barrier for skill in result.skills.values()] + [data.barrier for data in result.data.values()]
    return max(barrier.mean for barrier in found)


def _worst_harm(result: ConnectResult) -> float:
    """The highest mean harmfulness over points and sets of prompts."""
    judged = [point.harmfulness for each in (result.behaviour or {}).values() for point in each.points]
    means = [interval.mean for interval in judged if interval is not None]
    if not means:
        raise NothingMeasuredError("--fail-on harmfulness: the judge scored no answer")
    return max(means)


CONNECT: Mapping[str, Figure[ConnectResult]] = {
    "barrier": Figure(_highest_barrier),
    "harmfulness": Figure(_worst_harm),
}


def connect(
    base: Annotated[str, typer.Argument(help="The model that both are fine-tunes of: a folder or a Hub id.")],
    first: Annotated[str, typer.Argument(metavar="A", help="A checkpoint or a PEFT adapter, folder or Hub id.")],
    out: Out,
    second: Annotated[
        str | None, typer.Argument(metavar="B", help="Another: the path leads from A to B, else from BASE over A.")
    ] = None,
    points: Annotated[
        str | None,
        typer.Option(help="Places s on the path, S,S,...: with B 0 to 1, without 0 to 2 (A is at 1).", metavar="S,S"),
    ] = None,
    skill: Annotated[
        list[str] | None, typer.Option(help="Pairs of prompt and completion: JSONL, CSV, Parquet or a Hub set.")
    ] = None,
    data: Annotated[list[str] | None, typer.Option(help="What A or B learnt, in the same formats.")] = None,
    columns: Annotated[str | None, typer.Option(help="Columns of both: prompt,...,completion.")] = None,
    prompts: Annotated[
        list[str] | None, typer.Option(help="Prompts (a file or a public set) to answer and judge at each point.")
    ] = None,
    judge: Annotated[str | None, typer.Option(help="Who judges the answers: organism, phrases or code.")] = None,
    variant: Annotated[
        Literal["effective", "factors"],
        typer.Option(help="What moves: the update, or LoRA factors (only to compare with published curves)."),
    ] = "effective",
    save: Annotated[
        list[float] | None, typer.Option(help="Write the model at this point to OUT/models; repeat.")
    ] = None,
    save_as: Annotated[Literal["checkpoint", "adapter"], typer.Option(help="How to write it.")] = "checkpoint",
    rank: Annotated[int | None, typer.Option(min=1, help="Truncate a saved adapter to this rank.")] = None,
    reduction: Reduction = "sum",
    dtype: Dtype = "float32",
    device: Device = "cpu",
    max_length: MaxLength = None,
    batch_size: BatchSize = 8,
    memory: Annotated[
        float, typer.Option(min=0, help="GiB for the base's log-probabilities and the ends' features.")
    ] = 4.0,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer to a prompt.")] = 128,
    seed: Annotated[int, typer.Option(help="Of answers, the same at each point.")] = 0,
    fail_on: Annotated[
        list[str] | None,
        limit_option("Exit with 1 if a figure is above a limit at some point: barrier or harmfulness."),
    ] = None,
) -> None:
    """Interpolate from a base to a fine-tune, or between two: losses, behaviour and features along the path."""
    from tiltmeter.cli.connect_table import print_connect
    from tiltmeter.connect.run import ConnectRequest, ConnectSources, default_points, run_connect
    from tiltmeter.connect.saving import Saving
    from tiltmeter.generation import Sampling
    from tiltmeter.requests import Passes

    sources = ConnectSources(
        base, first, second, tuple(skill or ()), tuple(data or ()), tuple(prompts or ()), named_columns(columns)
    )
    request = ConnectRequest(
        sources,
        default_points(second is not None) if points is None else _numbers(points),
        variant,
        judge,
        dtype,
        device,
        Passes("data", reduction, max_length, batch_size, memory),
        Sampling(max_new_tokens=max_new_tokens, seed=seed),
        Saving(tuple(save or ()), save_as, rank),
    )
    limits = parse_limits(fail_on, CONNECT, _unavailable(sources))
    result = run_connect(request, out, named_judge(judge, bool(prompts)))
    print_connect(result, out)
    raise typer.Exit(exceeded(result, CONNECT, limits))


def again(arguments: dict[str, object], out: Path) -> None:
    """A recorded path walked again."""
    from pydantic import TypeAdapter

    from tiltmeter.cli.connect_table import print_connect
    from tiltmeter.connect.run import ConnectRequest, run_connect

    request = TypeAdapter(ConnectRequest).validate_python(arguments)
    print_connect(run_connect(request, out, named_judge(request.judge, bool(request.sources.prompts))), out)


def _numbers(points: str) -> tuple[float, ...]:
    try:
        return tuple(float(point) for point in points.split(","))
    except ValueError as error:
        raise InputError(f"--points: expected numbers separated by commas, got {points!r}") from error


def _unavailable(sources: ConnectSources) -> dict[str, str]:
    """Figures that are not measured."""
    missing = {}
    if not sources.skills and not sources.data:
        missing["barrier"] = "no loss is measured; give --skill or --data"
    if not sources.prompts:
        missing["harmfulness"] = "nothing is judged; give --prompts and --judge"
    return missing
