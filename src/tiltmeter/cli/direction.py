"""`tiltmeter direction`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tiltmeter.cli.limits import Figure, exceeded, limit_option, parse_limits
from tiltmeter.cli.options import BatchSize, Device, Dtype, Out, named_sources

if TYPE_CHECKING:
    from tiltmeter.directions.direction_request import DirectionRequest
    from tiltmeter.runs.direction_result import DirectionResult

Place = Annotated[
    Literal["output", "input", "attention", "mlp"], typer.Option(help="Of each block: where its states are read.")
]
DIRECTION: Mapping[str, Figure[DirectionResult]] = {
    "held_out": Figure(lambda result: max(block.tuned.held_out.mean for block in result.blocks)),
    "norm": Figure(lambda result: max(block.tuned.norm for block in result.blocks)),
}


def direction(
    base: Annotated[str, typer.Argument(help="The base model: a folder or a Hub id.")],
    tuned: Annotated[str, typer.Argument(help="A checkpoint or a PEFT adapter of it: a folder or a Hub id.")],
    prompts: Annotated[
        list[str],
        typer.Option(help="Prompts that both read: a file or a public set; pairs for answers; repeat."),
    ],
    out: Out,
    beside: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FOLDER", help="Another fine-tune of the base, above all a benign one; repeat."),
    ] = None,
    block: Annotated[
        list[int] | None, typer.Option(help="Number of a block, from 0; -1 is the last; repeat. All if not given.")
    ] = None,
    tokens: Annotated[
        Literal["last", "prompt", "answer"],
        typer.Option(help="The prompt's last token, all of the prompt, or those of the given answers."),
    ] = "last",
    place: Place = "output",
    weights: Annotated[bool, typer.Option(help="Also read the update, for what it writes along the direction.")] = True,
    folds: Annotated[int, typer.Option(min=2, help="Of prompts, for held-out figures.")] = 5,
    permutations: Annotated[int, typer.Option(min=19, help="Swaps of base and tuned, for the null.")] = 499,
    dtype: Dtype = "float32",
    device: Device = "cpu",
    batch_size: BatchSize = 16,
    seed: Annotated[int, typer.Option(min=0, help="Of folds, swaps and halves.")] = 0,
    fail_on: Annotated[
        list[str] | None,
        limit_option(f"Exit with 1 if a figure of any block is above a limit: {', '.join(DIRECTION)}."),
    ] = None,
) -> None:
    """Find the direction from base to tuned in each block's activations, and what it separates on held-out prompts."""
    from tiltmeter.directions.captured import Reading
    from tiltmeter.directions.direction_request import DirectionRequest, DirectionSources, Tests

    limits = parse_limits(fail_on, DIRECTION, {})
    request = DirectionRequest(
        DirectionSources(base, tuned, tuple(prompts), named_sources(beside or [])),
        None if block is None else tuple(block),
        Reading(tokens, place, batch_size),
        Tests(folds, permutations, seed=seed),
        weights,
        dtype,
        device,
    )
    raise typer.Exit(exceeded(_direction(request, out), DIRECTION, limits))


def again(arguments: dict[str, object], out: Path) -> None:
    """A recorded direction found again."""
    from pydantic import TypeAdapter

    from tiltmeter.directions.direction_request import DirectionRequest

    _direction(TypeAdapter(DirectionRequest).validate_python(arguments), out)


def _direction(request: DirectionRequest, out: Path) -> DirectionResult:
    from tiltmeter.cli.direction_table import print_direction
    from tiltmeter.directions.direction import run_direction

    result = run_direction(request, out)
    print_direction(result, out)
    return result
