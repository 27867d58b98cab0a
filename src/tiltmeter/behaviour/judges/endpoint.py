"""Requests to an OpenAI-compatible endpoint: limits, retries, and a key that leaves nothing behind."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import ValidationError

from tiltmeter.behaviour.judges.replies import Completion, Reply
from tiltmeter.errors import InputError
from tiltmeter.skills import Message
from tiltmeter.text import inert

KEY = "TILTMETER_JUDGE_KEY"
_FINAL = {401, 402, 403, 404, 405}
_REJECTED = {400, 413, 422}
# At level DEBUG these print parts of replies, in which a server may send back what it was sent.
_LOGS = (
    "openai._base_client",
    "openai._legacy_response",
    "httpx",
    "httpx2",
    "httpcore.http11",
    "httpcore2.http11",
)


@dataclass(frozen=True)
class Endpoint:
    """Where a judge is reached, and how long to wait for it. The key is no part of it: it stays in the environment.

    Attributes:
        url: the base of an OpenAI-compatible interface ("https://host/v1"), without credentials.
        model: the name of the model there.
        workers: requests at a time.
        timeout: seconds without a byte from the endpoint after which an attempt has failed.
        retries: further attempts after a time-out, a lost connection, or a status 408, 409, 429 or 5xx; the waits
            between them grow.

    Raises:
        InputError: no http(s) URL, credentials in it, or a setting out of its range.
    """

    url: str
    model: str
    workers: int = 8
    timeout: float = 60.0
    retries: int = 2

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_usable = False
        if not is_usable:
            raise InputError("endpoint: expected a URL such as https://host/v1")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise InputError(f"endpoint: expected a URL without credentials or query; the key goes into {KEY}")
        if not self.model:
            raise InputError(f"endpoint {self.url}: expected the name of its model")
        if self.workers < 1 or self.timeout <= 0 or self.retries < 0:
            raise InputError(f"endpoint {self.url}: expected workers >= 1, timeout > 0 and retries >= 0")


@dataclass(frozen=True)
class Fault:
    """Why there is no reply.

    Attributes:
        reason: for people; holds no key.
        kind: `final` fails for every request (a refused key, no such model); `endpoint` may pass (time-outs, overload);
            `request` is about this request (rejected); `reply` came, but is no chat completion.
    """

    reason: str
    kind: Literal["final", "endpoint", "request", "reply"]


class Connection:
    """An open client of an endpoint.

    Args:
        forms: parameters of a request, best first. Endpoints differ in what they take: the first form that is not
            rejected is the one that is used from then on.

    Raises:
        InputError: the `judge` extra is not installed, or a key that no header can hold.
    """

    def __init__(self, endpoint: Endpoint, forms: Sequence[Mapping[str, Any]]) -> None:
        self._endpoint, self._forms = endpoint, tuple(forms)
        self._key = _key()
        self._openai = _library()
        self._filter = partial(_redact_record, self._key)
        self._client = self._open()

    def __enter__(self) -> "Connection":
        for name in _LOGS:
            logging.getLogger(name).addFilter(self._filter)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._client.close()
        for name in _LOGS:
            logging.getLogger(name).removeFilter(self._filter)

    def complete(self, messages: Sequence[Message]) -> Reply | Fault:
        """The reply to a conversation."""
        result: Reply | Fault = Fault("no form of request", "request")
        for form in self._forms:
            result = self._post(messages, form)
            if not (isinstance(result, Fault) and result.kind == "request"):
                if not isinstance(result, Fault):
                    self._forms = (form,)
                break
        return result

    def _open(self) -> Any:
        try:
            return self._client_of(self._endpoint)
        except Exception as error:  # a host name, a proxy or a certificate that the client cannot work with
            reason = type(error).__name__
        # Outside of the block above, since that error's frames hold the key.
        raise InputError(f"endpoint {inert(self._endpoint.url, keep='')}: no client can be made for it ({reason})")

    def _client_of(self, endpoint: Endpoint) -> Any:
        openai = self._openai
        # Redirects are not followed: they would take the texts, and on the same host the key, where nobody said.
        http = openai.DefaultHttpxClient(follow_redirects=False, timeout=endpoint.timeout)
        # Without these, the client adds names of an account that belongs to another endpoint.
        unsent = {"OpenAI-Organization": openai.Omit(), "OpenAI-Project": openai.Omit()}
        return openai.OpenAI(
            base_url=endpoint.url,
            api_key=self._key or "none",
            timeout=endpoint.timeout,
            max_retries=endpoint.retries,
            default_headers=unsent,
            http_client=http,
        )

    def _post(self, messages: Sequence[Message], form: Mapping[str, Any]) -> Reply | Fault:
        """Exceptions of the client hold the request, with its key: none leaves this method."""
        create = self._client.chat.completions.with_raw_response.create
        try:
            raw = create(model=self._endpoint.model, messages=list(messages), **form)
            return Completion.model_validate_json(raw.content).choices[0]
        except ValidationError:
            return Fault("the endpoint's reply is no chat completion", "reply")
        except self._openai.APIStatusError as error:
            return self._status_fault(error.status_code, str(error))
        except self._openai.APITimeoutError:
            return Fault(f"no reply within {self._endpoint.timeout:g} s", "endpoint")
        except self._openai.APIConnectionError:
            return Fault("no connection", "endpoint")
        except Exception as error:  # the libraries below raise whatever they like, as on a client closed meanwhile
            return Fault(f"the request failed ({type(error).__name__})", "endpoint")

    def _status_fault(self, status: int, message: str) -> Fault:
        reason = f"status {status}"
        if status in _FINAL or status < 400:
            said = inert(_redacted(message, self._key)[:200], keep="")
            return Fault(f"{reason}: {said}", "final")
        return Fault(reason, "request" if status in _REJECTED else "endpoint")


def _library() -> Any:
    try:
        import openai
    except ImportError:
        raise InputError("an endpoint needs the client of the extra: pip install 'tiltmeter[judge]'") from None
    return openai


def _key() -> str:
    """The key without the line end that files give it. The client's error about a strange character would show it."""
    key = os.environ.get(KEY, "").strip()
    if not all("!" <= character <= "~" for character in key):
        raise InputError(f"{KEY}: expected a key of printable ASCII characters without blanks")
    return key


def _redacted(text: str, key: str) -> str:
    return text.replace(key, f"[{KEY}]") if key else text


def _redact_record(key: str, record: logging.LogRecord) -> bool:
    record.msg, record.args = _redacted(record.getMessage(), key), ()
    return True
