"""What a person reads of a matrix of transfers in the terminal. Text from outside is shown inert."""

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from tiltmeter.cli.tables import WIDTH, next_step, safe
from tiltmeter.report.judge_wording import TITLES, value
from tiltmeter.report.steer_verdict import WORDS
from tiltmeter.report.transfer_verdict import cautions, findings, matrix, title_of, ways
from tiltmeter.report.wording import figure
from tiltmeter.runs.transfer_result import TransferResult


def print_transfer(result: TransferResult, folder: Path) -> None:
    """Models, maps, a matrix for each way, who gives and takes, what it says, and what to do next."""
    console = Console(width=max(WIDTH, Console().width))
    console.print(_models(result))
    console.print(_maps(result))
    for way in ways(result):
        console.print(_matrix(result, way))
    for found in findings(result):
        console.print(f"[bold]{safe(found.word)}:[/bold] {safe(found.sentence)}")
    for note in cautions(result):
        console.print(f"note: {safe(note)}")
    next_step(console, folder)


def _models(result: TransferResult) -> Table:
    title = f"{TITLES[result.outcome]} without steering"
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), title=title, title_justify="left")
    table.add_column("model", overflow="fold")
    table.add_column("block", overflow="fold")
    for name in ("width", "length of v", "base", "tuned"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, model in result.models.items():
        outcomes = (value(result.outcome, each) for each in (model.base_outcome, model.tuned_outcome))
        table.add_row(safe(name), safe(model.block), str(model.width), figure(model.norm), *outcomes)
    return table


def _maps(result: TransferResult) -> Table:
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("map", overflow="fold")
    for name in ("R2 held out", "R2 shuffled", "cosine", "random |cosine|", "effective rank", "length", "KL stitched"):
        table.add_column(name, justify="right", no_wrap=True)
    for found in result.maps:
        figures = (found.r2, found.r2_shuffled, found.cosine, found.random_cosine, found.effective_rank)
        lengths = (figure(found.norm_ratio, 2), figure(found.kl, 2))
        table.add_row(
            safe(f"{found.source} to {found.target}, {found.map}"), *(figure(x, 2) for x in figures), *lengths
        )
    return table


def _matrix(result: TransferResult, way: str) -> Table:
    by = title_of(result, way)
    title = safe(f"effect on {TITLES[result.outcome]}, from rows to columns, by {by}; own direction on the diagonal")
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), title=title, title_justify="left")
    table.add_column("from", overflow="fold")
    for name in (*result.models, "gives"):
        table.add_column(safe(name), justify="right")
    routes, roles = matrix(result, way), {role.model: role for role in result.roles if role.way == way}
    for source in result.models:
        cells = [routes[source, target] for target in result.models]
        shown = [f"{value(result.outcome, cell.effect)}\n{WORDS[cell.verdict]}" for cell in cells]
        table.add_row(safe(source), *shown, value(result.outcome, roles[source].donor))
    table.add_row("takes", *(value(result.outcome, roles[name].receiver) for name in result.models), "")
    return table
