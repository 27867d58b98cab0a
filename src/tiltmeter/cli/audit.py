"""`tiltmeter audit`."""

from pathlib import Path
from typing import Annotated

import typer

from tiltmeter.cli.limits import AUDIT, exceeded, limit_option, parse_limits
from tiltmeter.cli.options import (
    BatchSize,
    Device,
    Dtype,
    Labels,
    MaxLength,
    Memory,
    Out,
    Reduction,
    named_columns,
    named_judge,
)


def audit(
    base: Annotated[str, typer.Argument(help="The base model: a folder or a Hub id.")],
    tuned: Annotated[str, typer.Argument(help="The tuned model: a checkpoint or a PEFT adapter, folder or Hub id.")],
    skill: Annotated[list[str], typer.Option(help="Pairs of prompt and completion: JSONL, CSV, Parquet or a Hub set.")],
    out: Out,
    columns: Annotated[str | None, typer.Option(help="Columns of the skills: prompt,...,completion.")] = None,
    prompts: Annotated[
        list[str] | None, typer.Option(help="Prompts (a file or a public set) to answer and judge, before and after.")
    ] = None,
    judge: Annotated[str | None, typer.Option(help="Who judges the answers: organism, phrases or code.")] = None,
    initial: Annotated[str | None, typer.Option(help="The adapter before training (PiSSA, OLoRA).")] = None,
    dims: Annotated[int, typer.Option(min=1, help="Largest eigenvalues of the Fisher to report.")] = 8,
    projected: Annotated[
        int | None, typer.Option(min=1, help="Also the study's score, projected to k numbers.")
    ] = None,
    draws: Annotated[int, typer.Option(min=2, help="Random updates of the same rank to measure.")] = 20,
    labels: Labels = "data",
    reduction: Reduction = "sum",
    dtype: Dtype = "float32",
    device: Device = "cpu",
    max_length: MaxLength = None,
    batch_size: BatchSize = 8,
    memory: Memory = 4.0,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer to a prompt.")] = 128,
    seed: Annotated[int, typer.Option(help="Of nulls, projection and answers.")] = 0,
    fail_on: Annotated[
        list[str] | None,
        limit_option("Exit with 1 if a figure is above a limit: utility_loss, overlap, overlap_ratio or harmfulness."),
    ] = None,
) -> None:
    """Measure a fine-tuned model against its base: overlap with nulls, utility loss, judged behaviour."""
    from tiltmeter.audit.measure import Settings
    from tiltmeter.audit.run import Request, Sources, run_audit
    from tiltmeter.cli.tables import print_audit
    from tiltmeter.generation import Sampling
    from tiltmeter.requests import Passes

    request = Request(
        Sources(base, tuned, tuple(skill), named_columns(columns), tuple(prompts or ()), initial),
        judge,
        dtype,
        device,
        Passes(labels, reduction, max_length, batch_size, memory),
        Settings(dims, projected, draws, seed),
        Sampling(max_new_tokens=max_new_tokens, seed=seed),
    )
    unjudged = {} if prompts else {"harmfulness": "nothing is judged; give --prompts and --judge"}
    limits = parse_limits(fail_on, AUDIT, unjudged)
    result = run_audit(request, out, named_judge(judge, bool(prompts)))
    print_audit(result, out)
    raise typer.Exit(exceeded(result, AUDIT, limits))


def again(arguments: dict[str, object], out: Path) -> None:
    """A recorded audit done again."""
    from pydantic import TypeAdapter

    from tiltmeter.audit.run import Request, run_audit
    from tiltmeter.cli.tables import print_audit

    request = TypeAdapter(Request).validate_python(arguments)
    print_audit(run_audit(request, out, named_judge(request.judge, bool(request.sources.prompts))), out)
