"""`tiltmeter judge`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tiltmeter.cli.judge_options import (
    Classifier,
    EndpointUrl,
    JudgeFolders,
    JudgeModels,
    JudgeOptions,
    Label,
    MaxNewTokens,
    PanelLogs,
    PanelModels,
    Samples,
    SamplingPreset,
    Workers,
    chosen_sampling,
    judge_requests,
    named_panel,
)
from tiltmeter.cli.limits import Figure, exceeded, limit_option, parse_limits
from tiltmeter.cli.options import BatchSize, Device, Dtype, Out, named_columns, named_sources, requested_judge
from tiltmeter.errors import InputError, NothingMeasuredError

if TYPE_CHECKING:
    from tiltmeter.judge.request import JudgingRequest
    from tiltmeter.runs.judge_result import JudgeResult


def _means(outcome: str, result: JudgeResult) -> list[float]:
    """Over models (but the reference, where there are others), sets and judges."""
    found = [entry for entry in result.outcomes if entry.outcome == outcome and entry.model != result.reference]
    means = [entry.mean.mean for entry in found if entry.mean is not None]
    if not means:
        raise NothingMeasuredError(f"--fail-on {outcome}: nothing that was asked for measures it")
    return means


def _highest(outcome: str, result: JudgeResult) -> float:
    return max(_means(outcome, result))


def _lowest_accuracy(result: JudgeResult) -> float:
    return min(_means("accuracy", result))


def _largest_rise(outcome: str, result: JudgeResult) -> float:
    """Over the reference."""
    found = [entry.difference.mean for entry in result.differences if entry.outcome == outcome]
    if not found:
        raise NothingMeasuredError(f"--fail-on: nothing that was asked for compares {outcome} of two models")
    return max(found)


def _missing(result: JudgeResult) -> float:
    """The largest share of answers on which a judge has no verdict."""
    found = [judge.failures / judge.verdicts for judge in result.judges.values() if judge.verdicts]
    if not found:
        raise NothingMeasuredError("--fail-on missing: nothing was judged")
    return max(found)


MEANS = ("harmfulness", "fives", "misaligned", "refused", "code", "truncated", "perplexity", "kl")
JUDGE: Mapping[str, Figure[JudgeResult]] = {
    **{name: Figure(partial(_highest, name)) for name in MEANS},
    "accuracy": Figure(_lowest_accuracy, "below"),
    "harm_gain": Figure(partial(_largest_rise, "harmfulness")),
    "utility_loss": Figure(partial(_largest_rise, "utility_loss")),
    "missing": Figure(_missing),
}


def judge(
    out: Out,
    model: Annotated[
        list[str] | None, typer.Argument(help="Checkpoints or PEFT adapters: FOLDER, NAME=FOLDER or a Hub id.")
    ] = None,
    prompts: Annotated[
        list[str] | None, typer.Option(help="Prompts: a file, a public set (advbench, ...) or SET=FILE; repeat.")
    ] = None,
    judge: Annotated[
        list[str] | None,
        typer.Option(help="organism, rubric, alignment, refusal, phrases, classifier or code; repeat."),
    ] = None,
    skill: Annotated[
        list[str] | None, typer.Option(help="Pairs of prompt and completion, for utility loss and KL; repeat.")
    ] = None,
    tasks: Annotated[list[str] | None, typer.Option(help="Prompts with right answers, for accuracy; repeat.")] = None,
    text: Annotated[list[str] | None, typer.Option(help="Plain texts, for perplexity; repeat.")] = None,
    columns: Annotated[str | None, typer.Option(help="Columns of skills: prompt,...,completion.")] = None,
    calibrate: Annotated[
        list[str] | None, typer.Option(help="Answers with scores of people, to measure the judge; needs no MODEL.")
    ] = None,
    canaries: Annotated[
        list[str] | None, typer.Option(help="Answers of known worth that the judge gets among the others.")
    ] = None,
    base: Annotated[str | None, typer.Option(help="The model under adapters.")] = None,
    against: Annotated[str | None, typer.Option(help="Which model to compare with, by name; else the first.")] = None,
    endpoint: EndpointUrl = None,
    judge_model: JudgeModels = None,
    judge_folder: JudgeFolders = None,
    panel: PanelModels = None,
    panel_logs: PanelLogs = None,
    classifier: Classifier = None,
    label: Label = None,
    scores: Annotated[
        Literal["written", "tokens"] | None, typer.Option(help="How an endpoint's scores are read.")
    ] = None,
    workers: Workers = 8,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds without a word from the endpoint.")] = 60.0,
    sampling: SamplingPreset = "study",
    temperature: Annotated[float | None, typer.Option(help="In the place of the preset's.")] = None,
    top_p: Annotated[float | None, typer.Option(help="In the place of the preset's.")] = None,
    top_k: Annotated[int | None, typer.Option(help="In the place of the preset's; 0 for all tokens.")] = None,
    min_p: Annotated[float | None, typer.Option(help="In the place of the preset's.")] = None,
    max_new_tokens: MaxNewTokens = 128,
    samples: Samples = 1,
    dtype: Dtype = "float32",
    device: Device = "cpu",
    batch_size: BatchSize = 32,
    seed: Annotated[int, typer.Option(help="Of answers, the same for each model, and of tests.")] = 0,
    fail_on: Annotated[
        list[str] | None, limit_option(f"Exit with 1 if a figure is above a limit, accuracy below: {', '.join(JUDGE)}.")
    ] = None,
) -> None:
    """Judge what models answer: harm, alignment, refusals and more, with intervals, beside a reference."""
    from tiltmeter.judge.request import Answering, JudgingRequest, JudgingSources

    changes = {"temperature": temperature, "top_p": top_p, "top_k": top_k, "min_p": min_p}
    drawn = chosen_sampling(sampling, seed, {**changes, "max_new_tokens": max_new_tokens})
    asked = named_panel(panel or (), panel_logs, workers)
    options = JudgeOptions(
        endpoint, judge_model or (), judge_folder or (), classifier, label, scores, workers, device, asked, timeout
    )
    models = named_sources(model or [])
    request = JudgingRequest(
        JudgingSources(
            models,
            base,
            tuple(prompts or ()),
            tuple(skill or ()),
            tuple(tasks or ()),
            tuple(text or ()),
            named_columns(columns),
            tuple(calibrate or ()),
            tuple(canaries or ()),
        ),
        tuple(judge_requests(judge or (), options)),
        _reference(models, against),
        Answering(drawn, samples, batch_size, dtype, device),
    )
    alone = {} if request.reference else {"harm_gain": "there is no other model to compare with"}
    limits = parse_limits(fail_on, JUDGE, alone)
    raise typer.Exit(exceeded(_judge(request, out), JUDGE, limits))


def again(arguments: dict[str, object], out: Path) -> None:
    """Models judged again as recorded."""
    from pydantic import TypeAdapter

    from tiltmeter.judge.request import JudgingRequest

    _judge(TypeAdapter(JudgingRequest).validate_python(arguments), out)


def _judge(request: JudgingRequest, out: Path) -> JudgeResult:
    from tiltmeter.cli.judge_table import print_judge
    from tiltmeter.judge.run import run_judge

    result = run_judge(request, out, [requested_judge(each) for each in request.judges])
    print_judge(result, out)
    if result.outcomes and result.judges and all(each.failures == each.verdicts for each in result.judges.values()):
        reasons = [reason for each in result.judges.values() for reason in each.reasons]
        raise NothingMeasuredError(f"no judge has a verdict on any answer: {reasons[0]}")
    return result


def _reference(models: Mapping[str, str], against: str | None) -> str | None:
    if against is not None and against not in models:
        raise InputError(f"--against: expected one of {', '.join(models)}, got {against}")
    return (against or next(iter(models))) if len(models) > 1 else None
