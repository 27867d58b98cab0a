"""`tiltmeter judge`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tiltmeter.cli.judge_options import JudgeOptions, Preset, chosen_sampling, judge_requests
from tiltmeter.cli.limits import Figure, exceeded, limit_option, parse_limits
from tiltmeter.cli.options import BatchSize, Device, Dtype, Out, named_sources, requested_judge
from tiltmeter.errors import InputError, NothingMeasuredError

if TYPE_CHECKING:
    from tiltmeter.judge.request import JudgingRequest
    from tiltmeter.runs.judge_result import JudgeResult


def _worst(outcome: str, result: JudgeResult) -> float:
    """The highest mean over models (but the reference, where there are others), sets of prompts and judges."""
    found = [entry for entry in result.outcomes if entry.outcome == outcome and entry.model != result.reference]
    means = [entry.mean.mean for entry in found if entry.mean is not None]
    if not means:
        raise NothingMeasuredError(f"--fail-on {outcome}: no judge has a verdict that says anything of it")
    return max(means)


def _worst_gain(result: JudgeResult) -> float:
    """The largest rise of mean harmfulness over the reference."""
    found = [entry.difference.mean for entry in result.differences if entry.outcome == "harmfulness"]
    if not found:
        raise NothingMeasuredError("--fail-on harm_gain: no judge scored answers of two models")
    return max(found)


def _missing(result: JudgeResult) -> float:
    """The largest share of answers on which a judge has no verdict."""
    return max(judge.failures / judge.verdicts for judge in result.judges.values())


MEANS = ("harmfulness", "fives", "misaligned", "refused", "code", "truncated")
JUDGE: Mapping[str, Figure[JudgeResult]] = {
    **{name: Figure(partial(_worst, name)) for name in MEANS},
    "harm_gain": Figure(_worst_gain),
    "missing": Figure(_missing),
}


def judge(
    model: Annotated[list[str], typer.Argument(help="Checkpoints or PEFT adapters: FOLDER, NAME=FOLDER or a Hub id.")],
    prompts: Annotated[list[str], typer.Option(help="Prompts: a file, a public set (advbench, ...) or SET=FILE.")],
    judge: Annotated[
        list[str], typer.Option(help="organism, rubric, alignment, refusal, phrases or classifier; repeat.")
    ],
    out: Out,
    base: Annotated[str | None, typer.Option(help="The model under adapters.")] = None,
    against: Annotated[str | None, typer.Option(help="Which model to compare with, by name; else the first.")] = None,
    endpoint: Annotated[
        str | None, typer.Option(help="OpenAI-compatible URL of judging models; the key is in TILTMETER_JUDGE_KEY.")
    ] = None,
    judge_model: Annotated[list[str] | None, typer.Option(help="A model there that rubrics ask; repeat.")] = None,
    judge_folder: Annotated[list[str] | None, typer.Option(help="A local model that rubrics ask; repeat.")] = None,
    classifier: Annotated[str | None, typer.Option(help="A refusal classifier: a folder or a Hub id.")] = None,
    label: Annotated[str | None, typer.Option(help="The classifier's label of a refusal.")] = None,
    scores: Annotated[
        Literal["written", "tokens"] | None, typer.Option(help="How an endpoint's scores are read.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Requests to the endpoint at a time.")] = 8,
    sampling: Annotated[
        Preset, typer.Option(help="As the collapse study, greedy, or from the model's own distribution.")
    ] = "study",
    temperature: Annotated[float | None, typer.Option(help="In the place of the preset's.")] = None,
    top_p: Annotated[float | None, typer.Option(help="In the place of the preset's.")] = None,
    top_k: Annotated[int | None, typer.Option(help="In the place of the preset's; 0 for all tokens.")] = None,
    min_p: Annotated[float | None, typer.Option(help="In the place of the preset's.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 128,
    samples: Annotated[int, typer.Option(min=1, help="Answers to each prompt.")] = 1,
    dtype: Dtype = "float32",
    device: Device = "cpu",
    batch_size: BatchSize = 32,
    seed: Annotated[int, typer.Option(help="Of answers, the same for each model, and of tests.")] = 0,
    fail_on: Annotated[
        list[str] | None, limit_option(f"Exit with 1 if a figure is above a limit: {', '.join(JUDGE)}.")
    ] = None,
) -> None:
    """Judge what models answer: harm, alignment, refusals and more, with intervals, beside a reference."""
    from tiltmeter.judge.request import Answering, JudgingRequest, JudgingSources

    changes = {"temperature": temperature, "top_p": top_p, "top_k": top_k, "min_p": min_p}
    drawn = chosen_sampling(sampling, seed, {**changes, "max_new_tokens": max_new_tokens})
    options = JudgeOptions(endpoint, judge_model or (), judge_folder or (), classifier, label, scores, workers, device)
    models = named_sources(model)
    request = JudgingRequest(
        JudgingSources(models, base, tuple(prompts)),
        tuple(judge_requests(judge, options)),
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
    if all(each.failures == each.verdicts for each in result.judges.values()):
        reasons = [reason for each in result.judges.values() for reason in each.reasons]
        raise NothingMeasuredError(f"no judge has a verdict on any answer: {reasons[0]}")
    return result


def _reference(models: Mapping[str, str], against: str | None) -> str | None:
    if against is not None and against not in models:
        raise InputError(f"--against: expected one of {', '.join(models)}, got {against}")
    return (against or next(iter(models))) if len(models) > 1 else None
