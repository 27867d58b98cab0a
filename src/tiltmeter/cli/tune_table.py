"""What a person reads in the terminal of a fine-tune."""

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from tiltmeter.cli.tables import WIDTH, next_step, safe
from tiltmeter.report.tune import describe, summary
from tiltmeter.report.wording import span
from tiltmeter.runs.tune_result import TuneResult


def print_tune(result: TuneResult, folder: Path) -> None:
    """A table of the data, what was done, and what to do next."""
    console = Console(width=max(WIDTH, Console().width))
    console.print(_data(result))
    console.print(safe(summary(result)))
    console.print(safe(describe(result)))
    for warning in result.warnings:
        console.print(f"note: {safe(warning)}")
    next_step(console, folder)
    base = next(given.path for given in result.inputs if given.role == "base")
    model = safe(str(folder / result.model))
    console.print(
        f"to measure it: [bold]tiltmeter audit {safe(base)} {model} --skill FILE --out DIR[/bold]", soft_wrap=True
    )


def _data(result: TuneResult) -> Table:
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("data", overflow="fold")
    for title in ("examples", "tokens", "cut", "loss before", "loss after", "change"):
        table.add_column(title, justify="right", no_wrap=True)
    for name, data in result.data.items():
        counts = (str(data.examples), str(data.tokens), str(data.truncated))
        table.add_row(safe(name), *counts, *map(span, (data.before, data.after, data.change)))
    return table
