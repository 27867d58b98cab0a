"""What a person reads of a comparison in the terminal. Text from outside is shown inert."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from tiltmeter.cli.tables import WIDTH, next_step, safe
from tiltmeter.report.compare_pairs import (
    MAIN,
    base_pairs,
    is_angle,
    is_beyond,
    ordered_updates,
    origins,
    reference,
    update_pairs,
)
from tiltmeter.report.compare_verdict import explain_nulls, explain_p, findings
from tiltmeter.report.compare_wording import group_name, joined
from tiltmeter.report.wording import figure, times
from tiltmeter.runs.compare_result import CompareResult, Figure, GroupRecord, PairRecord

SHOWN = 20  # pairs
HEADS = (
    "cosine\n(x null)",
    "overlap left\n(x null)",
    "overlap right\n(x null)",
    "angle left\n(null)",
    "angle right\n(null)",
)


def print_compare(result: CompareResult, folder: Path) -> None:
    """The updates, the most similar pairs, the groups, a sentence or two per kind of finding, and what to do next."""
    console = Console(width=max(WIDTH, Console().width))
    console.print(_updates(result))
    pairs = update_pairs(result)
    if pairs:
        console.print(_pairs("pairs, most similar beyond chance first", {joined(pair): pair for pair in pairs[:SHOWN]}))
    if len(pairs) > SHOWN:
        console.print(
            f"and {len(pairs) - SHOWN} more pairs, less similar; all are in the run folder and in its report\n"
        )
    if base := base_pairs(result):
        console.print(_pairs("against the base's own weights", {pair.one: pair for pair in base[:SHOWN]}))
    if result.group_pairs:
        console.print(_groups(result.group_pairs))
    console.print("null: its mean; angles in degrees; *: p at most 0.05, not corrected for the number of pairs\n")
    for found in findings(result):
        console.print(f"[bold]{safe(found.about)}: {safe(found.word)}.[/bold] {safe(found.sentence)}")
    console.print(safe(f"{explain_nulls(result)} {explain_p(result)}"))
    for note in result.warnings:
        console.print(f"note: {safe(note)}")
    next_step(console, folder)


def _table(title: str, first: str) -> Table:
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), title=title, title_justify="left")
    table.add_column(first, overflow="fold")
    return table


def _updates(result: CompareResult) -> Table:
    """In the order of their clustering; a letter says whose A has a common origin."""
    order = " (similar ones beside each other)" if result.ordering else ""
    table = _table(f"updates{order}", "update")
    sets = origins(update_pairs(result))
    for title in ("kind", "group", "shares A in"):
        table.add_column(title, overflow="fold")
    for title in ("norm", "modules", "ranks"):
        table.add_column(title, justify="right", no_wrap=True)
    for name in ordered_updates(result):
        groups = [group for group, members in result.groups.items() if name in members]
        number = next((f"set {n}" for n, each in enumerate(sets, start=1) if name in each), "")
        table.add_row(*map(safe, [name, result.updates[name].kind, ", ".join(groups), number]), *_facts(result, name))
    return table


def _facts(result: CompareResult, name: str) -> list[str]:
    update = result.updates[name]
    low, high = update.ranks
    return [figure(update.norm), str(update.modules), str(low) if low == high else f"{low} to {high}"]


def _pairs(title: str, pairs: Mapping[str, PairRecord]) -> Table:
    table = _table(title, "pair")
    for head in (*HEADS, "row spaces\nof A"):
        table.add_column(head, justify="right", no_wrap=True)
    for name, pair in pairs.items():
        rows = pair.row_spaces
        overlap = "" if rows is None else f"{rows.overlap:.2f}{' shared' if rows.shared else ''}"
        table.add_row(safe(name), *(_cell(pair, each) for each in MAIN), overlap)
    return table


def _cell(pair: PairRecord, which: Figure) -> str:
    found = pair.figures[which]
    star = "*" if is_beyond(pair, which) else " "
    return f"{_figure(which, found.value, reference(found).mean, found.ratio)}{star}"


def _figure(which: Figure, value: float, null: float, ratio: float | None) -> str:
    return f"{value:.1f} ({null:.1f})" if is_angle(which) else f"{value:#.2g} ({times(ratio)})"


def _groups(groups: Sequence[GroupRecord]) -> Table:
    table = _table("groups, means over pairs", "groups")
    table.add_column("pairs", justify="right", no_wrap=True)
    table.add_column("share A", justify="right", no_wrap=True)
    for head in HEADS:
        table.add_column(head, justify="right", no_wrap=True)
    for group in groups:
        found = [(each, group.figures[each]) for each in MAIN]
        cells = (_figure(which, each.mean, each.null, each.ratio) for which, each in found)
        table.add_row(safe(group_name(group)), str(group.pairs), str(group.shared), *cells)
    return table
