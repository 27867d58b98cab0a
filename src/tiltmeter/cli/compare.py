"""`tiltmeter compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from tiltmeter.cli.options import Out, named_sources
from tiltmeter.errors import InputError

Named = Annotated[
    list[str], typer.Argument(help="Two or more checkpoints or PEFT adapters of it: FOLDER or NAME=FOLDER.")
]


def compare(
    base: Annotated[str, typer.Argument(help="The model that they all change: a folder or a Hub id.")],
    update: Named,
    out: Out,
    group: Annotated[
        list[str] | None, typer.Option(metavar="NAME=A,B", help="Updates to take together in a table; repeat.")
    ] = None,
    initial: Annotated[
        list[str] | None, typer.Option(metavar="NAME=FOLDER", help="An adapter before training (PiSSA, OLoRA); repeat.")
    ] = None,
    against_base: Annotated[
        bool, typer.Option("--against-base", help="Also compare with the base's weights, which are all read.")
    ] = False,
    components: Annotated[int, typer.Option(min=1, help="Singular vectors compared one by one.")] = 20,
    angles: Annotated[
        int, typer.Option(min=1, help="Dimensions of the subspaces between which angles are taken.")
    ] = 20,
    subspace: Annotated[int, typer.Option(min=1, help="Dimensions of the subspaces whose overlap is taken.")] = 16,
    draws: Annotated[int, typer.Option(min=2, help="Of each null.")] = 64,
    accuracy: Annotated[
        float, typer.Option(help="Of leading directions of checkpoints: residual over singular value.")
    ] = 0.01,
    io: Annotated[
        Literal["mmap", "read"], typer.Option(help="How tensors are read; read suits network file systems.")
    ] = "mmap",
    seed: Annotated[int, typer.Option(min=0, help="Of the nulls.")] = 0,
) -> None:
    """Compare updates in weight space: what directions they share, beside chance and a common initialisation."""
    from tiltmeter.cli.compare_table import print_compare
    from tiltmeter.compare.request import CompareRequest
    from tiltmeter.compare.run import run_compare
    from tiltmeter.geometry.similarity import Dims

    if not 0 < accuracy < 1:
        raise InputError(f"--accuracy: expected a number between 0 and 1, got {accuracy:g}")
    request = CompareRequest(
        base,
        _named_updates(update),
        {name: tuple(members.split(",")) for name, members in _pairs("--group", group).items()},
        _pairs("--initial", initial),
        against_base,
        Dims(components, angles, subspace),
        draws,
        accuracy,
        io,
        seed,
    )
    print_compare(run_compare(request, out), out)


def again(arguments: dict[str, object], out: Path) -> None:
    """A recorded comparison done again."""
    from pydantic import TypeAdapter

    from tiltmeter.cli.compare_table import print_compare
    from tiltmeter.compare.request import CompareRequest
    from tiltmeter.compare.run import run_compare

    print_compare(run_compare(TypeAdapter(CompareRequest).validate_python(arguments), out), out)


def _named_updates(texts: list[str]) -> dict[str, str]:
    named = named_sources(texts)
    if len(named) < 2:
        raise InputError(f"expected at least two updates to compare, got {len(named)}")
    return named


def _pairs(option: str, texts: list[str] | None) -> dict[str, str]:
    """NAME=VALUE, each name once."""
    named: dict[str, str] = {}
    for text in texts or ():
        name, _, value = text.partition("=")
        if not name or not value or name in named:
            raise InputError(f"{option} {text}: expected NAME=VALUE, each name once")
        named[name] = value
    return named
