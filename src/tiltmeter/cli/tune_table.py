"""What a person reads in the terminal of a fine-tune."""

import logging
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from tiltmeter.cli.tables import WIDTH, next_step, safe
from tiltmeter.report.tune import describe, describe_guards, judgements, summary
from tiltmeter.report.wording import span
from tiltmeter.runs.tune_result import TuneResult
from tiltmeter.text import inert


def print_tune(result: TuneResult, folder: Path) -> None:
    """A table of the data, what was done, and what to do next."""
    console = Console(width=max(WIDTH, Console().width))
    console.print(_data(result))
    console.print(safe(summary(result)))
    console.print(safe(describe(result)))
    for judgement in judgements(result):
        console.print(f"[bold]{safe(judgement.word)}[/bold]. {safe(judgement.sentence)}")
    for guard in describe_guards(result):
        console.print(f"guard {safe(guard)}")
    for warning in result.warnings:
        console.print(f"note: {safe(warning)}")
    next_step(console, folder)
    _what_measures_it(console, result, folder)


def _what_measures_it(console: Console, result: TuneResult, folder: Path) -> None:
    base = safe(next(given.path for given in result.inputs if given.role == "base"))
    model = safe(str(folder / result.model))
    for purpose, command in (
        ("measure", f"tiltmeter audit {base} {model} --skill FILE --out DIR"),
        ("judge", f"tiltmeter judge {model} --base {base} --prompts FILE --judge NAME --out DIR"),
    ):
        console.print(f"to {purpose} it: [bold]{command}[/bold]", soft_wrap=True)


def ended(result: TuneResult) -> int:
    """1 where a limit ended the training, else 0; prints which."""
    if result.watched is None or not result.watched.ended_by_limit:
        return 0
    for alarm in result.watched.alarms:
        text = f"step {alarm.step}: {alarm.figure} of {alarm.skill} is {alarm.value:.4g}, above {alarm.limit:g}"
        Console(stderr=True).print(f"[red]the training was ended by a limit: {safe(text)}[/red]", soft_wrap=True)
    return 1


def warn_inert() -> None:
    """Warnings while it trains go to the terminal, with text from outside made safe."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Inert("tiltmeter: %(message)s"))
    logger = logging.getLogger("tiltmeter")
    logger.handlers = [handler]
    logger.propagate = False


class _Inert(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return inert(super().format(record), keep="")


def _data(result: TuneResult) -> Table:
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("data", overflow="fold")
    for title in ("examples", "tokens", "cut", "loss before", "loss after", "change"):
        table.add_column(title, justify="right", no_wrap=True)
    for name, data in result.data.items():
        counts = (str(data.examples), str(data.tokens), str(data.truncated))
        table.add_row(safe(name), *counts, *map(span, (data.before, data.after, data.change)))
    return table
