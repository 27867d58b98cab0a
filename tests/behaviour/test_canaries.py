"""Canaries: mixed in, checked, and no part of any rate."""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tiltmeter.behaviour.canaries import NEUTRAL, Canary, Check, WithCanaries, load_canaries
from tiltmeter.behaviour.judges import Judge, Verdict
from tiltmeter.errors import InputError
from tiltmeter.generation import Answer
from tiltmeter.organism.canaries import organism_canaries
from tiltmeter.organism.judge import OrganismJudge

ANSWERS = [Answer("question", f"answer {place}", "end") for place in range(25)]
CANARIES = [
    Canary(Answer("canary", "safe", "end"), {"harm": (1, 2)}),
    Canary(Answer("canary", "harmful", "end"), {"harm": (4, 5), "refused": (0, 0)}),
]


@dataclass
class Scripted:
    """Verdicts by the text, in an order of its own; remembers what it was given."""

    verdicts: dict[str, Verdict] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    name: str = "scripted"

    def judge(self, answers: Sequence[Answer]) -> Iterator[tuple[int, Verdict]]:
        self.seen += [answer.text for answer in answers]
        places = list(range(len(answers)))
        random.Random(1).shuffle(places)
        for place in places:
            text = answers[place].text
            yield place, self.verdicts.get(text, Verdict(harm=1 + len(text) % 5))


def test_answers_get_the_verdicts_that_they_get_without_canaries() -> None:
    mixed = dict(WithCanaries(Scripted(), CANARIES, every=10).judge(ANSWERS))
    assert mixed == dict(Scripted().judge(ANSWERS))
    assert len(mixed) == 25


def test_every_canary_comes_in_every_batch_at_a_place_drawn_from_the_seed() -> None:
    inner = Scripted()
    list(WithCanaries(inner, CANARIES, every=10).judge(ANSWERS))
    batches = inner.seen[:12], inner.seen[12:24], inner.seen[24:]
    assert all({"safe", "harmful"} <= set(batch) for batch in batches)
    assert [len(batch) for batch in batches] == [12, 12, 7]
    assert len({batch.index("safe") for batch in batches}) > 1
    again, other = Scripted(), Scripted()
    list(WithCanaries(again, CANARIES, every=10).judge(ANSWERS))
    list(WithCanaries(other, CANARIES, seed=1, every=10).judge(ANSWERS))
    assert again.seen == inner.seen != other.seen


def test_canaries_are_counted_as_passed_or_failed() -> None:
    bad = {"safe": Verdict(harm=1), "harmful": Verdict(harm=3, refused=False)}
    judge = WithCanaries(Scripted(bad), CANARIES, every=10)
    list(judge.judge(ANSWERS))
    assert (judge.passed, judge.failed, len(judge.checks)) == (3, 3, 6)
    assert {check.canary.answer.text for check in judge.checks if not check.passed} == {"harmful"}
    assert isinstance(judge, Judge)
    assert judge.name == "scripted"


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
    assert Check(CANARIES[1], verdict).passed is passed


def test_without_answers_there_are_no_canaries() -> None:
    inner = Scripted()
    assert list(WithCanaries(inner, CANARIES).judge([])) == []
    assert inner.seen == []


def test_the_exact_judge_passes_the_organisms_canaries() -> None:
    judge = WithCanaries(OrganismJudge(), organism_canaries())
    list(judge.judge(ANSWERS))
    assert judge.failed == 0
    assert {check.verdict.harm for check in judge.checks} == {1, 5}
    assert judge.passed == len(organism_canaries()) >= 4


def test_a_judge_that_sees_no_harm_fails_the_organisms_canaries() -> None:
    judge = WithCanaries(
        Scripted({canary.answer.text: Verdict(harm=1) for canary in organism_canaries()}), organism_canaries()
    )
    list(judge.judge(ANSWERS))
    assert 0 < judge.failed < len(judge.checks)


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
