"""Judges behind a scripted endpoint: what comes back, what fails, and what is lost (nothing)."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from threading import Barrier

import pytest

import endpoint as scripted
from endpoint import Case, Raw, Script, completion, failing, grade, in_turn, serving
from tiltmeter.behaviour.judges import Judge, Verdict
from tiltmeter.behaviour.judges.endpoint import Endpoint
from tiltmeter.behaviour.judges.readings import WrittenScore
from tiltmeter.behaviour.judges.remote import GIVE_UP_AFTER, RemoteJudge
from tiltmeter.behaviour.judges.rubrics import ALIGNMENT, COHERENCE, HARMFULNESS, REFUSAL, Rubric
from tiltmeter.errors import InputError
from tiltmeter.generation import Answer

ANSWERS = [Answer(f"question {place}", f"answer {place}", "end") for place in range(12)]


def judge_at(url: str, *rubrics: Rubric, **settings: float) -> RemoteJudge:
    """A judge by written scores, without retries unless settings say otherwise."""
    chosen: dict[str, float] = {"retries": 0, **settings}
    return RemoteJudge("rubric", Endpoint(url, "m", **chosen), rubrics or (HARMFULNESS,), WrittenScore())  # type: ignore[arg-type]


def judged(judge: Judge, answers: Sequence[Answer] = ANSWERS) -> dict[int, Verdict]:
    """Every verdict by place; a place that comes twice fails."""
    verdicts: dict[int, Verdict] = {}
    for place, verdict in judge.judge(answers):
        assert place not in verdicts
        verdicts[place] = verdict
    return verdicts


def by_number(case: Case) -> Raw:
    """Scores by the number in the answer."""
    return grade(case, 1 + int(case.answer.split()[-1]) % 5)


def test_every_answer_gets_its_own_score_by_one_request() -> None:
    with serving(by_number) as endpoint:
        verdicts = judged(judge_at(endpoint.url))
    assert verdicts == {place: Verdict(harm=1 + place % 5) for place in range(12)}
    assert endpoint.counts == {answer.text: 1 for answer in ANSWERS}
    assert {case.body["model"] for case in endpoint.cases} == {"m"}
    assert all(case.body["response_format"]["json_schema"]["strict"] for case in endpoint.cases)


def test_verdicts_come_before_slower_ones_are_there() -> None:
    def script(case: Case) -> Raw:
        return replace(by_number(case), seconds=5.0 if case.answer == "answer 0" else 0.0)

    with serving(script) as endpoint:
        started = time.monotonic()
        places = judge_at(endpoint.url, workers=2).judge(ANSWERS)
        assert {next(places)[0] for _ in range(11)} == set(range(1, 12))
        assert time.monotonic() - started < 4
        endpoint.ended.set()
        assert next(places) == (0, Verdict(harm=1))


def test_several_rubrics_fill_one_verdict() -> None:
    scores = {"1 to 5": 4, "0 to 1": 1, "0 to 100": 70}
    with serving(lambda case: grade(case, scores[case.scale])) as endpoint:
        verdicts = judged(judge_at(endpoint.url, HARMFULNESS, REFUSAL, ALIGNMENT, COHERENCE), ANSWERS[:2])
    assert set(verdicts.values()) == {Verdict(harm=4, refused=True, alignment=70.0, coherence=70.0)}
    assert endpoint.counts["answer 0"] == 4


def reason(script: Script, answers: int = 1) -> str | None:
    """The failure of a judge's verdict."""
    with serving(script) as endpoint:
        verdict = judged(judge_at(endpoint.url), ANSWERS[:answers])[0]
    assert verdict == Verdict(failure=verdict.failure)
    return verdict.failure


@pytest.mark.parametrize(
    ("script", "failure"),
    [
        (lambda case: completion("I would rather not grade this."), "is not the JSON object"),
        (lambda case: completion('{"id": "'), "is not the JSON object"),
        (lambda case: completion(None, message={"refusal": "no"}), "refused"),
        (lambda case: completion("", finish_reason="content_filter"), "refused"),
        (lambda case: completion(" "), "empty"),
        (lambda case: completion('{"id"', finish_reason="length"), "cut off"),
        (lambda case: grade(case, 6), "out of range"),
        (lambda case: grade(case, 0), "out of range"),
        (lambda case: grade(case, 4.5), "is not the JSON object"),
        (lambda case: grade(case, True), "is not the JSON object"),
        (lambda case: grade(case, "4"), "is not the JSON object"),
        (lambda case: grade(case, 4, also=5), "is not the JSON object"),
        (lambda case: Raw(b"<html>It works!</html>"), "no chat completion"),
        (lambda case: Raw(b"<html>It works!</html>", headers={"Content-Type": "text/html"}), "no chat completion"),
        (lambda case: Raw(b'{"choices": []}'), "no chat completion"),
        (lambda case: Raw(b'{"choices": [{"mess'), "no chat completion"),
        (lambda case: Raw(b"\xff\xfe"), "no chat completion"),
        (lambda case: Raw(b"", headers={"Content-Encoding": "gzip"}), "no chat completion"),
    ],
)
def test_a_reply_without_a_score_is_a_failure(script: Script, failure: str) -> None:
    assert failure in (reason(script) or "")


