"""`tiltmeter report`."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Run folders.")],
    out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("report.html"),
) -> None:
    """Write one self-contained HTML page on finished runs."""
    from tiltmeter.report.page import render
    from tiltmeter.runs.manifest import atomic
    from tiltmeter.text import inert

    page = render(folders)
    with atomic(out) as stream:
        stream.write(page.encode())
    typer.echo(f"{inert(str(out), keep='')}: open it in a browser")
