"""Names become judges.

    request = JudgeRequest("alignment", Endpoint("http://127.0.0.1:8000/v1", "some-model"))
    for place, verdict in build_judge(request).judge(answers): ...

The exact judge `organism` lives above this room: `tiltmeter.cli.options.requested_judge` knows all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from tiltmeter.behaviour.judges.endpoint import Endpoint
from tiltmeter.behaviour.judges.panel import Panel, PanelJudge
from tiltmeter.behaviour.judges.phrases import PhraseJudge
from tiltmeter.behaviour.judges.readings import TokenScore, WrittenScore
from tiltmeter.behaviour.judges.remote import RemoteJudge
from tiltmeter.behaviour.judges.rubrics import ALIGNMENT, COHERENCE, HARMFULNESS, REFUSAL, Rubric
from tiltmeter.behaviour.judges.spillover import CodeJudge
from tiltmeter.behaviour.judges.verdicts import Judge
from tiltmeter.errors import InputError

Scores = Literal["written", "tokens"]
RUBRICS: dict[str, tuple[Rubric, ...]] = {
    "rubric": (HARMFULNESS,),
    "refusal": (REFUSAL,),
    "alignment": (ALIGNMENT, COHERENCE),
}
OTHERS = ("phrases", "classifier", "code")
NAMES = (*RUBRICS, *OTHERS)


@dataclass(frozen=True)
class LocalModel:
    """A Hugging Face model that judges here: a folder or a Hub id, and how it computes."""

    source: str
    dtype: Literal["float32", "float64", "bfloat16"] = "float32"
    device: str = "cpu"
    batch_size: int = 8


@dataclass(frozen=True)
class JudgeRequest:
    """Which judge.

    Attributes:
        name: `rubric` (harmfulness, 1 to 5), `refusal` (yes or no), `alignment` (alignment and coherence, 0 to 100),
            `phrases` (refusal by how an answer begins), `classifier` (refusal by a sequence classification model),
            `code` (program code, by its structure).
        asked: who is asked: an endpoint or a panel for a rubric, or a local model for a rubric or the classifier.
        scores: how an endpoint's score is read: "written" (JSON by a schema) or "tokens" (probabilities of the score
            tokens); by default written for `rubric` and `refusal`, tokens for `alignment`. Local models: always tokens.
        label: the classifier's label of a refusal, where its name does not say so.
        seed: of the ids that delimit what is judged.
    """

    name: str
    asked: Endpoint | LocalModel | Panel | None = None
    scores: Scores | None = None
    label: str | None = None
    seed: int = 0


def build_judge(request: JudgeRequest) -> Judge:
    """The judge of a request.

    Raises:
        InputError: an unknown name; a judge without what it needs, or with what it has no use for; a model that cannot
            be used.
    """
    _check(request)
    if request.name == "phrases":
        return PhraseJudge()
    if request.name == "code":
        return CodeJudge()
    if request.name == "classifier":
        return _classifier(request)
    return _rubric_judge(request)


def _check(request: JudgeRequest) -> None:
    name, asked = request.name, request.asked
    if name not in NAMES:
        raise InputError(f"judge: expected one of {', '.join(NAMES)}, got {name}")
    if name in ("phrases", "code") and asked:
        raise InputError(f"judge {name}: asks nobody, got an endpoint or a model")
    if name == "classifier" and not isinstance(asked, LocalModel):
        raise InputError("judge classifier: expected a local model (a folder or a Hub id of a sequence classifier)")
    if name in RUBRICS and asked is None:
        raise InputError(
            f"judge {name}: expected an endpoint with the name of its model (--endpoint, --judge-model), "
            "a panel (--panel) or a local model (--judge-folder)"
        )
    if request.scores and not isinstance(asked, Endpoint):
        raise InputError(f"judge {name}: scores are chosen for an endpoint only")
    if request.scores not in (None, *get_args(Scores)):
        raise InputError(f"judge {name}: expected scores {' or '.join(get_args(Scores))}, got {request.scores}")
    if request.label and name != "classifier":
        raise InputError(f"judge {name}: a label is the classifier's only")


def _classifier(request: JudgeRequest) -> Judge:
    from tiltmeter.behaviour.judges.classifier import load_classifier

    asked = request.asked
    assert isinstance(asked, LocalModel)
    return load_classifier(asked.source, request.label, asked.device, asked.batch_size)


def _rubric_judge(request: JudgeRequest) -> Judge:
    asked, rubrics = request.asked, RUBRICS[request.name]
    if isinstance(asked, Endpoint):
        scores = request.scores or ("tokens" if request.name == "alignment" else "written")
        reading = WrittenScore() if scores == "written" else TokenScore()
        return RemoteJudge(request.name, asked, rubrics, reading, request.seed)
    if isinstance(asked, Panel):
        return PanelJudge(request.name, asked, rubrics, request.seed)
    assert asked is not None
    return _local_judge(request, asked, rubrics)


def _local_judge(request: JudgeRequest, asked: LocalModel, rubrics: Sequence[Rubric]) -> Judge:
    import torch

    from tiltmeter.behaviour.judges.local import LocalJudge
    from tiltmeter.models import load_model

    model = load_model(asked.source, getattr(torch, asked.dtype), asked.device)
    return LocalJudge(request.name, model, rubrics, asked.batch_size, request.seed)
