"""What a person reads of a forecast in the terminal. Text from outside is shown inert."""

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from tiltmeter.cli.tables import WIDTH, next_step, safe
from tiltmeter.report.forecast_verdict import (
    Outlook,
    forecast_cautions,
    judge_forecast,
    leading,
    outlooks,
    plan_sentence,
    steps,
)
from tiltmeter.runs.forecast_result import ForecastResult

WIDE = WIDTH + 10  # with the column of a roll-out
LONGEST = 18  # name of a data set that is not broken
COLUMNS = (
    "utility loss\nat the end",
    "alarm\nat step",
    "by 1st\norder",
    "eps. relative\n(random)",
    "gamma",
    "order that\nleads then",
    "trusted\nto step",
)


def print_forecast(result: ForecastResult, folder: Path) -> None:
    """A table per skill, the most harmful data set first, a verdict per skill, and what to do next."""
    console = Console(width=max(WIDE, Console().width))
    console.print(f"planned: {safe(plan_sentence(result.plan))}")
    for skill in result.skills:
        console.print(_table(skill, outlooks(result, skill)))
    for skill in result.skills:
        console.print(f"[bold]{safe(skill)}[/bold]: {safe(judge_forecast(result, skill).sentence)}")
    for note in [*forecast_cautions(result), *result.warnings]:
        console.print(f"note: {safe(note)}")
    next_step(console, folder)


def _table(skill: str, sets: list[Outlook]) -> Table:
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), title=f"skill: {safe(skill)}", title_justify="left")
    table.add_column("data set", overflow="fold", min_width=min(LONGEST, max(len(each.name) for each in sets)))
    rolled = [f"rolled out\nto {steps(sets[0].rolled[-1].step)}"] if sets[0].rolled else []
    for title in (*COLUMNS, *rolled):
        table.add_column(title, justify="right", no_wrap=True)
    for each in sets:
        table.add_row(safe(each.name), *_row(each))
    return table


def _row(each: Outlook) -> list[str]:
    end, figures = each.end, each.figures
    cells = [
        f"{end.mean:.3f} [{end.low:.3f}, {end.high:.3f}]",
        each.alarm,
        f"{each.first_order.mean:.3f}",
        f"{figures.epsilon_relative:.2g} ({figures.epsilon_random:.2g})",
        f"{figures.gamma:.2g}",
        leading(figures, each.plan).replace("second", "2nd").replace("first", "1st"),
        each.trust,
        *(f"{point.loss.mean:.3f}" for point in each.rolled[-1:]),
    ]
    return [safe(cell) for cell in cells]
