"""`tiltmeter steer`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    named_panel,
    one_judge,
)
from tiltmeter.cli.limits import Figure, exceeded, limit_option, parse_limits
from tiltmeter.cli.options import BatchSize, Device, Dtype, Out, named_sources, requested_judge
from tiltmeter.errors import InputError, NothingMeasuredError

if TYPE_CHECKING:
    from tiltmeter.directions.steer_request import SteerRequest
    from tiltmeter.runs.steer_result import SteerResult

Outcome = Annotated[str, typer.Option(help="What is to change: harmfulness, fives, misaligned, code, refused, ...")]
JudgeName = Annotated[str, typer.Option(help="organism, rubric, alignment, refusal, phrases, classifier or code.")]
Where = Annotated[
    Literal["last", "prompt", "all"], typer.Option(help="Which tokens: the prompt's last, the prompt's, or all.")
]
Dose = Annotated[list[float] | None, typer.Option(help="Times the direction; repeat. 0.25, 0.5 and 1 if not given.")]
Watch = Annotated[
    list[str] | None, typer.Option(help="Further prompts, on which refusals and coherence are watched; repeat.")
]
Draws = Annotated[
    int | None, typer.Option(min=1, help="Of each random control; as many as the number of arms needs if not given.")
]


def _largest_effect(result: SteerResult) -> float:
    effects = [arm.effect.mean for arm in result.arms if arm.effect is not None]
    if not effects:
        raise NothingMeasuredError("--fail-on effect: no answer has a verdict")
    return max(effects)


STEER: Mapping[str, Figure[SteerResult]] = {
    "effect": Figure(_largest_effect, "below"),
    "p_specific": Figure(lambda result: min(arm.p_specific for arm in result.arms)),
}


def steer(
    base: Annotated[str, typer.Argument(help="The base model: a folder or a Hub id.")],
    tuned: Annotated[str, typer.Argument(help="A checkpoint or a PEFT adapter of it: a folder or a Hub id.")],
    direction: Annotated[str, typer.Option(help="A run of tiltmeter direction, or a .safetensors or .gguf file.")],
    prompts: Annotated[list[str], typer.Option(help="Prompts to answer: a file or a public set; repeat.")],
    judge: JudgeName,
    out: Out,
    outcome: Outcome = "harmfulness",
    change: Annotated[
        Literal["subtract", "add", "ablate"],
        typer.Option(help="Subtract from the tuned model's states, add to the base's, or ablate from the tuned's."),
    ] = "subtract",
    where: Where = "last",
    block: Annotated[
        list[str] | None,
        typer.Option(help="Number of a block, -1 the last; A+B edits both at once; all tries each; repeat."),
    ] = None,
    dose: Dose = None,
    watch: Watch = None,
    tasks: Annotated[list[str] | None, typer.Option(help="Prompts with right answers, for accuracy; repeat.")] = None,
    neutral: Annotated[
        list[str] | None, typer.Option(help="Pairs of prompt and completion, for KL from the model as it is; repeat.")
    ] = None,
    beside: Annotated[
        list[str] | None, typer.Option(metavar="NAME=FILE", help="Another direction as a control; repeat.")
    ] = None,
    match: Annotated[
        Literal["norm", "kl"], typer.Option(help="What controls share with the direction: norm, or KL on --neutral.")
    ] = "norm",
    draws: Draws = None,
    endpoint: EndpointUrl = None,
    judge_model: JudgeModels = None,
    judge_folder: JudgeFolders = None,
    panel: PanelModels = None,
    panel_logs: PanelLogs = None,
    classifier: Classifier = None,
    label: Label = None,
    workers: Workers = 8,
    sampling: SamplingPreset = "study",
    max_new_tokens: MaxNewTokens = 128,
    samples: Samples = 1,
    dtype: Dtype = "float32",
    device: Device = "cpu",
    batch_size: BatchSize = 32,
    seed: Annotated[int, typer.Option(min=0, help="Of answers, controls and tests.")] = 0,
    fail_on: Annotated[
        list[str] | None,
        limit_option("Exit with 1 if the largest effect is below a limit, or the smallest p_specific above one."),
    ] = None,
) -> None:
    """Steer a model along a direction, beside random and given controls of the same size: is the direction specific?"""
    from tiltmeter.directions.steer_request import DOSES, Gate, Steering, SteerRequest, SteerSources
    from tiltmeter.judge.request import Answering

    limits = parse_limits(fail_on, STEER, {})
    asked = JudgeOptions(
        endpoint,
        judge_model or (),
        judge_folder or (),
        classifier,
        label,
        workers=workers,
        device=device,
        panel=named_panel(panel or (), panel_logs, workers),
    )
    request = SteerRequest(
        SteerSources(
            base,
            tuned,
            direction,
            tuple(prompts),
            tuple(watch or ()),
            named_sources(beside or []),
            tuple(neutral or ()),
            tuple(tasks or ()),
        ),
        one_judge(judge, asked),
        Steering(change, where, tuple(_groups(block or ["-1"])), tuple(dose or DOSES)),
        Gate(outcome, draws, match),
        Answering(
            chosen_sampling(sampling, seed, {"max_new_tokens": max_new_tokens}), samples, batch_size, dtype, device
        ),
    )
    raise typer.Exit(exceeded(_steer(request, out), STEER, limits))


def again(arguments: dict[str, object], out: Path) -> None:
    """A recorded experiment done again."""
    from pydantic import TypeAdapter

    from tiltmeter.directions.steer_request import SteerRequest

    _steer(TypeAdapter(SteerRequest).validate_python(arguments), out)


def _steer(request: SteerRequest, out: Path) -> SteerResult:
    from tiltmeter.cli.steer_table import print_steer
    from tiltmeter.directions.steer import run_steer

    result = run_steer(request, out, requested_judge(request.judge))
    print_steer(result, out)
    return result


def _groups(texts: list[str]) -> Iterator[tuple[int, ...]]:
    """Groups of blocks; none at all for every block of the direction."""
    for text in texts if texts != ["all"] else ():
        numbers = text.split("+")
        if not all(number.removeprefix("-").isdecimal() for number in numbers):
            raise InputError(f"--block {text}: expected a number, numbers joined by +, or all by itself")
        yield tuple(int(number) for number in numbers)
