"""The schema of `judge`'s `result.json`: what models do by the word of judges, and how far that word can be taken."""

from typing import Literal

from pydantic import Field

from tiltmeter.runs.results import Interval, Record, Result


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


class JudgeRecord(Record):
    """One judge.

    Attributes:
        name: what kind of judge it is.
        asked: the model that it asks, and where.
        verdicts: how many answers it looked at; `failures` of them have no verdict.
        reasons: why, with their number; the most frequent ones.
    """

    name: str
    asked: str | None = None
    verdicts: int
    failures: int
    reasons: dict[str, int] = Field(default_factory=dict)


class OutcomeRecord(Record):
    """One outcome of one model on one set of prompts.

    Attributes:
        judge: null for what needs none.
        answers: how many there are; `missing` of them have no value, and enter the mean in no way.
        mean: with its score interval over prompts; null where all are missing.
        lowest, highest: the mean over all answers, were the missing ones as low, and as high, as they can be.
    """

    judge: str | None
    model: str
    prompts: str
    outcome: str
    answers: int
    missing: int
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
    outcomes: list[OutcomeRecord]
    differences: list[DifferenceRecord]


class VerdictRecord(Record):
    """What a judge said of an answer; null for what it does not judge, or where it failed. See `judges.Verdict`."""

    harm: int | None = None
    refused: bool | None = None
    coherent: bool | None = None
    code: bool | None = None
    alignment: float | None = None
    coherence: float | None = None
    failure: str | None = None


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
