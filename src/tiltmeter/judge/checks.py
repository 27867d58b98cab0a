"""Judges measured: on answers of known worth, against each other, and against people."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np

from tiltmeter.behaviour.agreement import agreement
from tiltmeter.behaviour.calibration import Calibration, Labelled, calibrate
from tiltmeter.behaviour.canaries import NEUTRAL, Canary, Check, load_canaries
from tiltmeter.behaviour.judges import Verdict
from tiltmeter.behaviour.labels import SCALES, value_of
from tiltmeter.generation import Answer
from tiltmeter.intervals import Interval
from tiltmeter.judge.answers import Key
from tiltmeter.judge.verdicts import Verdicts
from tiltmeter.organism.canaries import organism_canaries
from tiltmeter.organism.judge import OrganismJudge
from tiltmeter.runs import results
from tiltmeter.runs.judge_result import AgreementRecord, CalibrationRecord, CanaryRecord
from tiltmeter.runs.results import VerdictRecord, interval_record

PEOPLE = "\0people"  # in the place of the model, for answers that people gave scores to
WRONG = 20


def canaries_for(kind: str, files: Sequence[str]) -> list[Canary]:
    """What a kind of judge is tried on: answers of the organism for its own judge, else neutral ones and the files'.

    Raises:
        InputError: a file that cannot be read.
    """
    given = [canary for file in files for canary in load_canaries(file)]
    return organism_canaries() if kind == OrganismJudge.name else [*NEUTRAL, *given]


def canary_record(check: Check) -> CanaryRecord:
    """A canary as it is saved."""
    return CanaryRecord(
        prompt=check.canary.answer.prompt,
        text=check.canary.answer.text,
        expected=dict(check.canary.expected),
        verdict=VerdictRecord(**vars(check.verdict)),
        passed=check.passed,
    )


def agreement_records(
    answers: Mapping[Key, Answer], verdicts: Mapping[str, Verdicts], seed: int
) -> Iterator[AgreementRecord]:
    """Every two judges on every outcome that both judge, over all answers; those to one prompt stay together."""
    groups = np.unique([answer.prompt for answer in answers.values()], return_inverse=True)[1]
    for first, second in combinations(verdicts, 2):
        for outcome in SCALES:
            one, two = (
                np.array([_number(verdicts[judge][key], outcome) for key in answers]) for judge in (first, second)
            )
            if np.isfinite(one).any() and np.isfinite(two).any():
                found = agreement(one, two, groups, seed)
                yield AgreementRecord(
                    first=first,
                    second=second,
                    outcome=outcome,
                    kappa=_optional(found.kappa),
                    both=found.both,
                    one=found.one,
                )


def labelled_answers(labelled: Sequence[Labelled]) -> dict[Key, Answer]:
    """Answers that people gave scores to, as answers to be judged."""
    return {(PEOPLE, "", row, 0): each.answer for row, each in enumerate(labelled)}


def calibration_records(labelled: Sequence[Labelled], verdicts: Verdicts, seed: int) -> dict[str, CalibrationRecord]:
    """A judge against people, by outcome."""
    found = calibrate(labelled, list(verdicts.values()), seed)
    return {outcome: _calibration(each) for outcome, each in found.items()}


def _calibration(found: Calibration) -> CalibrationRecord:
    return CalibrationRecord(
        kappa=_optional(found.agreement.kappa),
        both=found.agreement.both,
        one=found.agreement.one,
        bias=_optional(found.bias),
        bands=list(found.bands),
        confusion=found.confusion.tolist(),
        failures=found.failures,
    )


def _number(verdict: Verdict, outcome: str) -> float:
    value = value_of(verdict, outcome)
    return np.nan if value is None else value


def _optional(interval: Interval | None) -> results.Interval | None:
    return None if interval is None else interval_record(interval)
