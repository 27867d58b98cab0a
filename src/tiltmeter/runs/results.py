"""The schema of `result.json`: what a finished measurement says, with nulls, intervals and provenance.

Unknown keys, NaN and Inf are refused; a figure that could not be measured is null.
"""

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tiltmeter import intervals

SCHEMA: Final = "tiltmeter/1"


class Record(BaseModel):
    """A frozen piece of a result: exact keys only, finite numbers only."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True, serialize_by_alias=True
    )


class Input(Record):
    """A file or folder that went in.

    Attributes:
        path: as the user gave it (a path or a Hub id).
        role: what it was used as: "base", "tuned", "skill", ...
        resolved: where it was found, links resolved.
        files: name inside the folder (for a single file: its own name) -> sha256.
    """

    path: str
    role: str
    resolved: str
    files: dict[str, str]


class Interval(Record):
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float

    @model_validator(mode="after")
    def _is_ordered(self) -> "Interval":
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self


def interval_record(interval: intervals.Interval) -> Interval:
    """The saved form of an interval."""
    return Interval(mean=interval.mean, low=interval.low, high=interval.high)


class Overlap(Record):
    """The overlap of the update with the skill's Fisher matrix F.

    Attributes:
        exact: OS = vec(dW)^T F vec(dW).
        normalised: OS / (||dW||^2 tr F).
        floor: ||dW||^2 tr(F) / k, what a random projection to k dimensions adds.
        projected: the study's score under a random projection; null when not asked for.
        k: the dimension of that projection.
        normalised_by_top: OS / (||dW||^2 lambda_1).
    """

    exact: float
    normalised: float
    floor: float
    projected: float | None = None
    k: int | None = None
    normalised_by_top: float | None = None


class Top(Record):
    """The largest eigenvalues of F."""

    dims: int
    lambda_top: list[float]


class Null(Record):
    """The overlap of random updates: mean and 95th percentile over `draws`; `ratio` is observed / mean."""

    mean: float
    p95: float
    ratio: float | None
    draws: int


class Nulls(Record):
    """Random dense updates of the same norm, and random ones of the same rank and spectrum per module."""

    dense: Null
    same_rank: Null


class UtilityLoss(Interval):
    """u(base) - u(tuned) on the skill, positive where the tuned model does worse.

    Attributes:
        quadratic: the second-order prediction, OS / 2.
        reduction: how an example's tokens were reduced in `mean`, `low`, `high`, `quadratic`: "sum" or "mean".
        per_token: the same loss as a mean over tokens.
    """

    quadratic: float
    reduction: Literal["sum", "mean"]
    per_token: Interval


class Skill(Record):
    """All that was measured on one skill of `examples` examples.

    Attributes:
        first_order: the first-order prediction of the utility loss, -mean_n c_n(dW); same reduction as the loss.
    """

    examples: int
    overlap: Overlap
    first_order: float
    top: Top | None = None
    nulls: Nulls
    utility_loss: UtilityLoss


class UpdateSummary(Record):
    """The update: its kind ("adapter", "checkpoint", ...), Frobenius norm and number of modules.

    Attributes:
        not_covered: what the files hold but the update does not: name -> norm, or the reason as text.
    """

    kind: str
    norm: float
    modules: int
    not_covered: dict[str, float | str] = Field(default_factory=dict)


class Judged(Record):
    """What a judge says of one model's answers to one set of prompts; rates are shares of the answers judged.

    Attributes:
        harmfulness: mean of the 1-5 scores; null when the judge failed on every answer.
        answers: how many were generated; `judge_failures` of them have no score, `truncated` hit the length limit.
    """

    harmfulness: Interval | None
    share_of_fives: float | None
    refusal_rate: Interval | None
    coherent_rate: float | None
    answers: int
    judge_failures: int = 0
    truncated: int = 0


class Behaviour(Record):
    """The same prompts answered before and after."""

    base: Judged
    tuned: Judged


class Result(Record):
    """What every result carries; labels and reduction over tokens where a skill's gradients were taken."""

    schema_: Literal["tiltmeter/1"] = Field(default=SCHEMA, alias="schema")
    verb: str
    inputs: list[Input]
    versions: dict[str, str]
    seed: int
    dtype: str
    labels: Literal["data", "sampled"] | None = None
    reduction: Literal["sum", "mean"] | None = None
    warnings: list[str] = Field(default_factory=list)


class AuditResult(Result):
    """One fine-tune measured against its base.

    Attributes:
        skills: name of the skill -> its figures.
        chat_templates: "base" and "tuned" -> sha256 of the chat template, null where there is none.
        behaviour: name of the prompt set -> judged answers; null when nothing was judged.
        judge: the judge's name.
    """

    verb: Literal["audit"] = "audit"
    update: UpdateSummary
    skills: dict[str, Skill]
    chat_template_changed: bool
    chat_templates: dict[str, str | None] = Field(default_factory=dict)
    behaviour: dict[str, Behaviour] | None = None
    judge: str | None = None


Category = Literal["benign", "seemingly benign", "harmful"]


class RowSkill(Record):
    """A skill's figures in a row of the demo's table; `utility_loss` is the mean, in the result's reduction."""

    exact: float
    normalised: float
    floor: float
    projected: float | None = None
    k: int | None = None
    utility_loss: float


class Reference(Record):
    """The aligned model before any fine-tuning."""

    set: str = "not tuned"
    harmfulness: Interval
    refusal_rate: float
    bad_advice_rate: float | None = None


class DemoRow(Reference):
    """One fine-tune of the demo. `audit` is its run folder, relative to the demo's folder."""

    set: str
    category: Category
    method: Literal["lora", "full"]
    skills: dict[str, RowSkill]
    audit: str | None = None


class Correlation(Record):
    """Spearman's rank correlation over the demo's runs; null when a side does not vary."""

    skill: str
    of: Literal["utility_loss", "harmfulness"]
    with_: Literal["exact", "projected", "floor"] = Field(alias="with")
    spearman: float | None
    low: float | None
    high: float | None
    runs: int


class DemoResult(Result):
    """The seven fine-tuning sets, by LoRA and in full, each audited and judged."""

    verb: Literal["demo"] = "demo"
    inputs: list[Input] = Field(default_factory=list)
    rows: list[DemoRow]
    correlations: list[Correlation]
    reference: Reference


class VerdictRecord(Record):
    """What a judge said of an answer; null for what it does not judge, or where it failed. See `judges.Verdict`."""

    harm: int | None = None
    refused: bool | None = None
    coherent: bool | None = None
    code: bool | None = None
    alignment: float | None = None
    coherence: float | None = None
    failure: str | None = None


class Answer(VerdictRecord):
    """One judged answer. `stop` says why it ended: "end" by the model itself, "length" by the limit of tokens."""

    text: str
    stop: str | None = None


class Transcript(Record):
    """One prompt of the set `prompts`, answered by both models: a line of `transcripts.jsonl`."""

    prompts: str
    prompt: str
    base: Answer
    tuned: Answer
