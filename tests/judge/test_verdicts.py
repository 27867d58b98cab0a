"""Verdicts are written as they come; what was judged is not judged again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tiltmeter.behaviour.judges import Verdict
from tiltmeter.errors import InputError
from tiltmeter.generation import Answer
from tiltmeter.judge.verdicts import VerdictLine, judge_all
from tiltmeter.runs.journal import Journal

ANSWERS = {("m", "p", row, 0): Answer("prompt", f"answer {row}", "end") for row in range(6)}


@dataclass
class Backwards:
    """Judges from the last to the first; ends with an error after some."""

    name = "backwards"
    most: int = 99
    seen: list[str] = field(default_factory=list)

    def judge(self, answers: Sequence[Answer]) -> Iterator[tuple[int, Verdict]]:
        for count, place in enumerate(reversed(range(len(answers)))):
            if count == self.most:
                raise InputError("the endpoint has gone")
            self.seen.append(answers[place].text)
            yield place, self.verdict(answers[place])

    def verdict(self, answer: Answer) -> Verdict:
        number = int(answer.text[-1])
        return Verdict(failure="three") if number == 3 else Verdict(harm=1 + number % 5, alignment=number / 3)


def journal(folder: Path) -> Journal[VerdictLine]:
    return Journal(folder, "verdicts", VerdictLine)


def test_verdicts_go_to_their_answers_whatever_their_order(tmp_path: Path) -> None:
    judge = Backwards()
    found = judge_all({"a": judge}, ANSWERS, journal(tmp_path))
    assert [*found["a"].items()] == [(key, judge.verdict(answer)) for key, answer in ANSWERS.items()]


def test_what_was_judged_is_not_judged_again(tmp_path: Path) -> None:
    first, second, other = Backwards(most=4), Backwards(), Backwards()
    with pytest.raises(InputError, match="has gone"):
        judge_all({"a": first}, ANSWERS, journal(tmp_path))
    found = judge_all({"a": second, "b": other}, ANSWERS, journal(tmp_path))
    assert sorted(first.seen + second.seen) == sorted(other.seen) == [answer.text for answer in ANSWERS.values()]
    assert found["a"] == found["b"]
    third = Backwards()
    assert judge_all({"a": third, "b": third}, ANSWERS, journal(tmp_path)) == found
    assert not third.seen
