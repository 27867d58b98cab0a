"""`tiltmeter verify`."""

from pathlib import Path
from typing import Annotated

import typer


def verify(folder: Annotated[Path, typer.Argument(metavar="DIR", help="A run folder.")]) -> None:
    """Check a run folder: outputs against their hashes, the result against its schema, inputs against theirs."""
    from tiltmeter.runs.verify import verify as check
    from tiltmeter.text import inert

    problems = check(folder)
    for problem in problems:
        typer.echo(inert(str(problem), keep=""))
    if not problems:
        typer.echo(f"{inert(str(folder), keep='')}: outputs and inputs are as they were when the run ended")
    raise typer.Exit(1 if problems else 0)
