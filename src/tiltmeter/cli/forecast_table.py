"""What a person reads of a forecast in the terminal. Text from outside is shown inert."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from tiltmeter.cli.tables import WIDTH, next_step, safe
from tiltmeter.report.forecast_outlook import AnyOutlook, Outlook, outlooks, proxies, proxy_outlooks
from tiltmeter.report.forecast_verdict import forecast_cautions, judge_forecast, judge_proxy
from tiltmeter.report.forecast_wording import leading, plan_sentence, steps
from tiltmeter.runs.forecast_result import DataForecast, ForecastResult, ProxyForecast

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
PROXY_COLUMNS = ("gain\nat the end", "alarm\nat step", "trusted\nto step")


def print_forecast(result: ForecastResult, folder: Path) -> None:
    """A table per skill and proxy, the most harmful data set first, a verdict on each, and what to do next."""
    console = Console(width=max(WIDE, Console().width))
    console.print(f"planned: {safe(plan_sentence(result.plan))}")
    for skill in result.skills:
        sets = outlooks(result, skill)
        console.print(_table(f"skill: {skill}", COLUMNS, sets, map(_cells, sets)))
    for proxy in proxies(result):
        gains = proxy_outlooks(result, proxy)
        console.print(_table(f"proxy: {proxy}", PROXY_COLUMNS, gains, map(_proxy_cells, gains)))
    for skill in result.skills:
        console.print(f"[bold]{safe(skill)}[/bold]: {safe(judge_forecast(result, skill).sentence)}")
    for proxy in proxies(result):
        console.print(f"[bold]proxy {safe(proxy)}[/bold]: {safe(judge_proxy(result, proxy).sentence)}")
    for note in [*forecast_cautions(result), *result.warnings]:
        console.print(f"note: {safe(note)}")
    next_step(console, folder)


def _table(title: str, columns: Sequence[str], sets: Sequence[AnyOutlook], cells: Iterable[list[str]]) -> Table:
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), title=safe(title), title_justify="left")
    table.add_column("data set", overflow="fold", min_width=min(LONGEST, max(len(each.name) for each in sets)))
    rolled = [f"rolled out\nto {steps(sets[0].rolled[-1].step)}"] if sets[0].rolled else []
    for column in (*columns, *rolled):
        table.add_column(column, justify="right", no_wrap=True)
    for each, row in zip(sets, cells, strict=True):
        last = [f"{point.value.mean:.3f}" for point in each.rolled[-1:]]
        table.add_row(*(safe(cell) for cell in [each.name, *row, *last]))
    return table


def _cells(each: Outlook[DataForecast]) -> list[str]:
    figures = each.figures
    return [
        _end(each),
        each.alarm,
        f"{each.first_order.mean:.3f}",
        f"{figures.epsilon_relative:.2g} ({figures.epsilon_random:.2g})",
        f"{figures.gamma:.2g}",
        leading(figures, each.plan).replace("second", "2nd").replace("first", "1st"),
        each.trust,
    ]


def _proxy_cells(each: Outlook[ProxyForecast]) -> list[str]:
    return [_end(each), each.alarm, each.trust]


def _end(each: AnyOutlook) -> str:
    return f"{each.end.mean:.3f} [{each.end.low:.3f}, {each.end.high:.3f}]"
