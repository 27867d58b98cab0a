"""`tiltmeter transfer`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

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
from tiltmeter.cli.options import BatchSize, Device, Dtype, Out, requested_judge
from tiltmeter.cli.steer import Draws, JudgeName, Outcome, Watch, Where
from tiltmeter.errors import InputError

if TYPE_CHECKING:
    from tiltmeter.directions.transfer_request import MapName, Subject, TransferRequest
    from tiltmeter.runs.transfer_result import TransferResult


def _specific(result: TransferResult) -> float:
    """How many carried directions are specific."""
    return sum(route.verdict == "specific" and route.source != route.target for route in result.routes)


TRANSFER: Mapping[str, Figure[TransferResult]] = {"specific": Figure(_specific)}


def transfer(
    model: Annotated[
        list[str],
        typer.Argument(help="NAME=BASE,TUNED or NAME=BASE,TUNED,BENIGN: two models or more, folders or Hub ids."),
    ],
    common: Annotated[list[str], typer.Option(help="Prompts that all models read, for maps and directions; repeat.")],
    prompts: Annotated[list[str], typer.Option(help="Prompts to answer: a file or a public set; repeat.")],
    judge: JudgeName,
    out: Out,
    outcome: Outcome = "harmfulness",
    watch: Watch = None,
    map: Annotated[
        list[str] | None, typer.Option(help="How directions are carried: ridge, procrustes, cca or stitch; repeat.")
    ] = None,
    span: Annotated[
        int, typer.Option(min=0, help="Also carry so many directions at once, which are ablated; 0 for none.")
    ] = 0,
    block: Annotated[int, typer.Option(help="Number of the block; negative ones from each model's end.")] = -1,
    where: Where = "last",
    dose: Annotated[float, typer.Option(help="Times the carried direction.")] = 1.0,
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
    seed: Annotated[int, typer.Option(min=0, help="Of answers, folds, controls and tests.")] = 0,
    fail_on: Annotated[
        list[str] | None, limit_option("Exit with 1 if more carried directions are specific than a limit: specific.")
    ] = None,
) -> None:
    """Carry each model's direction to each other model, beside controls: does it act there, and is that specific?"""
    from tiltmeter.directions.steer_request import Gate
    from tiltmeter.directions.transfer_request import Carrying, TransferRequest, TransferSources
    from tiltmeter.judge.request import Answering

    if not dose > 0:
        raise InputError(f"--dose: expected a number above 0, got {dose:g}")
    limits = parse_limits(fail_on, TRANSFER, {})
    sampled = chosen_sampling(sampling, seed, {"max_new_tokens": max_new_tokens})
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
    request = TransferRequest(
        TransferSources(_subjects(model), tuple(common), tuple(prompts), tuple(watch or ())),
        one_judge(judge, asked),
        Carrying(_maps(map or ["ridge"]), block, dose, where, span, batch_size),
        Gate(outcome, draws),
        Answering(sampled, samples, batch_size, dtype, device),
    )
    raise typer.Exit(exceeded(_transfer(request, out), TRANSFER, limits))


def again(arguments: dict[str, object], out: Path) -> None:
    """A recorded matrix made again."""
    from pydantic import TypeAdapter

    from tiltmeter.directions.transfer_request import TransferRequest

    _transfer(TypeAdapter(TransferRequest).validate_python(arguments), out)


def _transfer(request: TransferRequest, out: Path) -> TransferResult:
    from tiltmeter.cli.transfer_table import print_transfer
    from tiltmeter.directions.transfer import run_transfer

    result = run_transfer(request, out, requested_judge(request.judge))
    print_transfer(result, out)
    return result


def _maps(names: list[str]) -> tuple[MapName, ...]:
    from tiltmeter.directions.transfer_request import MapName

    unknown = [name for name in names if name not in get_args(MapName)]
    if unknown:
        raise InputError(f"--map {unknown[0]}: expected one of {', '.join(get_args(MapName))}")
    return tuple(cast("MapName", name) for name in names)


def _subjects(texts: list[str]) -> dict[str, Subject]:
    from tiltmeter.directions.transfer_request import Subject

    subjects: dict[str, Subject] = {}
    for text in texts:
        name, _, rest = text.partition("=")
        folders = rest.split(",")
        if not name or name in subjects or len(folders) not in (2, 3) or not all(folders):
            raise InputError(f"{text}: expected NAME=BASE,TUNED or NAME=BASE,TUNED,BENIGN, each name once")
        subjects[name] = Subject(*folders)
    return subjects
