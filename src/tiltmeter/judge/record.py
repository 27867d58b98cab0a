"""What was judged, as it is saved."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tiltmeter.behaviour.canaries import Check
from tiltmeter.behaviour.judges.named import JudgeRequest
from tiltmeter.generation import Answer
from tiltmeter.judge.answers import Key, Sets
from tiltmeter.judge.checks import WRONG, canary_record
from tiltmeter.judge.request import asked
from tiltmeter.judge.verdicts import Verdicts
from tiltmeter.runs.judge_result import AnswerRecord, CalibrationRecord, JudgeRecord, SetRecord
from tiltmeter.runs.results import VerdictRecord

REASONS = 5


@dataclass(frozen=True)
class Judged:
    """What one judge said: of answers, of canaries, and of answers that people gave scores to."""

    verdicts: Verdicts
    checks: Sequence[Check]
    calibration: Mapping[str, CalibrationRecord]


def judge_record(request: JudgeRequest, judged: Judged) -> JudgeRecord:
    """A judge, and how far its word can be taken."""
    failures = Counter(verdict.failure for verdict in judged.verdicts.values() if verdict.failure is not None)
    wrong = [check for check in judged.checks if check.passed is False]
    return JudgeRecord(
        name=request.name,
        asked=asked(request),
        verdicts=len(judged.verdicts),
        failures=failures.total(),
        reasons=dict(failures.most_common(REASONS)),
        canaries=sum(check.passed is not None for check in judged.checks),
        canaries_failed=len(wrong),
        wrong=[canary_record(check) for check in wrong[:WRONG]],
        calibration=dict(judged.calibration),
    )


def set_records(sets: Sets, samples: int) -> dict[str, SetRecord]:
    """The sizes of the sets of prompts."""
    return {
        name: SetRecord(prompts=len(prompts), different=len(set(prompts)), samples=samples)
        for name, prompts in sets.items()
    }


def answer_lines(answers: Mapping[Key, Answer], verdicts: Mapping[str, Verdicts]) -> Iterator[AnswerRecord]:
    """Every answer with its verdicts."""
    for key, answer in answers.items():
        model, prompts, row, sample = key
        yield AnswerRecord(
            prompts=prompts,
            row=row,
            sample=sample,
            model=model,
            prompt=answer.prompt,
            text=answer.text,
            stop=answer.stop,
            verdicts={judge: VerdictRecord(**vars(found[key])) for judge, found in verdicts.items()},
        )
