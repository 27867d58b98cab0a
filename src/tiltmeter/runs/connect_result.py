"""The schema of `connect`'s `result.json`: losses, behaviour and features at points on a path through weight space."""

from typing import Literal

from pydantic import Field

from tiltmeter.runs.results import Answer, Interval, Record, Result


class Barrier(Interval):
    """`max_s [loss(s) - ((1-s) loss(0) + s loss(1))]` over s in [0, 1], the maximum taken anew in each resample.

    Attributes:
        at: the point of the maximum.
        null_p95: 95th percentile of what the choice of examples alone makes of a loss on the straight line.
        loss_range: largest less smallest loss over s in [0, 1].
    """

    at: float
    null_p95: float
    loss_range: float


class BlockFeatures(Record):
    """Features of one block, beside what shows that they are near a line for a plain reason.

    Attributes:
        nl2: ||f - f_mix|| / ||f_mix||, f_mix = (1-s) f_0 + s f_1.
        over_gap: ||f - f_mix|| / ||f_0 - f_1||, its control; null where the ends are equal up to rounding.
        ends_apart: ||f_0 - f_1|| / ||f_mix||.
        r2: 1 - ||f - f_mix||^2 / ||f - mean||^2; null where f does not vary.
        r2_nearer_end: the same with the nearer end in the place of f_mix, its control.
    """

    block: str
    nl2: Interval
    over_gap: Interval | None
    ends_apart: Interval
    r2: Interval | None
    r2_nearer_end: Interval | None


class Features(Record):
    """Features at one point, the one nearest to the middle; `features.parquet` has all points."""

    at: float
    blocks: list[BlockFeatures]


class SkillPath(Record):
    """One skill along the path: lists have one entry per point.

    Attributes:
        utility_loss: u(base) - u(theta_s) in the result's reduction, with `low` and `high`.
        kl: KL(base || theta_s) per completion token in nats, with `kl_low` and `kl_high`.
        barrier: of the utility loss.
    """

    examples: int
    tokens: int
    utility_loss: list[float]
    low: list[float]
    high: list[float]
    kl: list[float]
    kl_low: list[float]
    kl_high: list[float]
    barrier: Barrier
    features: Features


class DataPath(Record):
    """One fine-tuning set along the path: lists have one entry per point.

    Attributes:
        base_loss: of the base, which is no point of a path across tasks.
        loss: mean over completion tokens, in nats, with `low` and `high`.
        perplexity: exp(loss); null where that is no number.
        barrier: of the loss.
    """

    examples: int
    tokens: int
    base_loss: float
    loss: list[float]
    low: list[float]
    high: list[float]
    perplexity: list[float | None]
    barrier: Barrier
    features: Features


class PointJudged(Record):
    """What a judge says of one model's answers to one set of prompts; rates are shares of the answers judged.

    Attributes:
        harmfulness: mean of the 1-5 scores; null when the judge failed on every answer.
    """

    harmfulness: Interval | None
    share_of_fives: float | None
    refusal_rate: Interval | None
    coherent_rate: Interval | None
    answers: int
    judge_failures: int
    truncated: int


class Lowest(Interval):
    """The smallest mean harmfulness over s in [0, 1], the minimum taken anew in each resample, and where it is."""

    at: float


class PathBehaviour(Record):
    """Judged answers to one set of prompts by the base and at each point, drawn with the same seeds."""

    base: PointJudged
    points: list[PointJudged]
    lowest: Lowest | None


class EndSummary(Record):
    """What changes from the base to one end of the path.

    Attributes:
        kind: "adapter" or "checkpoint".
        norm: Frobenius norm of the change of linear modules, of which there are `modules`.
        others: norm of the change of every other parameter that moves.
    """

    kind: str
    norm: float
    modules: int
    others: dict[str, float] = Field(default_factory=dict)


class SavedPoint(Record):
    """A point written as a model, in a folder of the run.

    Attributes:
        energy_lost: share of ||dW||^2 that truncation to `rank` left out; null where nothing was truncated.
    """

    s: float
    form: Literal["checkpoint", "adapter"]
    folder: str
    rank: int | None = None
    energy_lost: float | None = None


class ConnectResult(Result):
    """Points on a path through weight space.

    Attributes:
        path: "base-to-tuned" is `W + s dW`, "across" is `W + (1-s) dW_1 + s dW_2`.
        variant: what is interpolated: the effective update, or LoRA factors.
        behaviour: by set of prompts; null when nothing was judged.
        kept_bytes: memory for the base's log-probabilities and the ends' features.
    """

    verb: Literal["connect"] = "connect"
    path: Literal["base-to-tuned", "across"]
    variant: Literal["effective", "factors"]
    points: list[float]
    ends: list[EndSummary]
    skills: dict[str, SkillPath]
    data: dict[str, DataPath]
    behaviour: dict[str, PathBehaviour] | None = None
    judge: str | None = None
    saved: list[SavedPoint] = Field(default_factory=list)
    kept_bytes: int


class PointTranscript(Record):
    """One prompt of the set `prompts`, answered at the point `s`; s is null for the base of a path across tasks."""

    prompts: str
    prompt: str
    s: float | None
    answer: Answer
