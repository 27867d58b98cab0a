"""What is steered, along what, how far, and by whom it is judged."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field, FiniteFloat, PositiveInt

from tiltmeter.activations.steering import Where
from tiltmeter.behaviour.judges.named import JudgeRequest
from tiltmeter.judge.request import Answering
from tiltmeter.requests import run_record
from tiltmeter.runs.record import RunRecord
from tiltmeter.runs.results import Input

Change = Literal["subtract", "add", "ablate"]
Match = Literal["norm", "kl"]
DOSES = (0.25, 0.5, 1.0)


@dataclass(frozen=True)
class SteerSources:
    """What goes in: paths or Hub ids as the user gave them.

    Attributes:
        base, tuned: the base model, and a checkpoint or a PEFT adapter of it.
        direction: a run folder of `direction`, whose activations and other directions become controls; or a file.
        prompts: files of prompts that the question is about, or public sets.
        watch: further prompts, for side effects.
        beside: further directions as controls: files, by name.
        neutral: pairs of prompt and completion, for the KL divergence.
        tasks: prompts with right answers, for accuracy.
    """

    base: str
    tuned: str
    direction: str
    prompts: tuple[str, ...]
    watch: tuple[str, ...] = ()
    beside: dict[str, str] = field(default_factory=dict)
    neutral: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Steering:
    """What is done to hidden states.

    Attributes:
        change: "subtract" dose times the direction from the tuned model's states, "add" it to the base's, or "ablate"
            dose times what lies along it from the tuned model's.
        where: which tokens.
        blocks: numbers of blocks, negative ones from the end; those of a group are edited at once. Empty for every
            block that the direction has, one by one.
        doses: each with each group makes an arm.
    """

    change: Change = "subtract"
    where: Where = "last"
    blocks: tuple[tuple[int, ...], ...] = ((-1,),)
    doses: Annotated[tuple[Annotated[FiniteFloat, Field(gt=0)], ...], Field(min_length=1)] = DOSES


@dataclass(frozen=True)
class Gate:
    """What is to change, and what controls it is compared with.

    Attributes:
        outcome: one of `tiltmeter.behaviour.outcomes.OUTCOMES`.
        draws: of each random kind; None for as many as the number of arms needs.
        match: what of the change the controls share.
    """

    outcome: str = "harmfulness"
    draws: PositiveInt | None = None
    match: Match = "norm"


@dataclass(frozen=True)
class SteerRequest:
    """One experiment."""

    sources: SteerSources
    judge: JudgeRequest
    steering: Steering = field(default_factory=Steering)
    gate: Gate = field(default_factory=Gate)
    answering: Answering = field(default_factory=Answering)

    @property
    def seed(self) -> int:
        """Of answers, controls and tests."""
        return self.answering.sampling.seed

    def record(self, inputs: list[Input]) -> RunRecord:
        """What `run.yaml` says of this request."""
        return run_record("steer", self, inputs, self.seed)
