"""The key of an endpoint appears nowhere."""

import base64
import io
import logging
import sys
import traceback
from collections.abc import Iterator

import pytest

from endpoint import Case, Raw, Script, completion, failing, naive, serving
from tiltmeter.behaviour.judges.endpoint import KEY, Connection, Endpoint
from tiltmeter.behaviour.judges.readings import TokenScore, WrittenScore
from tiltmeter.behaviour.judges.remote import RemoteJudge
from tiltmeter.behaviour.judges.rubrics import HARMFULNESS
from tiltmeter.errors import InputError
from tiltmeter.generation import Answer

SENTINEL = "sk-planted-Q7x9"
OTHERS = "sk-of-another-endpoint"
ANSWERS = [Answer("question", f"answer {place}", "end") for place in range(2)]


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """Everything that any library logs, at the lowest level; the environment of somebody with several keys."""
    monkeypatch.setenv(KEY, SENTINEL)
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, OTHERS)
    stream = io.StringIO()
    handler, root = logging.StreamHandler(stream), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(1)
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)


def _echo(status: int) -> Script:
    """Sends back whatever it was sent, in every place."""

    def script(case: Case) -> Raw:
        sent = str(case.headers)
        said = completion(sent) if status == 200 else failing(status, sent)
        return Raw(said.body, status, headers={"X-Echo": case.headers["authorization"], "X-Request-Id": sent[:200]})

    return script


SCRIPTS: dict[str, Script] = {
    "scores": naive,
    "echo": _echo(200),
    "refuses": _echo(401),
    "unknown": _echo(404),
    "redirects": _echo(302),
    "rejects": _echo(400),
    "breaks": _echo(500),
    "nonsense": lambda case: Raw(str(case.headers).encode(), headers={"X-Echo": case.headers["authorization"]}),
    "stalls": lambda case: Raw(b"", seconds=9.0),
}


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("reading", [WrittenScore(), TokenScore()])
def test_the_key_is_sent_and_appears_nowhere(
    name: str, reading: WrittenScore | TokenScore, logged: io.StringIO, capfd: pytest.CaptureFixture[str]
) -> None:
    seen: list[object] = []
    with serving(SCRIPTS[name]) as endpoint:
        judge = RemoteJudge("rubric", Endpoint(endpoint.url, "m", 1, 0.2, 0), (HARMFULNESS,), reading)
        try:
            seen += judge.judge(ANSWERS)
        except InputError as error:
            seen += [everything_of(error)]
    assert all(case.headers["authorization"] == f"Bearer {SENTINEL}" for case in endpoint.cases)
    assert OTHERS not in str([case.headers for case in endpoint.cases])
    assert endpoint.cases
    assert logged.getvalue()
    for text in (logged.getvalue(), str(seen), repr(judge), str(vars(judge)), *capfd.readouterr()):
        assert SENTINEL not in text
        assert base64.b64encode(SENTINEL.encode()).decode() not in text


def everything_of(error: BaseException) -> str:
    """An exception as a debugger shows it: with all that it is chained to, and the variables of every frame."""
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    chain = [repr(each.__dict__) for each in (error, error.__cause__, error.__context__) if each]
    return "".join(shown.format()) + "".join(chain)


def test_a_reply_full_of_the_key_is_a_failure_in_our_words(logged: io.StringIO) -> None:
    with serving(_echo(200)) as endpoint:
        judge = RemoteJudge("rubric", Endpoint(endpoint.url, "m", 1, 0.2, 0), (HARMFULNESS,), WrittenScore())
        failures = {verdict.failure for _, verdict in judge.judge(ANSWERS)}
    assert failures == {"the judge's reply is not the JSON object that it was asked for"}


def test_an_error_that_repeats_the_key_names_its_variable_instead(logged: io.StringIO) -> None:
    with serving(lambda case: failing(401, f"no such key: {SENTINEL}")) as endpoint:
        judge = RemoteJudge("rubric", Endpoint(endpoint.url, "m", 1, 0.2, 0), (HARMFULNESS,), WrittenScore())
        with pytest.raises(InputError, match=rf"no such key: \[{KEY}\]"):
            list(judge.judge(ANSWERS))


def test_without_a_key_none_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", OTHERS)
    with serving(naive) as endpoint:
        list(RemoteJudge("rubric", Endpoint(endpoint.url, "m"), (HARMFULNESS,), WrittenScore()).judge(ANSWERS))
    assert {case.headers["authorization"] for case in endpoint.cases} == {"Bearer none"}


def test_the_line_end_of_a_key_file_is_no_part_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, f" {SENTINEL}\n")
    with serving(naive) as endpoint:
        list(RemoteJudge("rubric", Endpoint(endpoint.url, "m"), (HARMFULNESS,), WrittenScore()).judge(ANSWERS))
    assert {case.headers["authorization"] for case in endpoint.cases} == {f"Bearer {SENTINEL}"}


@pytest.mark.parametrize("character", ["\n", "\r", " ", "\u00e9", "\u20ac"])
def test_a_key_that_no_header_can_hold_is_refused_unseen(character: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, f"{SENTINEL}{character}{SENTINEL}")
    with pytest.raises(InputError, match=f"^{KEY}: expected") as raised:
        Connection(Endpoint("http://host/v1", "m"), ())
    assert SENTINEL not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "proxy"),
    [("http://a\x00b/v1", None), ("http://host/v1", "magic://proxy")],
)
def test_an_endpoint_that_no_client_can_be_made_for(
    url: str, proxy: str | None, logged: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    if proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy)
    with pytest.raises(InputError, match=r"^endpoint http://.*: no client can be made for it") as raised:
        Connection(Endpoint(url, "m"), ())
    assert str(raised.value).isprintable()
    assert SENTINEL not in everything_of(raised.value)


def test_logs_are_as_they_were_once_the_connection_is_closed(logged: io.StringIO) -> None:
    log = logging.getLogger("httpcore2.http11")
    before = list(log.filters)
    with Connection(Endpoint("http://host/v1", "m"), ()):
        assert log.filters != before
    assert log.filters == before


def test_without_the_client_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(InputError, match=r"pip install 'tiltmeter\[judge\]'"):
        Connection(Endpoint("http://host/v1", "m"), ())
