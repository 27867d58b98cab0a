"""`tiltmeter run`."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from tiltmeter.cli import (
    audit,
    compare,
    connect,
    demo,
    direction,
    forecast,
    judge,
    rank_examples,
    spectrum,
    steer,
    transfer,
    tune,
)
from tiltmeter.errors import InputError

AGAIN: dict[str, Callable[..., None]] = {
    "audit": audit.again,
    "compare": compare.again,
    "connect": connect.again,
    "demo": demo.again,
    "direction": direction.again,
    "forecast": forecast.again,
    "judge": judge.again,
    "rank-examples": rank_examples.again,
    "spectrum": spectrum.again,
    "steer": steer.again,
    "transfer": transfer.again,
    "tune": tune.again,
}


def run(
    file: Annotated[Path, typer.Argument(metavar="RUN.YAML", help="The run.yaml of a run folder, or the folder.")],
    out: Annotated[Path | None, typer.Option(help="Where to write; the folder of RUN.YAML if not given.")] = None,
) -> None:
    """Do a recorded run again."""
    from pydantic import ValidationError

    from tiltmeter.runs.record import explain, load_run
    from tiltmeter.runs.verify import changes
    from tiltmeter.text import inert

    record = load_run(file)
    for problem in (problem for given in record.inputs for problem in changes(given)):
        typer.echo(f"warning: {inert(str(problem), keep='')}", err=True)
    target = out or (file if file.is_dir() else file.parent)
    if record.verb not in AGAIN:
        raise InputError(f"{file}: expected a run of {', '.join(AGAIN)}, got {record.verb!r}")
    try:
        AGAIN[record.verb](record.arguments, target)
    except ValidationError as error:
        raise InputError(f"{file}: {explain(error)}") from error
