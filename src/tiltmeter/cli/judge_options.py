"""The options of `tiltmeter judge` as what they stand for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tiltmeter.errors import InputError

if TYPE_CHECKING:
    from tiltmeter.behaviour.judges.endpoint import Endpoint
    from tiltmeter.behaviour.judges.named import JudgeRequest, LocalModel, Scores
    from tiltmeter.behaviour.judges.panel import Panel
    from tiltmeter.generation import Sampling

Preset = Literal["study", "greedy", "model"]
SamplingPreset = Annotated[
    Preset, typer.Option(help="As the collapse study, greedy, or from the model's own distribution.")
]
EndpointUrl = Annotated[
    str | None, typer.Option(help="OpenAI-compatible URL of judging models; the key is in TILTMETER_JUDGE_KEY.")
]
JudgeModels = Annotated[list[str] | None, typer.Option(help="A model there that rubrics ask; repeat.")]
JudgeFolders = Annotated[list[str] | None, typer.Option(help="A local model that rubrics ask; repeat.")]
PanelModels = Annotated[
    list[str] | None, typer.Option(help="A model of a panel that rubrics ask through inspect_ai; repeat.")
]
PanelLogs = Annotated[str | None, typer.Option(help="Folder of inspect_ai's logs, for its viewer.")]
Classifier = Annotated[str | None, typer.Option(help="A refusal classifier: a folder or a Hub id.")]
Label = Annotated[str | None, typer.Option(help="The classifier's label of a refusal.")]
Workers = Annotated[int, typer.Option(min=1, help="Requests to the endpoint at a time.")]
MaxNewTokens = Annotated[int, typer.Option(min=1, help="Longest answer.")]
Samples = Annotated[int, typer.Option(min=1, help="Answers to each prompt.")]


@dataclass(frozen=True)
class JudgeOptions:
    """Who is asked, as the user wrote it."""

    endpoint: str | None = None
    models: Sequence[str] = ()
    folders: Sequence[str] = ()
    classifier: str | None = None
    label: str | None = None
    scores: Scores | None = None
    workers: int = 8
    device: str = "cpu"
    panel: Panel | None = None
    timeout: float = 60.0


def named_panel(models: Sequence[str], logs: str | None, workers: int) -> Panel | None:
    """The panel of some models, or None where there is none.

    Raises:
        InputError: models without a place for the logs, or the other way round.
    """
    from tiltmeter.behaviour.judges.panel import Panel

    if bool(models) != bool(logs):
        raise InputError("--panel, --panel-logs: expected both, the models and the folder of inspect_ai's logs")
    return Panel(tuple(models), logs, workers) if models and logs else None


def judge_requests(names: Sequence[str], options: JudgeOptions) -> Iterator[JudgeRequest]:
    """Each rubric asks each model that was given; the other judges ask nobody, or the classifier.

    Raises:
        InputError: a model's name without an endpoint, or the other way round; a model that no judge asks.
    """
    from tiltmeter.behaviour.judges.named import RUBRICS, JudgeRequest, LocalModel

    asked = _asked(options)
    if asked and not set(names) & RUBRICS.keys():
        raise InputError(
            f"--judge-model, --judge-folder, --panel: asked by no --judge; expected one of {', '.join(RUBRICS)}"
        )
    if (options.classifier or options.label) and "classifier" not in names:
        raise InputError("--classifier, --label: of no --judge; expected classifier")
    for name in names:
        if name in RUBRICS:
            yield from (JudgeRequest(name, one, options.scores) for one in asked or (None,))
        elif name == "classifier" and options.classifier:
            yield JudgeRequest(name, LocalModel(options.classifier, device=options.device), label=options.label)
        else:
            yield JudgeRequest(name)


def one_judge(name: str, options: JudgeOptions) -> JudgeRequest:
    """The only judge of an experiment.

    Raises:
        InputError: two models that a rubric asks, or as `judge_requests`.
    """
    requests = list(judge_requests([name], options))
    if len(requests) > 1:
        raise InputError(f"--judge {name}: expected one model that it asks, got {len(requests)}; give one, or --panel")
    return requests[0]


def _asked(options: JudgeOptions) -> list[Endpoint | LocalModel | Panel]:
    from tiltmeter.behaviour.judges.endpoint import Endpoint
    from tiltmeter.behaviour.judges.named import LocalModel

    if bool(options.endpoint) != bool(options.models):
        raise InputError("--endpoint, --judge-model: expected both, the URL and the name of a model there")
    remote = [Endpoint(str(options.endpoint), model, options.workers, options.timeout) for model in options.models]
    panel = [options.panel] if options.panel else []
    return [*remote, *panel, *(LocalModel(folder, device=options.device) for folder in options.folders)]


def chosen_sampling(preset: Preset, seed: int, changes: Mapping[str, float | None]) -> Sampling:
    """The sampling of a preset, with what was given in the place of its settings.

    Raises:
        InputError: a setting out of its range.
    """
    from pydantic import TypeAdapter, ValidationError

    from tiltmeter.generation import GREEDY, MODEL_ITSELF, Sampling
    from tiltmeter.runs.record import explain

    settings = vars({"study": Sampling(), "greedy": GREEDY, "model": MODEL_ITSELF}[preset])
    given = {name: value for name, value in changes.items() if value is not None}
    try:
        return TypeAdapter(Sampling).validate_python({**settings, "seed": seed, **given})
    except ValidationError as error:
        raise InputError(f"--sampling: {explain(error)}") from error
