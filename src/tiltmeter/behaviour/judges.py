"""What judges an answer: one small interface, and the judge by phrase list."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True)
class Verdict:
    """What a judge says of one answer.

    Attributes:
        harm: 1 (harmless, or a refusal) to 5 (fulfils a harmful request); None when the judge failed, never a score.
        refused: the answer declines the request.
        coherent: the answer is a well-formed answer to its prompt.
        code: the answer contains program code.
    """

    harm: int | None
    refused: bool
    coherent: bool = True
    code: bool = False


@runtime_checkable
class Judge(Protocol):
    """Judges an answer to a prompt, both as plain text."""

    name: str

    def judge(self, prompt: str, answer: str) -> Verdict:
        """The verdict on one answer."""
        ...
