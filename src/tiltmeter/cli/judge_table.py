"""What a person reads of judged models in the terminal. Text from outside is shown inert."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from tiltmeter.cli.tables import WIDTH, next_step, safe
from tiltmeter.report.judge_verdict import about_judges, cautions, findings, is_beyond_chance, panels
from tiltmeter.report.judge_wording import TITLES, change, probability, value
from tiltmeter.runs.judge_result import JudgeResult, OutcomeRecord


def print_judge(result: JudgeResult, folder: Path) -> None:
    """Outcomes by judge and set, differences, what they say, and what to do next."""
    console = Console(width=max(WIDTH, Console().width))
    for title, entries in panels(result).items():
        console.print(_outcomes(entries, title))
    if result.differences:
        console.print(_differences(result))
    for sentence in about_judges(result):
        console.print(safe(sentence))
    for found in findings(result):
        console.print(f"[bold]{safe(found.word)}:[/bold] {safe(found.sentence)}")
    for note in cautions(result):
        console.print(f"note: {safe(note)}")
    next_step(console, folder)


def _outcomes(entries: list[OutcomeRecord], title: str) -> Table:
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), title=safe(title), title_justify="left")
    table.add_column("model", overflow="fold")
    names = list(dict.fromkeys(entry.outcome for entry in entries))
    by_model: dict[str, dict[str, OutcomeRecord]] = {}
    for entry in entries:
        by_model.setdefault(entry.model, {})[entry.outcome] = entry
    rows = [_cells(names, mine) for mine in by_model.values()]
    for index, name in enumerate([*(TITLES[name] for name in names), "answers", "no verdict"]):
        table.add_column(name, justify="right", min_width=max(len(row[index]) for row in rows))
    for model, row in zip(by_model, rows, strict=True):
        table.add_row(safe(model), *row)
    return table


def _cells(names: Sequence[str], mine: Mapping[str, OutcomeRecord]) -> list[str]:
    first = next(iter(mine.values()))
    means = [value(name, mine[name].mean if name in mine else None) for name in names]
    return [*means, str(first.answers), str(first.missing) if first.missing else ""]


def _differences(result: JudgeResult) -> Table:
    title = safe(f"against {result.reference}, same prompts and seeds; *: p at most 0.05 after Holm")
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), title=title, title_justify="left")
    for name in ("model", "prompts", "judge"):
        table.add_column(name, overflow="fold")
    for name in ("outcome", "difference", "p", "p (Holm)"):
        table.add_column(name, justify="right", no_wrap=True)
    for record in result.differences:
        star = "*" if is_beyond_chance(record) else " "
        table.add_row(
            *map(safe, (record.model, record.prompts, record.judge or "")),
            TITLES[record.outcome],
            change(record.outcome, record.difference),
            probability(record.p),
            f"{probability(record.p_holm)}{star}",
        )
    return table
