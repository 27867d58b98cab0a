"""What a person reads of a path in the terminal."""

from collections.abc import Iterator
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from tiltmeter.cli.tables import WIDTH, next_step, safe
from tiltmeter.report.connect_verdict import barriers, sentences
from tiltmeter.report.wording import figure, share, span
from tiltmeter.runs.connect_result import ConnectResult


def print_connect(result: ConnectResult, folder: Path) -> None:
    """The curves as a table, the barriers, what they say, and what to do next."""
    console = Console(width=max(WIDTH, Console().width))
    columns = dict(_columns(result))
    if columns:
        console.print(_curves(result, columns))
    if result.skills or result.data:
        console.print(_barriers(result))
    for sentence in sentences(result):
        console.print(safe(sentence))
    for saved in result.saved:
        lost = "" if saved.energy_lost is None else f", {saved.energy_lost:.2%} of its energy lost to rank {saved.rank}"
        console.print(
            f"saved s = {saved.s:g} as {saved.form}: {safe(str(folder / saved.folder))}{lost}", soft_wrap=True
        )
    for warning in result.warnings:
        console.print(f"note: {safe(warning)}")
    next_step(console, folder)


def _columns(result: ConnectResult) -> Iterator[tuple[str, list[str]]]:
    """Title and one cell per point."""
    for name, data in result.data.items():
        yield f"loss: {name}", [figure(value) for value in data.loss]
    for name, skill in result.skills.items():
        yield f"utility loss: {name}", [figure(value) for value in skill.utility_loss]
        yield f"KL: {name}", [figure(value) for value in skill.kl]
    for name, entry in (result.behaviour or {}).items():
        yield f"harmfulness: {name}", [span(point.harmfulness) for point in entry.points]
        yield (
            f"refuses: {name}",
            [share(None if (r := point.refusal_rate) is None else r.mean) for point in entry.points],
        )


def _curves(result: ConnectResult, columns: dict[str, list[str]]) -> Table:
    table = Table("s", box=box.SIMPLE)
    for title in columns:
        table.add_column(safe(title), justify="right", overflow="fold")
    for index, s in enumerate(result.points):
        table.add_row(f"{s:g}", *(cells[index] for cells in columns.values()))
    return table


def _barriers(result: ConnectResult) -> Table:
    table = Table("barrier of the", box=box.SIMPLE)
    for title in ("nats [interval]", "at s", "null 95 %", "range of the loss"):
        table.add_column(title, justify="right", no_wrap=True)
    for name, barrier in barriers(result).items():
        figures = (span(barrier), f"{barrier.at:g}", figure(barrier.null_p95), figure(barrier.loss_range))
        table.add_row(safe(name), *figures)
    return table
