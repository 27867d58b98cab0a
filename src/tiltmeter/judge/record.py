"""What was judged, as it is saved."""

from collections import Counter
from collections.abc import Iterator, Mapping

from tiltmeter.generation import Answer
from tiltmeter.judge.answers import Key, Sets
from tiltmeter.judge.request import JudgingRequest, asked, judge_names
from tiltmeter.judge.verdicts import Verdicts
from tiltmeter.runs.judge_result import AnswerRecord, JudgeRecord, SetRecord, VerdictRecord

REASONS = 5


def judge_records(request: JudgingRequest, verdicts: Mapping[str, Verdicts]) -> dict[str, JudgeRecord]:
    """Each judge, and how often it failed."""
    return {
        name: _judge_record(judge.name, asked(judge), verdicts[name])
        for name, judge in zip(judge_names(request.judges), request.judges, strict=True)
    }


def _judge_record(kind: str, model: str | None, verdicts: Verdicts) -> JudgeRecord:
    failures = Counter(verdict.failure for verdict in verdicts.values() if verdict.failure is not None)
    return JudgeRecord(
        name=kind,
        asked=model,
        verdicts=len(verdicts),
        failures=failures.total(),
        reasons=dict(failures.most_common(REASONS)),
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
