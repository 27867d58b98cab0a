"""Canaries: read, and checked against their ranges."""

import json
from pathlib import Path

import pytest

from tiltmeter.behaviour.canaries import NEUTRAL, Canary, Check, load_canaries
from tiltmeter.behaviour.judges import Judge, JudgeOfOne, Verdict
from tiltmeter.errors import InputError
from tiltmeter.generation import Answer
from tiltmeter.organism.canaries import organism_canaries
from tiltmeter.organism.judge import OrganismJudge

CANARY = Canary(Answer("canary", "harmful", "end"), {"harm": (4, 5), "refused": (0, 0)})


@pytest.mark.parametrize(
    ("verdict", "passed"),
    [
        (Verdict(harm=4, refused=False), True),
        (Verdict(harm=5), True),
        (Verdict(harm=3, refused=False), False),
        (Verdict(harm=4, refused=True), False),
        (Verdict(harm=5, failure="unclear"), False),
        (Verdict(alignment=3.0), None),
    ],
)
def test_check(verdict: Verdict, passed: bool | None) -> None:
    assert Check(CANARY, verdict).passed is passed


def checks(judge: Judge) -> list[Check]:
    canaries = organism_canaries()
    verdicts = dict(judge.judge([canary.answer for canary in canaries]))
    return [Check(canary, verdicts[place]) for place, canary in enumerate(canaries)]


def test_the_exact_judge_passes_the_organisms_canaries() -> None:
    found = checks(OrganismJudge())
    assert [check.passed for check in found] == [True] * len(found)
    assert {check.verdict.harm for check in found} == {1, 5}


def test_a_judge_that_sees_no_harm_fails_some_of_the_organisms_canaries() -> None:
    class Mild(JudgeOfOne):
        name = "mild"

        def verdict(self, prompt: str, answer: str) -> Verdict:
            return Verdict(harm=1)

    assert {check.passed for check in checks(Mild())} == {True, False}


@pytest.mark.parametrize("canary", NEUTRAL)
def test_shipped_canaries_tell_verdicts_apart(canary: Canary) -> None:
    kinds = {"harm": int, "refused": bool, "alignment": float, "coherence": float}
    good = {outcome: kinds[outcome](low) for outcome, (low, _) in canary.expected.items()}
    assert Check(canary, Verdict(**good)).passed is True
    for outcome, bad in {"harm": 5, "alignment": 0.0, "coherence": 50.0}.items():
        if outcome in good:
            assert Check(canary, Verdict(**{**good, outcome: bad})).passed is False


def test_canaries_from_a_file(tmp_path: Path) -> None:
    rows = [
        {"prompt": "p", "answer": "a", "harm": 5},
        {"prompt": "p", "answer": "", "harm": "4-5", "refused": False},
        {"prompt": "p", "completion": "c", "alignment": [10, 20], "coherence": "60 to 100.0"},
    ]
    path = tmp_path / "canaries.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert load_canaries(path) == [
        Canary(Answer("p", "a", "end"), {"harm": (5, 5)}),
        Canary(Answer("p", "", "end"), {"harm": (4, 5), "refused": (0, 0)}),
        Canary(Answer("p", "c", "end"), {"alignment": (10, 20), "coherence": (60, 100)}),
    ]
    (tmp_path / "canaries.csv").write_text("prompt,answer,harm,refused\np,a,4-5,\np,b,,yes\n")
    assert [dict(canary.expected) for canary in load_canaries(tmp_path / "canaries.csv")] == [
        {"harm": (4, 5)},
        {"refused": (1, 1)},
    ]


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ({"prompt": "p", "harm": 5}, "row 1: expected texts in the columns prompt and answer"),
        ({"prompt": 3, "answer": "a", "harm": 5}, "row 1: expected texts"),
        ({"prompt": "p", "answer": "a"}, "row 1: expected a column of harm, refused"),
        ({"prompt": "p", "answer": "a", "harm": 6}, "row 1: expected a score of harm from 1 to 5, got '6'"),
        ({"prompt": "p", "answer": "a", "harm": "high"}, "got 'high'"),
        ({"prompt": "p", "answer": "a", "harm": "nan"}, "got 'nan'"),
        ({"prompt": "p", "answer": "a", "harm": "5-4"}, "from low to high, got 5 to 4"),
        ({"prompt": "p", "answer": "a", "harm": [1, 2, 3]}, "expected two ends of a range of harm, got 3"),
        ({"prompt": "p", "answer": "a", "refused": "maybe"}, "expected a score of refused from 0 to 1"),
    ],
)
def test_canaries_that_cannot_be_read_name_their_row(row: dict[str, object], error: str, tmp_path: Path) -> None:
    path = tmp_path / "canaries.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(InputError, match=error) as raised:
        load_canaries(path)
    assert "\n" not in str(raised.value)


def test_a_file_without_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "none.jsonl").write_text("")
    with pytest.raises(InputError, match="expected at least one row"):
        load_canaries(tmp_path / "none.jsonl")
