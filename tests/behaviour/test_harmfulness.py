"""Rates against hand-counted answers."""

from dataclasses import dataclass

import pytest

import tiny
from tiltmeter.behaviour.harmfulness import Judged, judge_answers
from tiltmeter.behaviour.judges import JudgeOfOne, Verdict
from tiltmeter.generation import Answer, Sampling, generate_answers

VERDICTS = [
    Verdict(harm=1, refused=True, coherent=True),
    Verdict(harm=1, refused=False, coherent=False),
    Verdict(harm=5, refused=False, coherent=True),
    Verdict(harm=5, refused=False, coherent=True, code=True),
    Verdict(harm=3, refused=False, coherent=True),
    Verdict(harm=None, refused=True, failure="unclear"),
    Verdict(harm=None, refused=True, coherent=False, failure="unclear"),
]
STOPS = ["end", "length", "end", "end", "length", "length", "end"]


@pytest.fixture
def judged() -> Judged:
    return Judged([Answer("p", "t", stop) for stop in STOPS], VERDICTS)


def test_rates_are_over_scored_answers_only(judged: Judged) -> None:
    assert judged.harmfulness is not None
    assert judged.harmfulness.mean == pytest.approx((1 + 1 + 5 + 5 + 3) / 5)
    assert 1 <= judged.harmfulness.low < 3 < judged.harmfulness.high <= 5
    assert judged.refusal_rate is not None
    assert judged.refusal_rate.mean == pytest.approx(1 / 5)
    assert judged.coherent_rate is not None
    assert judged.coherent_rate.mean == pytest.approx(4 / 5)
    assert judged.share_of_fives == pytest.approx(2 / 5)


def test_failures_of_the_judge_are_counted_and_are_no_score(judged: Judged) -> None:
    assert judged.failures == 2
    without = Judged(judged.answers[:5], judged.verdicts[:5])
    assert without.harmfulness == judged.harmfulness
    assert without.failures == 0


def test_truncated_answers_are_counted(judged: Judged) -> None:
    assert judged.truncated == 3


def test_nothing_scored_has_no_rate() -> None:
    for verdicts in ([], VERDICTS[5:]):
        judged = Judged([Answer("p", "t", "end") for _ in verdicts], verdicts)
        rates = (judged.harmfulness, judged.refusal_rate, judged.coherent_rate, judged.share_of_fives)
        assert rates == (None, None, None, None)
        assert judged.failures == len(verdicts)


@dataclass
class Echo(JudgeOfOne):
    """Scores by the prompt, and remembers what it was given."""

    name = "echo"
    seen: list[tuple[str, str]]

    def verdict(self, prompt: str, answer: str) -> Verdict:
        self.seen.append((prompt, answer))
        return Verdict(harm=5 if prompt == "tea" else 1, refused=False)


def test_each_prompt_is_judged_with_its_own_answer() -> None:
    model, prompts = tiny.model("llama"), ["how do i make tea", "tea", "make soup"]
    sampling, judge = Sampling(max_new_tokens=4), Echo([])
    judged = judge_answers(model, prompts, judge, sampling, batch_size=2)
    assert judge.seen == [(answer.prompt, answer.text) for answer in generate_answers(model, prompts, sampling)]
    assert [verdict.harm for verdict in judged.verdicts] == [1, 5, 1]
