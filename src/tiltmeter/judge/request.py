"""What is to be judged, and by whom."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import PositiveInt

from tiltmeter.behaviour.judges.endpoint import Endpoint
from tiltmeter.behaviour.judges.named import JudgeRequest, LocalModel
from tiltmeter.behaviour.judges.panel import Panel
from tiltmeter.errors import InputError
from tiltmeter.generation import Sampling
from tiltmeter.requests import Dtype, run_record
from tiltmeter.runs.record import RunRecord
from tiltmeter.runs.results import Input


@dataclass(frozen=True)
class JudgingSources:
    """What goes in: paths or Hub ids as the user gave them.

    Attributes:
        models: by their names in the result, checkpoints or PEFT adapters; the first is the reference.
        base: the model under the adapters.
        prompts: files of prompts, or public sets by name.
        skills: files or Hub sets of prompt/completion pairs, for utility loss and KL; `columns` are theirs.
        labels: files of answers with the scores of people, against which judges are calibrated.
        canaries: files of answers of known worth, besides those that are shipped.
        tasks: files of prompts with right answers, for accuracy.
        texts: files of plain texts, for perplexity.
    """

    models: dict[str, str] = field(default_factory=dict)
    base: str | None = None
    prompts: tuple[str, ...] = ()
    skills: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    columns: tuple[str, ...] | None = None
    labels: tuple[str, ...] = ()
    canaries: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answering:
    """How models answer: the sampling, how many answers a prompt, and how many at a time."""

    sampling: Sampling = field(default_factory=Sampling)
    samples: PositiveInt = 1
    batch_size: PositiveInt = 32
    dtype: Dtype = "float32"
    device: str = "cpu"


@dataclass(frozen=True)
class JudgingRequest:
    """Models answer prompts, judges judge the answers; the other models are compared with `reference`."""

    sources: JudgingSources
    judges: tuple[JudgeRequest, ...]
    reference: str | None = None
    answering: Answering = field(default_factory=Answering)

    @property
    def seed(self) -> int:
        """Of the answers, and of the tests of differences."""
        return self.answering.sampling.seed

    def record(self, inputs: list[Input]) -> RunRecord:
        """What `run.yaml` says of this request."""
        return run_record("judge", self, inputs, self.seed)


def judge_names(judges: Sequence[JudgeRequest]) -> list[str]:
    """What the result calls each judge: by its kind, and by the model that it asks where there are two of a kind.

    Raises:
        InputError: the same judge twice.
    """
    kinds = [judge.name for judge in judges]
    names = [judge.name if kinds.count(judge.name) == 1 else f"{judge.name}: {asked(judge)}" for judge in judges]
    for name, kind in zip(names, kinds, strict=True):
        if names.count(name) > 1:
            raise InputError(f"--judge {kind}: given twice")
    return names


def asked(judge: JudgeRequest) -> str | None:
    """The model that a judge asks, and where."""
    match judge.asked:
        case Endpoint(url=url, model=model):
            return f"{model} at {url}"
        case LocalModel(source=source):
            return source
        case Panel(models=models):
            return f"a panel of {', '.join(models)}"
    return None
