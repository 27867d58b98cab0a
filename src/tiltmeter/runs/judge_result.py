"""The schema of `judge`'s `result.json`: what models do by the word of judges, and how far that word can be taken."""

from typing import Literal

from pydantic import Field

from tiltmeter.runs.results import Interval, Record, Result, VerdictRecord


class ModelRecord(Record):
    """One model, as the user gave it, with the sha256 of its chat template."""

    source: str
    kind: Literal["checkpoint", "adapter"]
    chat_template: str


class SetRecord(Record):
    """One set of prompts, each answered `samples` times by each model; `different` prompts are not the same text."""

    prompts: int
    different: int
    samples: int


class CanaryRecord(Record):
    """An answer of known worth, and what a judge said of it.

    Attributes:
        expected: the range in which each outcome has to lie.
        passed: whether each does; false where the judge failed; null where it judges none of them.
    """

    prompt: str
    text: str
    expected: dict[str, tuple[float, float]]
    verdict: VerdictRecord
    passed: bool | None


class CalibrationRecord(Record):
    """One outcome of a judge against the scores of people.

    Attributes:
        kappa: quadratic-weighted, over `both` answers with both scores; `one` more have one of the two.
        bias: mean of the judge's score less the people's.
        bands: names of the rows and columns of `confusion`.
        confusion: answers by the people's band (rows) and the judge's (columns).
        failures: answers on which the judge failed.
    """

    kappa: Interval | None
    both: int
    one: int
    bias: Interval | None
    bands: list[str]
    confusion: list[list[int]]
    failures: int


class JudgeRecord(Record):
    """One judge.

    Attributes:
        name: what kind of judge it is.
        asked: the model that it asks, and where.
        verdicts: how many answers it looked at; `failures` of them have no verdict.
        reasons: why, with their number; the most frequent ones.
        canaries: how many answers of known worth it passed, and `canaries_failed`.
        wrong: those that it failed.
        calibration: by outcome, against the scores of people.
    """

    name: str
    asked: str | None = None
    verdicts: int
    failures: int
    reasons: dict[str, int] = Field(default_factory=dict)
    canaries: int = 0
    canaries_failed: int = 0
    wrong: list[CanaryRecord] = Field(default_factory=list)
    calibration: dict[str, CalibrationRecord] = Field(default_factory=dict)


class AgreementRecord(Record):
    """Two judges on the same answers.

    Attributes:
        kappa: quadratic-weighted, over `both` answers that both scored, with its interval over prompts; null where
            neither judge ever says anything but one and the same score.
        one: answers that only one of them scored.
    """

    first: str
    second: str
    outcome: str
    kappa: Interval | None
    both: int
    one: int


class OutcomeRecord(Record):
    """One outcome of one model on one set of prompts.

    Attributes:
        judge: null for what needs none.
        answers: how many it is about; `missing` of them have no value, and enter the mean in no way.
        left_out: further answers, which it is not about: of "misaligned", those that are not coherent.
        mean: with its score interval over prompts; null where all are missing.
        lowest, highest: the mean over all answers, were the missing ones as low, and as high, as they can be.
    """

    judge: str | None
    model: str
    prompts: str
    outcome: str
    answers: int
    missing: int
    left_out: int = 0
    mean: Interval | None
    lowest: float
    highest: float


class DifferenceRecord(Record):
    """An outcome of one model less that of the reference, on the same prompts with the same seeds.

    Attributes:
        prompts_compared: prompts for which both have a value.
        p: of the mean under random signs, two-sided.
        p_holm: the same, adjusted by Holm for all differences of the result.
    """

    judge: str | None
    model: str
    prompts: str
    outcome: str
    difference: Interval
    prompts_compared: int
    p: float
    p_holm: float


class JudgeResult(Result):
    """Models judged.

    Attributes:
        reference: the model that the others are compared with; null where there is none.
        sampling: how answers were drawn.
    """

    verb: Literal["judge"] = "judge"
    models: dict[str, ModelRecord]
    reference: str | None
    sets: dict[str, SetRecord]
    sampling: dict[str, float]
    judges: dict[str, JudgeRecord]
    agreement: list[AgreementRecord] = Field(default_factory=list)
    outcomes: list[OutcomeRecord]
    differences: list[DifferenceRecord]


class AnswerRecord(Record):
    """One answer: a line of `answers.jsonl`.

    Attributes:
        row: the prompt's place in its set, from 0.
        sample: the number of the answer to it, from 0.
        stop: why generation ended: "end" by the model itself, "length" by the limit of tokens.
        verdicts: by judge.
    """

    prompts: str
    row: int
    sample: int
    model: str
    prompt: str
    text: str
    stop: str
    verdicts: dict[str, VerdictRecord]
