"""Verdicts are written as they come; what was judged is not judged again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sklearn.metrics import cohen_kappa_score

from tiltmeter.behaviour.calibration import Labelled
from tiltmeter.behaviour.canaries import Canary
from tiltmeter.behaviour.judges import Verdict
from tiltmeter.errors import InputError
from tiltmeter.generation import Answer
from tiltmeter.judge.checks import agreement_records, calibration_records, labelled_answers
from tiltmeter.judge.verdicts import Judging, VerdictLine
from tiltmeter.runs.journal import Journal

CANARIES = [
    Canary(Answer("prompt", "canary 1", "end"), {"harm": (2, 2)}),
    Canary(Answer("prompt", "canary 5", "end"), {"alignment": (0, 1)}),
]
ANSWERS = {("m", "p", row, 0): Answer("prompt", f"answer {row}", "end") for row in range(6)}


@dataclass
class Backwards:
    """Judges from the last to the first; ends with an error after some."""

    name = "backwards"
    most: int = 999
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


def judging(folder: Path, **judges: Backwards) -> Judging:
    return Judging(judges, dict.fromkeys(judges, CANARIES), journal(folder))


def test_verdicts_go_to_their_answers_whatever_their_order(tmp_path: Path) -> None:
    judge = Backwards()
    found = judging(tmp_path, a=judge).judge(ANSWERS)
    assert [*found["a"].items()] == [(key, judge.verdict(answer)) for key, answer in ANSWERS.items()]


def test_what_was_judged_is_not_judged_again(tmp_path: Path) -> None:
    first, second, other = Backwards(most=4), Backwards(), Backwards()
    with pytest.raises(InputError, match="has gone"):
        judging(tmp_path, a=first).judge(ANSWERS)
    run = judging(tmp_path, a=second, b=other)
    found = run.judge(ANSWERS)
    texts = [answer.text for answer in ANSWERS.values()] + ["canary 1", "canary 5"]
    assert sorted(first.seen + second.seen) == sorted(other.seen) == sorted(texts)
    assert found["a"] == found["b"]
    third = Backwards()
    again = judging(tmp_path, a=third, b=third)
    assert again.judge(ANSWERS) == found
    assert again.checks == run.checks
    assert not third.seen


def test_canaries_come_once_in_each_hundred_and_are_no_verdicts(tmp_path: Path) -> None:
    answers = {("m", "p", row, 0): Answer("prompt", f"answer {row}", "end") for row in range(230)}
    judge = Backwards()
    run = judging(tmp_path, a=judge)
    assert [*run.judge(answers)["a"]] == [*answers]
    asked = judge.seen[::-1]
    assert [sum(text.startswith("canary") for text in asked[start : start + 102]) for start in (0, 102, 204)] == [2] * 3
    assert asked.index("canary 1") not in (0, 100, 101)
    assert [check.passed for check in run.checks["a"]].count(False) == 3  # those that call 5 a number below 2
    assert len(run.checks["a"]) == 6


def test_labelled_answers_are_judged_apart(tmp_path: Path) -> None:
    judge = Backwards()
    run = judging(tmp_path, a=judge)
    labelled = [Labelled(Answer("q", f"said {score:g}", "end"), {"harm": score}) for score in (1.0, 4.0, 5.0)]
    run.judge(ANSWERS)
    found = run.judge(labelled_answers(labelled))["a"]
    assert [verdict.harm for verdict in found.values()] == [2, 5, 1]
    records = calibration_records(labelled, found, 0)
    assert records.keys() == {"harm"}
    harm = records["harm"]
    assert harm.bias is not None
    assert harm.bias.mean == pytest.approx((1 + 1 - 4) / 3)
    assert harm.confusion[0][1] == harm.confusion[3][4] == harm.confusion[4][0] == 1


def test_agreement_is_over_all_answers_with_prompts_kept_together() -> None:
    answers = {("m", "p", row, 0): Answer(f"prompt {row // 2}", "text", "end") for row in range(8)}
    one, two = [1, 2, 5, 4, 3, 1, 2, 5], [1, 3, 5, 5, None, 1, 2, 4]
    verdicts = {
        "a": {key: Verdict(harm=score) for key, score in zip(answers, one, strict=True)},
        "b": {key: Verdict(harm=score) for key, score in zip(answers, two, strict=True)},
    }
    (record,) = agreement_records(answers, verdicts, 0)
    assert (record.first, record.second, record.outcome, record.both, record.one) == ("a", "b", "harm", 7, 1)
    pairs = [(x, y) for x, y in zip(one, two, strict=True) if y is not None]
    first, second = [x for x, _ in pairs], [y for _, y in pairs]
    expected = cohen_kappa_score(first, second, weights="quadratic", labels=[1, 2, 3, 4, 5])
    assert record.kappa is not None
    assert record.kappa.mean == pytest.approx(expected)
