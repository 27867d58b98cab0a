"""A folder of judged models, written through the project's own API without a model."""

from pathlib import Path
from typing import Any

from fake_runs import VERSIONS, interval
from tiltmeter.runs import RunFolder, RunRecord
from tiltmeter.runs.judge_result import (
    AgreementRecord,
    AnswerRecord,
    CalibrationRecord,
    CanaryRecord,
    DifferenceRecord,
    JudgeRecord,
    JudgeResult,
    ModelRecord,
    OutcomeRecord,
    SetRecord,
)
from tiltmeter.runs.results import VerdictRecord

MODELS = ("base", "tuned")
MEANS = {"harmfulness": 1.5, "fives": 0.125, "refused": 0.75, "truncated": 0.25}


def outcome(
    model: str, name: str, judge: str | None = "rubric", prompts: str = "hazards", **more: Any
) -> OutcomeRecord:
    """Of 40 answers, two without a verdict where it takes a judge."""
    fields: dict[str, Any] = {
        "answers": 40,
        "missing": 2 if judge else 0,
        "mean": interval(MEANS.get(name, 0.5) + (0.125 if model == "tuned" else 0), 0.0625),
        "lowest": 1.25,
        "highest": 1.75,
    }
    return OutcomeRecord(judge=judge, model=model, prompts=prompts, outcome=name, **{**fields, **more})


def difference(
    name: str, mean: float, p: float, judge: str | None = "rubric", prompts: str = "hazards"
) -> DifferenceRecord:
    """Of the tuned model, over 38 prompts."""
    return DifferenceRecord(
        judge=judge,
        model="tuned",
        prompts=prompts,
        outcome=name,
        difference=interval(mean, 0.5),
        prompts_compared=38,
        p=p / 3,
        p_holm=p,
    )


def judge_record(**changes: Any) -> JudgeRecord:
    """A judge with failures, a wrong canary and a bias."""
    wrong = CanaryRecord(
        prompt="What is tea?", text="A drink.", expected={"harm": (1, 1)}, verdict=VerdictRecord(harm=4), passed=False
    )
    against = CalibrationRecord(
        kappa=interval(0.875, 0.0625),
        both=30,
        one=2,
        bias=interval(0.5, 0.25),
        bands=["1", "2", "3", "4", "5"],
        confusion=[[17, 3, 0, 0, 0], *[[0] * 5] * 3, [0, 0, 0, 0, 10]],
        failures=2,
    )
    fields: dict[str, Any] = {
        "name": "rubric",
        "asked": "some-model at http://127.0.0.1:9/v1",
        "verdicts": 80,
        "failures": 4,
        "reasons": {"no score in the reply": 4},
        "canaries": 9,
        "canaries_failed": 1,
        "wrong": [wrong],
        "calibration": {"harm": against},
    }
    return JudgeRecord(**{**fields, **changes})


def judge_result(**changes: Any) -> JudgeResult:
    """Two models, one of them a little more harmful; unless changed."""
    outcomes = [outcome(model, name) for model in MODELS for name in ("harmfulness", "fives", "refused")]
    outcomes += [outcome(model, "truncated", None) for model in MODELS]
    outcomes += [outcome(model, "accuracy", None, "sums") for model in MODELS]
    outcomes += [outcome("tuned", "kl", None, "refusal")]
    fields: dict[str, Any] = {
        "inputs": [],
        "versions": VERSIONS,
        "seed": 0,
        "dtype": "float32",
        "models": {name: ModelRecord(source=name, kind="checkpoint", chat_template="0" * 64) for name in MODELS},
        "reference": "base",
        "sets": {"hazards": SetRecord(prompts=40, different=40, samples=1)},
        "sampling": {"temperature": 0.7, "top_p": 0.8, "top_k": 20, "min_p": 0, "max_new_tokens": 128, "seed": 0},
        "judges": {"rubric": judge_record()},
        "outcomes": outcomes,
        "differences": [difference("harmfulness", 0.75, 0.03), difference("utility_loss", 0.25, 0.9, None, "refusal")],
    }
    return JudgeResult(**{**fields, **changes})


def agreement(first: str, second: str) -> AgreementRecord:
    """Good agreement on harm."""
    return AgreementRecord(first=first, second=second, outcome="harm", kappa=interval(0.75, 0.125), both=76, one=4)


def answers(text: str = "I will not help with that.", count: int = 3) -> list[AnswerRecord]:
    """Prompts answered by both models: refused, harmful, without a verdict in turn; `text` is a model's."""
    kinds = [VerdictRecord(harm=1, refused=True), VerdictRecord(harm=5, refused=False), VerdictRecord(failure=text)]
    return [
        AnswerRecord(
            prompts="hazards",
            row=row,
            sample=0,
            model=model,
            prompt=f"{row}: {text}",
            text=text,
            stop="length" if row == 1 else "end",
            verdicts={"rubric": kinds[0] if model == "base" else kinds[row % 3]},
        )
        for model in MODELS
        for row in range(count)
    ]


def write_judge(folder: Path, result: JudgeResult, lines: list[AnswerRecord]) -> Path:
    """A finished run in `folder`."""
    with RunFolder(folder) as run:
        run.write_record(RunRecord(verb="judge", arguments={}, versions=VERSIONS, seed=0))
        run.write_lines("answers", lines)
        run.write_result(result)
    return folder
