"""`tiltmeter spectrum`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tiltmeter.cli.options import BatchSize, Device, Dtype, MaxLength, Memory, Out, Reduction, named_columns

if TYPE_CHECKING:
    from pathlib import Path

    from rich.table import Table

    from tiltmeter.runs.spectrum_result import SkillSpectrum, SpectrumResult


def spectrum(
    base: Annotated[str, typer.Argument(help="The model at which the curvature is taken: a folder or a Hub id.")],
    skill: Annotated[list[str], typer.Option(help="Pairs of prompt and completion: JSONL, CSV, Parquet or a Hub set.")],
    out: Out,
    against: Annotated[
        list[str] | None, typer.Option(help="Checkpoints or PEFT adapters of the base, in the order of training.")
    ] = None,
    dims: Annotated[int, typer.Option(min=1, help="d, the number of leading directions.")] = 8,
    draws: Annotated[int, typer.Option(min=1, help="Random texts of each kind to measure.")] = 3,
    columns: Annotated[str | None, typer.Option(help="Columns of the skills: prompt,...,completion.")] = None,
    reduction: Reduction = "sum",
    dtype: Dtype = "float32",
    device: Device = "cpu",
    max_length: MaxLength = None,
    batch_size: BatchSize = 8,
    memory: Memory = 4.0,
    seed: Annotated[int, typer.Option(help="Of random texts, sampled completions and sub-samples.")] = 0,
) -> None:
    """Measure how concentrated a skill's curvature is, and how it turns along fine-tuning."""
    from tiltmeter.before.spectrum import SpectrumRequest, SpectrumSources, run_spectrum
    from tiltmeter.requests import Passes

    sources = SpectrumSources(base, tuple(skill), tuple(against or ()), named_columns(columns))
    passes = Passes("data", reduction, max_length, batch_size, memory)
    request = SpectrumRequest(sources, dims, draws, dtype, device, passes, seed)
    print_spectrum(run_spectrum(request, out), out)


def again(arguments: dict[str, object], out: Path) -> None:
    """A recorded spectrum done again."""
    from pydantic import TypeAdapter

    from tiltmeter.before.spectrum import SpectrumRequest, run_spectrum

    print_spectrum(run_spectrum(TypeAdapter(SpectrumRequest).validate_python(arguments), out), out)


def print_spectrum(result: SpectrumResult, folder: Path) -> None:
    """A table of each skill beside its nulls, its rotation, a verdict, and what to do next."""
    from rich.console import Console

    from tiltmeter.cli.tables import WIDTH, next_step, safe
    from tiltmeter.report.spectrum_verdict import describe, explain_nulls, judge_spectrum

    console = Console(width=max(WIDTH, Console().width))
    for name, skill in result.skills.items():
        console.print(_texts(name, skill, result.dims))
        if skill.rotations:
            console.print(_rotations(skill))
        verdict = judge_spectrum(skill, result.dims)
        console.print(f"[bold]{safe(name)}: {safe(verdict.word)}.[/bold] {safe(verdict.sentence)}")
        for sentence in describe(skill, result.dims):
            console.print(safe(sentence))
    console.print(safe(explain_nulls(result)))
    for warning in result.warnings:
        console.print(f"note: {safe(warning)}")
    next_step(console, folder)


def _texts(name: str, skill: SkillSpectrum, dims: int) -> Table:
    from rich import box
    from rich.table import Table

    from tiltmeter.cli.tables import safe
    from tiltmeter.report.wording import figure, span

    table = Table(box=box.SIMPLE, title=f"skill: {safe(name)}, {skill.examples} examples", title_justify="left")
    table.add_column("text", no_wrap=True)
    for title in (f"share of top {dims}", "participation ratio", "at equal lengths", "lambda_1", "trace"):
        table.add_column(title, justify="right", no_wrap=True)
    for text, shape in {"the skill": skill.data, "sampled completions": skill.sampled, **skill.nulls}.items():
        intervals = (shape.top_share, shape.participation_ratio, shape.equalised_participation_ratio)
        table.add_row(safe(text), *map(span, intervals), figure(shape.lambda_1), figure(shape.trace))
    return table


def _rotations(skill: SkillSpectrum) -> Table:
    from rich import box
    from rich.table import Table

    from tiltmeter.cli.tables import safe
    from tiltmeter.report.wording import figure, span

    table = Table(box=box.SIMPLE, title="rotation", title_justify="left")
    for title in ("checkpoint", "sin(largest angle)", "overlap", "Davis-Kahan bound"):
        table.add_column(title)
    for row in skill.rotations:
        found = row.turned
        cells = ("-", "-", "-") if found is None else (figure(found.sine), figure(found.overlap), _bound(found.bound))
        table.add_row(safe(row.checkpoint), *map(safe, cells))
    if skill.split is not None:
        table.add_row("null: halves of the skill", span(skill.split.sine), span(skill.split.overlap), "")
    return table


def _bound(bound: float | None) -> str:
    from tiltmeter.report.wording import figure

    return "no gap" if bound is None else f"{figure(bound)} ({'informative' if bound < 1 else 'vacuous'})"
