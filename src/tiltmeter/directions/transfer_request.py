"""Which models' directions are carried to which, how, and by whom it is judged."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field, FiniteFloat, PositiveInt

from tiltmeter.activations.steering import Where
from tiltmeter.behaviour.judges.named import JudgeRequest
from tiltmeter.directions.steer_request import Gate
from tiltmeter.judge.request import Answering
from tiltmeter.requests import run_record
from tiltmeter.runs.record import RunRecord
from tiltmeter.runs.results import Input

MapName = Literal["ridge", "procrustes", "cca", "stitch"]


@dataclass(frozen=True)
class Subject:
    """A base, its fine-tune, and another fine-tune that is benign, as a control; paths or Hub ids."""

    base: str
    tuned: str
    benign: str | None = None


@dataclass(frozen=True)
class TransferSources:
    """What goes in.

    Attributes:
        models: by name; two or more.
        common: files of prompts that every model reads, for maps and directions.
        prompts: files of prompts that are answered.
        watch: further prompts, on which coherence has to be kept too.
    """

    models: dict[str, Subject]
    common: tuple[str, ...]
    prompts: tuple[str, ...]
    watch: tuple[str, ...] = ()


@dataclass(frozen=True)
class Carrying:
    """How directions are carried, and what is done with them.

    Attributes:
        maps: kinds of maps.
        block: where states are read and edited; negative numbers count from each model's end.
        dose: times the carried direction, which is subtracted.
        where: which tokens.
        span: also carry so many directions at once, which are ablated; 0 for none.
        batch_size: texts of a pass that reads activations.
    """

    maps: Annotated[tuple[MapName, ...], Field(min_length=1)] = ("ridge",)
    block: int = -1
    dose: Annotated[FiniteFloat, Field(gt=0)] = 1.0
    where: Where = "last"
    span: Annotated[int, Field(ge=0)] = 0
    batch_size: PositiveInt = 16


@dataclass(frozen=True)
class TransferRequest:
    """One matrix of transfers."""

    sources: TransferSources
    judge: JudgeRequest
    carrying: Carrying = field(default_factory=Carrying)
    gate: Gate = field(default_factory=Gate)
    answering: Answering = field(default_factory=Answering)

    @property
    def seed(self) -> int:
        """Of answers, folds, controls and tests."""
        return self.answering.sampling.seed

    def record(self, inputs: list[Input]) -> RunRecord:
        """What `run.yaml` says of this request."""
        return run_record("transfer", self, inputs, self.seed)