def test_a_fence_around_the_object_is_no_failure() -> None:
    def fenced(case: Case) -> Raw:
        return completion(f'```json\n{{"id": "{case.nonce}", "reason": "", "score": 2}}\n```')

    with serving(fenced) as endpoint:
        assert judged(judge_at(endpoint.url), ANSWERS[:1]) == {0: Verdict(harm=2)}


def test_the_other_answers_keep_their_scores_when_one_reply_is_nonsense() -> None:
    def script(case: Case) -> Raw:
        return completion("what?") if case.answer == "answer 3" else by_number(case)

    with serving(script) as endpoint:
        verdicts = judged(judge_at(endpoint.url))
    assert [place for place, verdict in verdicts.items() if verdict.failure] == [3]
    assert len(verdicts) == 12


def test_what_fails_for_a_while_is_tried_again() -> None:
    script = in_turn(lambda case: failing(503), lambda case: failing(429), by_number)
    with serving(script) as endpoint:
        assert judged(judge_at(endpoint.url, retries=2), ANSWERS[:2]) == {0: Verdict(harm=1), 1: Verdict(harm=2)}
    assert set(endpoint.counts.values()) == {3}


def test_retries_end() -> None:
    script = in_turn(lambda case: failing(503), by_number)
    with serving(lambda case: by_number(case) if case.answer != "answer 1" else script(case)) as endpoint:
        verdicts = judged(judge_at(endpoint.url), ANSWERS[:2])
    assert verdicts == {0: Verdict(harm=1), 1: Verdict(failure="status 503")}


def gathered(judge: Judge) -> tuple[dict[int, Verdict], str]:
    """The verdicts that came before the error, and the error."""
    verdicts: dict[int, Verdict] = {}
    with pytest.raises(InputError) as raised:  # noqa: PT012 - what comes before the error is looked at
        for place, verdict in judge.judge(ANSWERS):
            verdicts[place] = verdict
    return verdicts, str(raised.value)


@pytest.mark.parametrize("status", [401, 403, 404, 307])
def test_a_fault_of_every_request_is_one_error_at_once(status: int) -> None:
    with serving(lambda case: failing(status, "no such thing")) as endpoint:
        verdicts, error = gathered(judge_at(endpoint.url, workers=1))
    assert verdicts == {}
    assert endpoint.counts.total() == 1
    assert f"{endpoint.url}, model m: status {status}" in error
    assert "no such thing" in error
    assert "check the URL, the model's name and the key in TILTMETER_JUDGE_KEY" in error
    assert "\n" not in error


def test_a_key_that_is_refused_half_way_loses_nothing_that_was_judged() -> None:
    def script(case: Case) -> Raw:
        return failing(401) if case.answer == "answer 7" else by_number(case)

    with serving(script) as endpoint:
        verdicts, error = gathered(judge_at(endpoint.url, workers=1))
    assert verdicts == {place: Verdict(harm=1 + place % 5) for place in range(7)}
    assert "status 401" in error


def together(under_way: Barrier, case: Case) -> None:
    """The first requests wait for each other, however loaded the machine is."""
    if int(case.answer.removeprefix("answer ")) < under_way.parties:
        under_way.wait(timeout=30)


def test_requests_under_way_count_when_another_fails_for_good() -> None:
    under_way = Barrier(3)

    def script(case: Case) -> Raw:
        together(under_way, case)
        return failing(401) if case.answer == "answer 0" else replace(by_number(case), seconds=0.3)

    with serving(script) as endpoint:
        verdicts, _ = gathered(judge_at(endpoint.url, workers=3))
    assert verdicts.keys() >= {1, 2}
    assert endpoint.counts.total() <= 4


def test_answers_of_a_failing_row_stay_unjudged_when_a_slower_request_succeeds() -> None:
    under_way = Barrier(6)

    def script(case: Case) -> Raw:
        together(under_way, case)
        return replace(by_number(case), seconds=0.5) if case.answer == "answer 5" else failing(500)

    with serving(script) as endpoint:
        verdicts, error = gathered(judge_at(endpoint.url, workers=6))
    assert verdicts == {5: Verdict(harm=1)}
    assert "status 500" in error


def test_redirects_are_not_followed() -> None:
    with serving(by_number) as elsewhere, serving(lambda case: moved) as endpoint:
        moved = replace(failing(307), headers={"Location": f"{elsewhere.url}/chat/completions"})
        gathered(judge_at(endpoint.url))
    assert endpoint.cases
    assert elsewhere.cases == []


def test_a_refused_connection_is_an_error() -> None:
    with serving(by_number) as endpoint:
        pass
    verdicts, error = gathered(judge_at(endpoint.url, workers=1))
    assert verdicts == {}
    assert "no connection" in error


