"""What a person reads of a path in the terminal."""

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from tiltmeter.cli.tables import WIDTH, next_step, safe
from tiltmeter.report.connect_verdict import barriers, cautions, sentences
from tiltmeter.report.wording import figure, share, span
from tiltmeter.runs.connect_result import ConnectResult
from tiltmeter.runs.results import Interval


def print_connect(result: ConnectResult, folder: Path) -> None:
    """The curves as a table, the barriers, what they say, and what to do next."""
    console = Console(width=max(WIDTH, Console().width))
    for columns in (_losses(result), _behaviour(result)):
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
    for note in cautions(result):
        console.print(f"note: {safe(note)}")
    next_step(console, folder)


def _losses(result: ConnectResult) -> dict[str, list[str]]:
    """Title and one cell per point."""
    columns = {f"loss\n{name}": list(map(figure, data.loss)) for name, data in result.data.items()}
    for name, skill in result.skills.items():
        columns[f"utility loss\n{name}"] = list(map(figure, skill.utility_loss))
        columns[f"KL\n{name}"] = list(map(figure, skill.kl))
    return columns


def _behaviour(result: ConnectResult) -> dict[str, list[str]]:
    """Title and one cell per point."""
    columns = {}
    for name, entry in (result.behaviour or {}).items():
        columns[f"harmfulness\n{name}"] = [span(point.harmfulness) for point in entry.points]
        columns[f"refuses\n{name}"] = [_rate(point.refusal_rate) for point in entry.points]
        columns[f"coherent\n{name}"] = [_rate(point.coherent_rate) for point in entry.points]
    return columns


def _rate(interval: Interval | None) -> str:
    return share(None if interval is None else interval.mean)


def _curves(result: ConnectResult, columns: dict[str, list[str]]) -> Table:
    table = Table("s", box=box.SIMPLE)
    for title in columns:
        kind, _, name = title.partition("\n")
        table.add_column(f"{kind}\n{safe(name)}", justify="right", overflow="fold")
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
