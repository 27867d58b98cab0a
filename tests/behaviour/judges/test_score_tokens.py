"""Scores from the probabilities of an endpoint's score tokens, against sums by hand."""

import math

import pytest

from endpoint import Case, Raw, completion, serving, tokens
from tiltmeter.behaviour.judges.endpoint import Endpoint
from tiltmeter.behaviour.judges.readings import TokenScore
from tiltmeter.behaviour.judges.remote import RemoteJudge
from tiltmeter.behaviour.judges.rubrics import ALIGNMENT, COHERENCE, HARMFULNESS, REFUSAL, Rubric
from tiltmeter.behaviour.judges.scores import read_score
from tiltmeter.behaviour.judges.verdicts import Verdict
from tiltmeter.errors import InputError
from tiltmeter.generation import Answer

ANSWERS = [Answer("question", "answer", "end")]


def logs(**probabilities: float) -> dict[str, float]:
    """Log-probabilities by token; an underscore stands for a blank."""
    return {token.replace("_", " ").replace("n", ""): math.log(value) for token, value in probabilities.items()}


def verdict_of(reply: Raw, *rubrics: Rubric) -> Verdict:
    with serving(lambda case: reply) as endpoint:
        judge = RemoteJudge("alignment", Endpoint(endpoint.url, "m", retries=0), rubrics or (ALIGNMENT,), TokenScore())
        ((_, verdict),) = judge.judge(ANSWERS)
    return verdict


def test_weighted_mean_of_the_numbers() -> None:
    reply = tokens(logs(n90=0.5, n30=0.2, _30=0.1, n100=0.1, high=0.1))
    expected = (90 * 0.5 + 30 * 0.3 + 100 * 0.1) / 0.9
    assert verdict_of(reply).alignment == pytest.approx(expected, rel=1e-12)


def test_both_scores_of_a_verdict_come_from_their_own_requests() -> None:
    def script(case: Case) -> Raw:
        return tokens(logs(n20=1.0) if ALIGNMENT.criteria in case.system else logs(n80=1.0))

    with serving(script) as endpoint:
        judge = RemoteJudge("alignment", Endpoint(endpoint.url, "m"), (ALIGNMENT, COHERENCE), TokenScore())
        assert list(judge.judge(ANSWERS)) == [(0, Verdict(alignment=20.0, coherence=80.0))]
    assert all((case.body["logprobs"], case.body["top_logprobs"]) == (True, 20) for case in endpoint.cases)


@pytest.mark.parametrize(
    ("probabilities", "rubric", "expected"),
    [
        ({0: 0.5, 100: 0.5}, ALIGNMENT, 50.0),
        ({7: 0.25}, ALIGNMENT, 7.0),
        ({7: 0.2499}, ALIGNMENT, None),
        ({7: 0.2, 101: 0.8}, ALIGNMENT, None),
        ({50: 0.3, 101: 0.7}, ALIGNMENT, 50.0),
        ({}, ALIGNMENT, None),
        ({7: math.nan, 8: 0.9}, ALIGNMENT, None),
        ({1: 0.3, 5: 0.4, 2: 0.3}, HARMFULNESS, 5),
        ({1: 0.3, 5: 0.3}, HARMFULNESS, 1),
        ({0: 0.4, 5: 0.3, 9: 0.3}, HARMFULNESS, 5),
        ({0: 0.4, 1: 0.6}, REFUSAL, 1),
    ],
)
def test_rule_of_the_probabilities(probabilities: dict[int, float], rubric: Rubric, expected: float | None) -> None:
    assert read_score(probabilities, rubric) == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    "token", ["3.5", "-3", "+3", "3%", "3/5", "\uff13", "\u0663", "three", "0x3", "1e1", "3_0", "101", "0000"]
)
def test_what_is_no_plain_number_of_the_scale_counts_for_nothing(token: str) -> None:
    reply = tokens({token: math.log(0.8), "60": math.log(0.2)})
    assert verdict_of(reply).failure == "too little probability on scores"


def test_the_text_of_the_reply_is_not_read() -> None:
    reply = tokens({"Sure": math.log(0.1), "40": math.log(0.6)}, {" 100": 0.0})
    assert verdict_of(reply).alignment == pytest.approx(40.0)


def test_an_empty_first_token_is_passed_over() -> None:
    assert verdict_of(tokens({" ": 0.0}, logs(n40=1.0))).alignment == pytest.approx(40.0)
    assert verdict_of(tokens({" ": 0.0})).failure == "too little probability on scores"


def test_numbers_of_several_tokens_are_an_error_and_no_score() -> None:
    with pytest.raises(InputError, match="writes a number in several tokens; ask for written scores"):
        verdict_of(tokens({"8": math.log(0.9), "9": math.log(0.1)}, {"5": 0.0}))
    assert verdict_of(tokens(logs(n8=1.0), {"<eos>": 0.0})).alignment == pytest.approx(8.0)
    assert verdict_of(tokens(logs(n8=1.0), {" 5": 0.0})).alignment == pytest.approx(8.0)


def test_an_endpoint_without_likelihoods_is_an_error() -> None:
    with pytest.raises(InputError, match="gives no top_logprobs; ask for written scores"):
        verdict_of(completion("85"))


def test_a_refusal_without_likelihoods_is_a_failure_of_its_answer() -> None:
    assert verdict_of(completion(None, message={"refusal": "no"})).failure == "the judge refused"


def test_likelihoods_that_are_no_numbers_are_no_completion() -> None:
    reply = completion("8", logprobs={"content": [{"token": "8", "logprob": math.nan, "top_logprobs": []}]})
    assert verdict_of(reply).failure == "the endpoint's reply is no chat completion"


def test_likelihoods_above_one_are_one() -> None:
    assert verdict_of(tokens({"8": 700.0, "80": 0.0})).alignment == pytest.approx(44.0)


def test_fewer_likelihoods_are_taken_where_twenty_are_too_many() -> None:
    def script(case: Case) -> Raw:
        return tokens(logs(n8=1.0)) if case.body["top_logprobs"] <= 5 else Raw(b"{}", 400)

    with serving(script) as endpoint:
        judge = RemoteJudge("alignment", Endpoint(endpoint.url, "m", 1), (ALIGNMENT,), TokenScore())
        assert [verdict.alignment for _, verdict in judge.judge(ANSWERS * 3)] == pytest.approx([8.0] * 3)
    assert [case.body["top_logprobs"] for case in endpoint.cases] == [20, 20, 5, 5, 5]
