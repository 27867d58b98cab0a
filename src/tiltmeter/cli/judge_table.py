"""What a person reads of judged models in the terminal. Text from outside is shown inert."""

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from tiltmeter.cli.tables import WIDTH, next_step, safe
from tiltmeter.report.judge_verdict import by_judge_and_set, cautions, findings, is_beyond_chance
from tiltmeter.report.judge_wording import TITLES, change, probability, value
from tiltmeter.runs.judge_result import JudgeResult, OutcomeRecord


def print_judge(result: JudgeResult, folder: Path) -> None:
    """Outcomes by judge and set, differences, what they say, and what to do next."""
    console = Console(width=max(WIDTH, Console().width))
    for (judge, prompts), entries in by_judge_and_set(result).items():
        console.print(_outcomes(entries, f"{prompts}, by {judge}"))
    if result.differences:
        console.print(_differences(result))
    for found in findings(result):
        console.print(f"[bold]{safe(found.tag)}:[/bold] {safe(found.sentence)}")
    for note in cautions(result):
        console.print(f"note: {safe(note)}")
    next_step(console, folder)


def _outcomes(entries: list[OutcomeRecord], title: str) -> Table:
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), title=safe(title), title_justify="left")
    table.add_column("model", overflow="fold")
    names = list(dict.fromkeys(entry.outcome for entry in entries))
    for name in [*(TITLES[name] for name in names), "answers", "no verdict"]:
        table.add_column(name, justify="right")
    for model in dict.fromkeys(entry.model for entry in entries):
        mine = {entry.outcome: entry for entry in entries if entry.model == model}
        first = next(iter(mine.values()))
        cells = [value(name, mine[name].mean) for name in names]
        table.add_row(safe(model), *cells, str(first.answers), str(first.missing))
    return table


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
