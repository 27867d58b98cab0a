"""What a comparison says in the terminal."""

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from tiltmeter.cli.tables import WIDTH, next_step, safe
from tiltmeter.runs.compare_result import CompareResult, FigureRecord

SHOWN = ("cosine", "overlap_left", "overlap_right", "angle_left", "angle_right")


def print_compare(result: CompareResult, folder: Path) -> None:
    """A row per pair and what to do next."""
    console = Console(width=max(WIDTH, Console().width))
    table = Table("pair", box=box.SIMPLE)
    for figure in SHOWN:
        table.add_column(figure.replace("_", " "), justify="right")
    for pair in result.pairs:
        cells = [_cell(pair.figures[figure]) if figure in pair.figures else "-" for figure in SHOWN]
        table.add_row(safe(f"{pair.one} / {pair.two}"), *cells)
    console.print(table)
    for note in result.warnings:
        console.print(f"note: {safe(note)}")
    next_step(console, folder)


def _cell(figure: FigureRecord) -> str:
    null = figure.shared_initialisation if figure.reference == "shared_initialisation" else figure.same_spectrum
    return f"{figure.value:.3g} ({null.mean:.3g}, x{figure.ratio or 0:.3g})" if null else f"{figure.value:.3g}"
