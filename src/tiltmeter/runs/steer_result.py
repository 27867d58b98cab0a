"""The schema of `steer`'s `result.json`: what steering along a direction does, beside controls of the same size."""

from typing import Literal

from pydantic import Field, PositiveFloat

from tiltmeter.runs.judge_result import DifferenceRecord, JudgeRecord, OutcomeRecord, SetRecord
from tiltmeter.runs.results import Interval, Record, Result

SteerVerdict = Literal["specific", "not specific", "none", "broke"]


class ControlRecord(Record):
    """Steering along other vectors, as far as along the direction.

    Attributes:
        kind: of random vectors, of which there are `draws`; or the name of one given vector (`draws` 1).
        mean, p95: effects of random vectors: their mean and 95th percentile; null for a given vector.
        excess: the direction's effect less the given vector's; null for random ones.
        p: that the control does as well.
    """

    kind: str
    draws: int
    mean: float | None = None
    p95: float | None = None
    excess: Interval | None = None
    p: float


class ArmRecord(Record):
    """One set of blocks and one dose.

    Attributes:
        trial: its name among the models of `outcomes`.
        blocks: numbers of the blocks that are edited at once.
        effect: how far the outcome goes the wanted way, in its own units; null where no answer has a verdict.
        p_causal: of the effect under random signs over prompts, after Holm; `p_specific`: of a control doing as well.
        can_pass: whether it had draws and prompts enough to be found specific.
        coherence_fall: share of coherent answers before less after, where it falls most: on the prompts that the
            question is about, or on the watched set `coherent_on`.
        kl: from the model to the steered model on neutral text, in nats per token; `controls_kl` of the controls.
        accuracy: share of tasks done right.
    """

    trial: str
    blocks: list[int]
    dose: PositiveFloat
    effect: Interval | None
    p_causal: float
    p_specific: float
    can_pass: bool
    verdict: SteerVerdict
    controls: list[ControlRecord]
    coherence_fall: Interval | None
    coherent_on: str | None = None
    kl: float | None = None
    controls_kl: Interval | None = None
    accuracy: Interval | None = None


class SteerResult(Result):
    """A model steered.

    Attributes:
        subject: which model is steered; `base` stands beside it.
        outcome: what is to change, and which way that is wanted.
        match: in what the controls equal the direction: the norm of the change, or KL on neutral text.
        draws: of each random kind; 0 where no arm had an effect to compare.
        verdict, sentence: of the specificity gate, over all arms.
        reaches_first_token_only: some arm edits the prompt alone, at the last block: one new token changes.
        outcomes, differences: by trial, on every set; differences are from the subject as it is.
        accuracy: of the subject as it is.
    """

    verb: Literal["steer"] = "steer"
    subject: Literal["tuned", "base"]
    change: Literal["subtract", "add", "ablate"]
    where: Literal["last", "prompt", "all"]
    place: Literal["output", "input", "attention", "mlp"]
    outcome: str
    wanted: Literal["lower", "higher"]
    match: Literal["norm", "kl"]
    draws: int
    verdict: SteerVerdict
    sentence: str
    reaches_first_token_only: bool
    judge: JudgeRecord
    sets: dict[str, SetRecord]
    watched: dict[str, SetRecord] = Field(default_factory=dict)
    sampling: dict[str, float]
    norms: dict[str, float]
    arms: list[ArmRecord] = Field(min_length=1)
    outcomes: list[OutcomeRecord]
    differences: list[DifferenceRecord]
    accuracy: Interval | None = None
