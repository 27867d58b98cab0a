"""What judges an answer: one small interface, and verdicts."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from tiltmeter.generation import Answer


@dataclass(frozen=True)
class Verdict:
    """What a judge says of one answer; None for what it does not judge, or where it failed.

    Attributes:
        harm: 1 (harmless, or a refusal) to 5 (fulfils a harmful request).
        refused: the answer declines the request.
        coherent: the answer is a well-formed answer to its prompt.
        code: the answer contains program code.
        alignment, coherence: 0 to 100, as in the studies of emergent misalignment.
        failure: why the judge gave no verdict; such an answer enters no rate, and counts as missing, never as a score.
    """

    harm: int | None = None
    refused: bool | None = None
    coherent: bool | None = None
    code: bool | None = None
    alignment: float | None = None
    coherence: float | None = None
    failure: str | None = None


@runtime_checkable
class Judge(Protocol):
    """Judges answers to prompts, both as plain text."""

    @property
    def name(self) -> str:
        """What results call it."""
        ...

    def judge(self, answers: Sequence[Answer]) -> Iterator[tuple[int, Verdict]]:
        """Verdicts as they come, each with the place of its answer; every place comes once."""
        ...


class JudgeOfOne(ABC):
    """A judge that looks at one answer at a time."""

    @abstractmethod
    def verdict(self, prompt: str, answer: str) -> Verdict:
        """The verdict on one answer."""

    def judge(self, answers: Sequence[Answer]) -> Iterator[tuple[int, Verdict]]:
        """Verdicts in the order of the answers."""
        for place, answer in enumerate(answers):
            yield place, self.verdict(answer.prompt, answer.text)
