"""`tiltmeter rank-examples`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tiltmeter.cli.options import BatchSize, Device, Dtype, MaxLength, Out, Reduction, named_columns

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from tiltmeter.runs.ranking_result import RankingResult, RiskyExample, SetRisk, SkillRisk

SHOWN = 240  # characters of a text in the terminal


def rank_examples(
    base: Annotated[str, typer.Argument(help="The model before fine-tuning: a folder or a Hub id.")],
    data: Annotated[list[str], typer.Option(help="Candidate examples: JSONL, CSV, Parquet or a Hub set.")],
    skill: Annotated[list[str], typer.Option(help="Pairs of prompt and completion, in the same formats.")],
    out: Out,
    harmful: Annotated[
        str | None, typer.Option(help="Harmful anchors: adds He et al.'s score; the skill is safe.")
    ] = None,
    columns: Annotated[str | None, typer.Option(help="Columns of all of them: prompt,...,completion.")] = None,
    by: Annotated[Literal["harm", "cosine"], typer.Option(help="The score that ranks.")] = "harm",
    worst: Annotated[int, typer.Option(min=0, help="Examples to show, the worst first.")] = 10,
    reduction: Reduction = "sum",
    dtype: Dtype = "float32",
    device: Device = "cpu",
    max_length: MaxLength = None,
    batch_size: BatchSize = 8,
    seed: Annotated[int, typer.Option(help="Of intervals.")] = 0,
) -> None:
    """Rank fine-tuning examples, before training, by what a step on each does to a skill."""
    from tiltmeter.before.ranking import RankingRequest, RankingSources, run_ranking
    from tiltmeter.requests import Passes

    sources = RankingSources(base, tuple(data), tuple(skill), harmful, named_columns(columns))
    passes = Passes(reduction=reduction, max_length=max_length, batch_size=batch_size)
    print_ranking(run_ranking(RankingRequest(sources, by, worst, dtype, device, passes, seed), out), out)


def again(arguments: dict[str, object], out: Path) -> None:
    """A recorded ranking done again."""
    from pydantic import TypeAdapter

    from tiltmeter.before.ranking import RankingRequest, run_ranking

    print_ranking(run_ranking(TypeAdapter(RankingRequest).validate_python(arguments), out), out)


def print_ranking(result: RankingResult, folder: Path) -> None:
    """A table of data sets and the worst examples for each skill, and what to do next."""
    from rich.console import Console

    from tiltmeter.cli.tables import WIDTH, next_step, safe
    from tiltmeter.report.ranking import describe, explain_null

    console = Console(width=max(WIDTH, Console().width))
    for name, figures in result.skills.items():
        console.print(_table(name, figures))
        for number, example in enumerate(figures.worst, start=1):
            _print_example(console, number, example)
        console.print(f"\n[bold]{safe(name)}[/bold]: {safe(describe(figures))}\n")
    console.print(safe(explain_null(result)))
    for warning in result.warnings:
        console.print(f"note: {safe(warning)}")
    next_step(console, folder)


def _table(name: str, figures: SkillRisk) -> Table:
    from rich import box
    from rich.table import Table

    from tiltmeter.cli.tables import safe

    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), title=f"skill: {safe(name)}", title_justify="left")
    table.add_column("data", overflow="fold")
    with_anchors = any(risk.matching for risk in figures.sets.values())
    titles = ["n", "mean harm", "null 95 %", "> 0", "over null", "cosine", "He et al. (null)"]
    for title in titles if with_anchors else titles[:-1]:
        table.add_column(title, justify="right", no_wrap=True)
    for data, risk in figures.sets.items():
        table.add_row(safe(data), *_cells(risk))
    return table


def _cells(risk: SetRisk) -> tuple[str, ...]:
    from tiltmeter.report.wording import figure, share, span

    matching = risk.matching
    return (
        str(risk.examples),
        span(risk.harm, 2),
        figure(risk.harm_null_p95, 2),
        share(risk.positive),
        share(risk.beyond_null),
        figure(risk.cosine.p50, 2),
        *([] if matching is None else [f"{figure(matching.mean.mean, 2)} ({figure(matching.null_p95, 2)})"]),
    )


def _print_example(console: Console, number: int, example: RiskyExample) -> None:
    from tiltmeter.cli.tables import safe
    from tiltmeter.report.wording import figure

    console.print(
        f"{number:3}. harm {figure(example.harm)}, cosine {figure(example.cosine)}: {safe(example.row)}", soft_wrap=True
    )
    for text in (example.prompt, example.completion):
        console.print(f"     {safe(_cut(text))}", soft_wrap=True)


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