@pytest.mark.parametrize("broken", [lambda case: failing(500), lambda case: Raw(b"", seconds=9.0)])
def test_several_failures_in_a_row_end_the_judging_and_leave_their_answers_unjudged(broken: Script) -> None:
    def script(case: Case) -> Raw:
        return by_number(case) if int(case.answer.split()[-1]) < 3 else broken(case)

    with serving(script) as endpoint:
        verdicts, _ = gathered(judge_at(endpoint.url, workers=1, timeout=0.15))
        assert verdicts == {place: Verdict(harm=1 + place % 5) for place in range(3)}
        assert sum(endpoint.counts.values()) <= 3 + GIVE_UP_AFTER + 1


def test_failures_that_are_not_in_a_row_are_failures_of_their_answers() -> None:
    def script(case: Case) -> Raw:
        return failing(500) if int(case.answer.split()[-1]) % 2 else by_number(case)

    with serving(script) as endpoint:
        verdicts = judged(judge_at(endpoint.url, workers=1))
    assert [place for place, verdict in sorted(verdicts.items()) if verdict.failure == "status 500"] == [
        1,
        3,
        5,
        7,
        9,
        11,
    ]


def test_an_answer_that_stalls_fails_alone() -> None:
    def script(case: Case) -> Raw:
        return replace(by_number(case), seconds=9.0 if case.answer == "answer 2" else 0.0)

    with serving(script) as endpoint:
        verdicts = judged(judge_at(endpoint.url, timeout=0.3))
    assert verdicts[2] == Verdict(failure="no reply within 0.3 s")
    assert sum(verdict.failure is None for verdict in verdicts.values()) == 11


def test_rejected_answers_are_their_own_failures_once_the_endpoint_has_worked() -> None:
    def script(case: Case) -> Raw:
        return by_number(case) if case.answer == "answer 0" else failing(400, "content policy")

    with serving(script) as endpoint:
        verdicts = judged(judge_at(endpoint.url, workers=1))
    assert [verdict.failure for _, verdict in sorted(verdicts.items())] == [None, *["status 400"] * 11]


def test_requests_that_were_never_taken_are_an_error() -> None:
    with serving(lambda case: failing(400)) as endpoint:
        verdicts, error = gathered(judge_at(endpoint.url, workers=1))
        assert verdicts == {}
        assert "status 400" in error
        with pytest.raises(InputError, match="status 400"):
            judged(judge_at(endpoint.url), ANSWERS[:2])


@pytest.mark.parametrize("unknown", ["response_format", "temperature", "max_tokens"])
def test_parameters_that_an_endpoint_does_not_take_are_left_out_from_then_on(unknown: str) -> None:
    def script(case: Case) -> Raw:
        return failing(400, f"unknown parameter {unknown}") if unknown in case.body else by_number(case)

    with serving(script) as endpoint:
        verdicts = judged(judge_at(endpoint.url, workers=1), ANSWERS[:4])
    assert all(verdict.failure is None for verdict in verdicts.values())
    assert sum(unknown in case.body for case in endpoint.cases) in (1, 2)
    assert endpoint.counts["answer 3"] == 1


def test_who_stops_listening_waits_for_nothing() -> None:
    def script(case: Case) -> Raw:
        return replace(by_number(case), seconds=0.0 if case.answer == "answer 0" else 20.0)

    with serving(script) as endpoint:
        verdicts = iter(judge_at(endpoint.url, workers=2, timeout=30).judge(ANSWERS))
        assert next(verdicts) == (0, Verdict(harm=1))
        started = time.monotonic()
        verdicts.close()  # type: ignore[attr-defined]
        assert time.monotonic() - started < 5
    assert endpoint.counts.total() <= 3


def test_nothing_to_judge_asks_nobody() -> None:
    with serving(by_number) as endpoint:
        assert judged(judge_at(endpoint.url), []) == {}
    assert endpoint.cases == []


@pytest.mark.parametrize(
    "url",
    [
        "",
        "host/v1",
        "ftp://host/v1",
        "http://",
        "http://[::1/v1",
        "http://host:99999/v1",
        "http://host:port/v1",
        "https://me:secret@host/v1",
        "https://host/v1?key=secret",
    ],
)
def test_urls_that_cannot_be_used_are_refused_and_credentials_are_not_repeated(url: str) -> None:
    with pytest.raises(InputError, match=r"^endpoint: expected a URL") as raised:
        Endpoint(url, "m")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda one: replace(one, model=""),
        lambda one: replace(one, workers=0),
        lambda one: replace(one, timeout=0),
        lambda one: replace(one, retries=-1),
    ],
)
def test_settings_out_of_range_are_refused(change: Callable[[Endpoint], Endpoint]) -> None:
    with pytest.raises(InputError, match="endpoint http://host/v1: expected"):
        change(Endpoint("http://host/v1", "m"))


def test_the_fixture_reads_what_is_asked() -> None:
    with serving(scripted.naive) as endpoint:
        judged(judge_at(endpoint.url), ANSWERS[:1])
    (case,) = endpoint.cases
    assert (case.answer, case.scale) == ("answer 0", "1 to 5")
    assert "answer 0" not in case.outside
    assert "question 0" not in case.outside
    assert HARMFULNESS.criteria in case.outside
