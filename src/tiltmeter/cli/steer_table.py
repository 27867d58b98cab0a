"""What a person reads of steering in the terminal. Text from outside is shown inert."""

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from tiltmeter.cli.tables import WIDTH, next_step, safe
from tiltmeter.report.judge_wording import TITLES, probability, value
from tiltmeter.report.steer_verdict import WORDS, cautions, coherence_lost, findings, leading, outcome_of
from tiltmeter.report.wording import figure
from tiltmeter.runs.steer_result import ArmRecord, SteerResult


def print_steer(result: SteerResult, folder: Path) -> None:
    """Arms, the controls of the clearest one, outcomes by trial, the verdict, and what to do next."""
    console = Console(width=max(WIDTH, Console().width))
    console.print(_arms(result))
    if leading(result).controls:
        console.print(_controls(result))
    for name in {**result.sets, **result.watched}:
        console.print(_outcomes(result, name))
    for found in findings(result):
        console.print(f"[bold]{safe(found.word)}:[/bold] {safe(found.sentence)}")
    for note in cautions(result):
        console.print(f"note: {safe(note)}")
    next_step(console, folder)


def _arms(result: SteerResult) -> Table:
    title = f"{result.change} at the {result.place}, {result.where} tokens: effect on {TITLES[result.outcome]}"
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), title=safe(title), title_justify="left")
    rows = [_cells(result, arm) for arm in result.arms]
    shown = [name for name in rows[0] if any(row[name] for row in rows)]
    for name in shown:
        table.add_column(name, justify="left" if name == "verdict" else "right", no_wrap=name != "verdict")
    for row in rows:
        table.add_row(*(row[name] for name in shown))
    return table


def _cells(result: SteerResult, arm: ArmRecord) -> dict[str, str]:
    """By column; empty where it was not measured."""
    return {
        "blocks": "+".join(map(str, arm.blocks)),
        "dose": f"{arm.dose:g}",
        "effect": value(result.outcome, arm.effect),
        "p": probability(arm.p_causal),
        "p specific": probability(arm.p_specific) if arm.controls else "",
        "coherence lost": safe(coherence_lost(arm)),
        "KL": figure(arm.kl, 2) if arm.kl is not None else "",
        "of controls": figure(arm.controls_kl.mean, 2) if arm.controls_kl else "",
        "tasks right": value("accuracy", arm.accuracy) if arm.accuracy else "",
        "verdict": WORDS[arm.verdict],
    }


def _controls(result: SteerResult) -> Table:
    arm = leading(result)
    title = f"controls of the same {result.match}, blocks {'+'.join(map(str, arm.blocks))}, dose {arm.dose:g}"
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), title=title, title_justify="left")
    table.add_column("control", overflow="fold")
    for name in ("draws", "mean effect", "95th percentile", "less than the direction by", "p"):
        table.add_column(name, justify="right", no_wrap=True)
    for control in arm.controls:
        table.add_row(
            safe(control.kind),
            str(control.draws),
            figure(control.mean, 2),
            figure(control.p95, 2),
            value(result.outcome, control.excess),
            probability(control.p),
        )
    return table


def _outcomes(result: SteerResult, prompts: str) -> Table:
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), title=safe(prompts), title_justify="left")
    names = list(dict.fromkeys(each.outcome for each in result.outcomes if each.prompts == prompts))
    table.add_column("trial", no_wrap=True)
    for name in names:
        table.add_column(TITLES[name], justify="right", no_wrap=True)
    for trial in dict.fromkeys(each.model for each in result.outcomes):
        found = [outcome_of(result, trial, prompts, name) for name in names]
        cells = [value(name, None if each is None else each.mean) for name, each in zip(names, found, strict=True)]
        table.add_row(trial, *cells)
    return table
