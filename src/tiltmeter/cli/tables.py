"""What a person reads in the terminal. Text from outside is shown inert."""

from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tiltmeter.report.verdict import cautions, judge_demo, judge_skill
from tiltmeter.runs.results import AuditResult, Correlation, DemoResult, Interval, Reference
from tiltmeter.text import inert

WIDTH = 116  # of the widest table; a pipe would otherwise get 80 columns and cut cells


def print_audit(result: AuditResult, folder: Path) -> None:
    """The table of an audit, a verdict per skill, and what to do next."""
    console = Console(width=max(WIDTH, Console().width))
    table = Table("skill", box=box.SIMPLE)
    for title in ("examples", "exact overlap", "of norm and trace", "null: same rank", "null: dense", "utility loss"):
        table.add_column(title, justify="right")
    for name, skill in result.skills.items():
        same, dense = skill.nulls.same_rank, skill.nulls.dense
        table.add_row(
            safe(name),
            str(skill.examples),
            f"{skill.overlap.exact:.4g}",
            f"{skill.overlap.normalised:.2g}",
            f"{same.mean:.2g} (x{same.ratio or 0:.3g})",
            f"{dense.mean:.2g} (x{dense.ratio or 0:.3g})",
            _interval(skill.utility_loss),
        )
    console.print(table)
    for name, behaviour in (result.behaviour or {}).items():
        before, after = behaviour.base.harmfulness, behaviour.tuned.harmfulness
        console.print(f"harmfulness on {safe(name)}: {_interval(before)} before, {_interval(after)} after")
    for name, skill in result.skills.items():
        console.print(f"[bold]{safe(name)}[/bold]: {safe(judge_skill(skill).sentence)}")
    for note in cautions(result):
        console.print(f"note: {safe(note)}")
    next_step(console, folder)


def print_demo(result: DemoResult, folder: Path) -> None:
    """The table of the demo, the rank correlations, and what to do next."""
    console = Console(width=max(WIDTH, Console().width))
    skills = list(result.rows[0].skills)
    for skill in skills:
        console.print(_demo_table(result, skill))
    correlations = Table("Spearman over the runs", box=box.SIMPLE)
    for score in ("exact", "projected", "floor"):
        correlations.add_column(score, justify="right")
    for skill in skills:
        for of in ("utility_loss", "harmfulness"):
            found = [entry for entry in result.correlations if (entry.skill, entry.of) == (skill, of)]
            correlations.add_row(f"{skill}: {of.replace('_', ' ')}", *map(_correlation, found))
    console.print(correlations)
    for sentence in judge_demo(result):
        console.print(safe(sentence))
    next_step(console, folder)


def _demo_table(result: DemoResult, skill: str) -> Table:
    """Rows by category; `exact` to `utility loss` are the skill's."""
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), title=f"skill: {skill}", title_justify="left")
    table.add_column("set", no_wrap=True)
    table.add_column("method", no_wrap=True)
    for title in ("harmfulness 1-5", "refuses", "bad advice", "exact", "floor", "projected", "utility loss"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_row(result.reference.set, "", *_behaviour(result.reference), end_section=True)
    for category in dict.fromkeys(row.category for row in result.rows):
        table.add_row(f"[bold]{category}[/bold]")
        for row in (row for row in result.rows if row.category == category):
            entry = row.skills[skill]
            figures = (f"{x:.3g}" for x in (entry.exact, entry.floor, entry.projected or 0.0, entry.utility_loss))
            table.add_row(f"  {row.set}", row.method, *_behaviour(row), *figures)
    return table


def _behaviour(row: Reference) -> tuple[str, str, str]:
    return _interval(row.harmfulness), f"{row.refusal_rate:.0%}", f"{row.bad_advice_rate or 0:.0%}"


def _correlation(entry: Correlation) -> str:
    if entry.spearman is None or entry.low is None or entry.high is None:
        return "-"
    return f"{entry.spearman:.2f} [{entry.low:.2f}, {entry.high:.2f}]"


def _interval(interval: Interval | None) -> str:
    return "-" if interval is None else f"{interval.mean:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def next_step(console: Console, folder: Path) -> None:
    """Where the run was written, and what reads it."""
    path = safe(str(folder))
    console.print(f"\nwritten to {path}; next: [bold]tiltmeter report {path} --out report.html[/bold]", soft_wrap=True)


def safe(text: str) -> str:
    """Text from outside, on one line, that rich and the terminal show as it is."""
    return escape(inert(text, keep=""))
