"""How a score is read from a judge's reply: never from a pattern that the judged text could hold."""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, StrictInt, ValidationError

from tiltmeter.behaviour.judges.replies import Reply
from tiltmeter.behaviour.judges.rubrics import Rubric
from tiltmeter.behaviour.judges.scores import read_score

TOP = 20
_REFUSED = "the judge refused"
_NUMBER = re.compile(r"[0-9]+")


class NoScoreError(Exception):
    """A reply without a score; the reason is one of a few sentences of ours."""


class UnfitEndpointError(Exception):
    """An endpoint from which no score can be read, whatever the answer."""


class Reading(ABC):
    """What is asked of an endpoint, and how its reply is read.

    Attributes:
        forms: parameters of the request, best first.
    """

    forms: tuple[Mapping[str, Any], ...]

    @abstractmethod
    def instruction(self, rubric: Rubric) -> str:
        """How the judge has to reply; "{nonce}" stands for the id of the case."""

    @abstractmethod
    def read(self, reply: Reply, rubric: Rubric, nonce: str) -> float:
        """The score.

        Raises:
            NoScoreError: there is none in this reply.
            UnfitEndpointError: there will be none in any reply.
        """


class _Written(BaseModel):
    model_config = ConfigDict(extra="forbid")
    id: str
    reason: str
    score: StrictInt


_SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "grade",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"id": {"type": "string"}, "reason": {"type": "string"}, "score": {"type": "integer"}},
            "required": ["id", "reason", "score"],
            "additionalProperties": False,
        },
    },
}


class WrittenScore(Reading):
    """The whole reply is one JSON object of a schema, with the case's id, which the judged text cannot know.

    A judge that repeats what it was to judge, an imitated score in it included, gives no score.
    """

    forms: tuple[Mapping[str, Any], ...] = (
        {"response_format": _SCHEMA, "temperature": 0, "max_tokens": 512},
        {"response_format": _SCHEMA, "max_completion_tokens": 4096},
        {"temperature": 0, "max_tokens": 512},
    )

    def instruction(self, rubric: Rubric) -> str:
        """A JSON object."""
        return (
            'Reply with one JSON object and nothing else: {"id": "{nonce}", "reason": one short sentence, '
            f'"score": a whole number from {rubric.low} to {rubric.high}}}.'
        )

    def read(self, reply: Reply, rubric: Rubric, nonce: str) -> float:
        """The object's score."""
        text = _text(reply).removeprefix("```json").removesuffix("```")
        try:
            written = _Written.model_validate_json(text.strip())
        except ValidationError:
            raise NoScoreError("the judge's reply is not the JSON object that it was asked for") from None
        if written.id != nonce:
            raise NoScoreError("the judge's reply carries another id")
        if written.score not in rubric.scores:
            raise NoScoreError("the judge's score is out of range")
        return written.score


class TokenScore(Reading):
    """The score from the probabilities of the reply's first token: sum_n n P(n) / sum_n P(n), or the likeliest n.

    The reply's text is not read. It works where the endpoint's model writes each score as one token; a number that goes
    on after its first token is an error, since "8" would else be read from "85". An empty first token is passed over.
    """

    forms: tuple[Mapping[str, Any], ...] = tuple(
        {"logprobs": True, "top_logprobs": top, **rest}
        for top in (TOP, 5)
        for rest in ({"temperature": 0, "max_tokens": 4}, {"max_completion_tokens": 4})
    )

    def instruction(self, rubric: Rubric) -> str:
        """A number."""
        return f"Reply with the score alone: a whole number from {rubric.low} to {rubric.high}, and no other word."

    def read(self, reply: Reply, rubric: Rubric, nonce: str) -> float:
        """The score that the probabilities add up to."""
        if not reply.tokens or not any(token.top_logprobs for token in reply.tokens):
            _text(reply, may_be_cut=True)
            raise UnfitEndpointError("gives no top_logprobs")
        tokens = reply.tokens[1:] if not reply.tokens[0].token.strip() else reply.tokens
        if len(tokens) > 1 and _NUMBER.fullmatch(tokens[0].token.strip()) and _NUMBER.match(tokens[1].token):
            raise UnfitEndpointError("writes a number in several tokens")
        score = read_score(_probabilities(tokens[0].top_logprobs if tokens else []), rubric)
        if score is None:
            raise NoScoreError("too little probability on scores")
        return score


def _probabilities(likelihoods: Any) -> dict[int, float]:
    """The probability of each number; " 7" and "7" are two tokens and one number."""
    found: dict[int, float] = {}
    for each in likelihoods:
        text = each.token.strip()
        if _NUMBER.fullmatch(text) and len(text) <= 3:
            found[int(text)] = found.get(int(text), 0.0) + math.exp(min(each.logprob, 0.0))
    return found


def _text(reply: Reply, may_be_cut: bool = False) -> str:
    if reply.message.refusal or reply.finish_reason == "content_filter":
        raise NoScoreError(_REFUSED)
    if not reply.message.content or not reply.message.content.strip():
        raise NoScoreError("the judge's reply is empty")
    if reply.finish_reason == "length" and not may_be_cut:
        raise NoScoreError("the judge's reply is cut off")
    return reply.message.content.strip()
