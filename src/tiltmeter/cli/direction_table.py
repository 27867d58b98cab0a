"""What a person reads of a direction in the terminal. Text from outside is shown inert."""

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from tiltmeter.cli.tables import WIDTH, next_step, safe
from tiltmeter.report.direction_verdict import cautions, findings
from tiltmeter.report.wording import figure, span
from tiltmeter.runs.direction_result import DirectionResult, MeansSeparated


def print_direction(result: DirectionResult, folder: Path) -> None:
    """Separability by block, beside other fine-tunes, what it says, and what to do next."""
    console = Console(width=max(WIDTH, Console().width))
    console.print(_blocks(result))
    for found in findings(result):
        console.print(f"[bold]{safe(found.word)}:[/bold] {safe(found.sentence)}")
    for note in cautions(result):
        console.print(f"note: {safe(note)}")
    console.print(f"\ndirection: {safe(str(folder / result.files[0]))}", soft_wrap=True)
    next_step(console, folder)


def _blocks(result: DirectionResult) -> Table:
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("block", overflow="fold")
    table.add_column("fine-tune", overflow="fold")
    for title in ("shift", "in sample", "held out", "AUROC", "d'", "p", "cosine"):
        table.add_column(title, justify="right", no_wrap=True)
    for block in result.blocks:
        table.add_row(safe(block.block), "tuned", *_cells(block.tuned), "", end_section=not block.beside)
        for index, (name, other) in enumerate(block.beside.items(), start=1):
            cosine = figure(other.cosine, 2)
            table.add_row("", safe(name), *_cells(other.separated), cosine, end_section=index == len(block.beside))
    return table


def _cells(found: MeansSeparated) -> tuple[str, ...]:
    return (
        figure(found.norm),
        figure(found.in_sample, 2),
        span(found.held_out, 2),
        span(found.auroc, 2),
        figure(found.d_prime, 2),
        figure(found.p, 2),
    )
