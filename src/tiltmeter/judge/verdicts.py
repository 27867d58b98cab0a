"""Judges judge answers; a run that goes on after a kill asks about what is missing only."""

from collections.abc import Mapping
from typing import TypeAlias

from tiltmeter.behaviour.judges import Judge, Verdict
from tiltmeter.generation import Answer
from tiltmeter.judge.answers import Key
from tiltmeter.progress import track
from tiltmeter.runs.journal import Journal
from tiltmeter.runs.judge_result import VerdictRecord
from tiltmeter.runs.results import Record

Verdicts: TypeAlias = dict[Key, Verdict]


class VerdictLine(Record):
    """One verdict in the journal."""

    judge: str
    model: str
    prompts: str
    row: int
    sample: int
    verdict: VerdictRecord

    @property
    def key(self) -> Key:
        """Which answer it is about."""
        return self.model, self.prompts, self.row, self.sample


def judge_all(
    judges: Mapping[str, Judge], answers: Mapping[Key, Answer], journal: Journal[VerdictLine]
) -> dict[str, Verdicts]:
    """Every judge's verdict on every answer, by the judge's name, in the order of the answers.

    Args:
        journal: gets each verdict as it comes.
    """
    known: dict[str, Verdicts] = {name: {} for name in judges}
    for line in journal.records:
        known[line.judge][line.key] = Verdict(**line.verdict.model_dump())
    for name, judge in judges.items():
        missing = [key for key in answers if key not in known[name]]
        if missing:
            came = judge.judge([answers[key] for key in missing])
            for place, verdict in track(came, f"{name} judges", len(missing)):
                journal.append(_line(name, missing[place], verdict))
                known[name][missing[place]] = verdict
    return {name: {key: found[key] for key in answers} for name, found in known.items()}


def _line(judge: str, key: Key, verdict: Verdict) -> VerdictLine:
    model, prompts, row, sample = key
    record = VerdictRecord(**vars(verdict))
    return VerdictLine(judge=judge, model=model, prompts=prompts, row=row, sample=sample, verdict=record)
