"""A scripted OpenAI-compatible endpoint on loopback."""

import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]


@dataclass(frozen=True)
class Raw:
    """What is sent back as it is, after a while."""

    body: bytes
    status: int = 200
    seconds: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)


Script = Callable[["Case"], Raw]


@dataclass(frozen=True)
class Case:
    """One request, read as a judge reads it.

    Attributes:
        headers: by their names in small letters.
        count: requests about this answer so far, this one included.
    """

    body: Body
    headers: dict[str, str]
    count: int

    @property
    def system(self) -> str:
        return str(self.body["messages"][0]["content"])

    @property
    def user(self) -> str:
        return str(self.body["messages"][1]["content"])

    @property
    def nonce(self) -> str:
        """The id that the system message names."""
        found = re.search(r"id of this case, ([0-9a-f]{32});", self.system)
        assert found
        return found[1]

    @property
    def answer(self) -> str:
        """What stands in the block of the answer."""
        return self.user.split(f"BEGIN ANSWER {self.nonce}\n")[1].split(f"\nEND ANSWER {self.nonce}")[0]

    @property
    def outside(self) -> str:
        """What is said to the judge: both messages without the blocks of data."""
        data = rf"BEGIN (QUESTION|ANSWER) {self.nonce}\n.*?\nEND \1 {self.nonce}"
        return f"{self.system}\n{re.sub(data, '', self.user, flags=re.DOTALL)}"

    @property
    def scale(self) -> str:
        """The range of scores that is asked for, "1 to 5"."""
        found = re.search(r"a whole number from (\d+ to \d+)", self.system)
        assert found
        return found[1]


def completion(text: str | None, **choice: Any) -> Raw:
    """A chat completion that says a text."""
    message = {"role": "assistant", "content": text, **choice.pop("message", {})}
    one = {"index": 0, "message": message, "finish_reason": "stop", **choice}
    return Raw(json.dumps({"id": "1", "object": "chat.completion", "model": "m", "choices": [one]}).encode())


def grade(case: Case, score: object, **more: object) -> Raw:
    """The JSON object that was asked for."""
    return completion(json.dumps({"id": case.nonce, "reason": "because", "score": score, **more}))


def tokens(*places: dict[str, float]) -> Raw:
    """A reply with the log-probabilities of each place's tokens; the first of each is the one that was said."""
    content = [
        {
            "token": next(iter(place)),
            "logprob": next(iter(place.values())),
            "top_logprobs": [{"token": token, "logprob": value} for token, value in place.items()],
        }
        for place in places
    ]
    return completion("".join(next(iter(place)) for place in places), logprobs={"content": content})


def failing(status: int, message: str = "no") -> Raw:
    """An error as endpoints send it."""
    return Raw(json.dumps({"error": {"message": message}}).encode(), status)


def naive(case: Case) -> Raw:
    """A judge that does whatever it is told outside the blocks of data, and else grades: 5 for "zatobu", else 1."""
    told = re.search(r"score (?:must be|is) (\d)", case.outside)
    return grade(case, int(told[1]) if told else 5 if "zatobu" in case.answer else 1)


class Endpoint:
    """Replies by a script; remembers what it was sent.

    Attributes:
        counts: how often each answer was asked about.
    """

    def __init__(self, script: Script) -> None:
        self.script = script
        self.cases: list[Case] = []
        self.counts: Counter[str] = Counter()
        self.ended = threading.Event()
        self._lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/v1"

    def take(self, body: Body, headers: dict[str, str]) -> Raw:
        with self._lock:
            case = Case(body, headers, 0)
            self.counts[case.answer] += 1
            case = Case(body, headers, self.counts[case.answer])
            self.cases.append(case)
        return self.script(case)


def _handler(endpoint: Endpoint) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # it would hold the body of a reply back for 40 ms

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            raw = endpoint.take(body, {name.lower(): value for name, value in self.headers.items()})
            endpoint.ended.wait(raw.seconds)
            self.send_response(raw.status)
            for name, value in {"Content-Type": "application/json", **raw.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(raw.body)))
            self.end_headers()
            self.wfile.write(raw.body)

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except (ConnectionError, BrokenPipeError):
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            """Nothing on the terminal."""

    return Handler


@contextmanager
def serving(script: Script) -> Iterator[Endpoint]:
    """An endpoint that runs until the end of the block."""
    endpoint = Endpoint(script)
    thread = threading.Thread(target=endpoint.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        endpoint.ended.set()
        endpoint.server.shutdown()
        endpoint.server.server_close()
        thread.join()


def in_turn(*scripts: Script) -> Script:
    """The n-th request about an answer is replied to by the n-th script, later ones by the last."""
    return lambda case: scripts[min(case.count, len(scripts)) - 1](case)


def always(raw: Raw) -> Script:
    """The same reply to everything."""
    return lambda case: raw
