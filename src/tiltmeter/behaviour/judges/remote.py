"""Judges behind an endpoint: many answers asked about at a time, verdicts as they come."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from threading import Event

from tiltmeter.behaviour.judges.endpoint import KEY, Connection, Endpoint, Fault
from tiltmeter.behaviour.judges.questions import question
from tiltmeter.behaviour.judges.readings import NoScoreError, Reading, UnfitEndpointError
from tiltmeter.behaviour.judges.rubrics import Rubric, as_verdict
from tiltmeter.behaviour.judges.threads import in_threads
from tiltmeter.behaviour.judges.verdicts import Verdict
from tiltmeter.errors import InputError
from tiltmeter.generation import Answer

GIVE_UP_AFTER = 5


@dataclass(frozen=True)
class RemoteJudge:
    """A model behind an endpoint, asked by rubrics; one request an answer and rubric.

    An answer whose request fails has a failure for its verdict, as one has whose reply holds no score. Several in a row
    (`GIVE_UP_AFTER`), or a fault that no request can escape, end the judging with an error. The answers of that row get
    no verdict, so that judging them later begins with them; all other verdicts came before.

    Attributes:
        seed: of the ids that delimit what is judged.
    """

    name: str
    endpoint: Endpoint
    rubrics: Sequence[Rubric]
    reading: Reading
    seed: int = 0

    def judge(self, answers: Sequence[Answer]) -> Iterator[tuple[int, Verdict]]:
        """Verdicts in the order in which they come.

        Raises:
            InputError: the endpoint fails for good, or for several answers in a row.
        """
        stopped, patience = Event(), _Patience(self.endpoint)
        with Connection(self.endpoint, self.reading.forms) as connection:
            work = partial(self._verdict, connection, stopped)
            try:
                for place, result in in_threads(work, answers, self.endpoint.workers):
                    yield from patience.take(place, result)
                    if patience.fault:
                        stopped.set()  # the requests under way still end, and their verdicts count
                yield from patience.end()
            finally:
                stopped.set()

    def _verdict(self, connection: Connection, stopped: Event, answer: Answer) -> Verdict | Fault | None:
        """None where the judging has been stopped."""
        scores = []
        for rubric in self.rubrics:
            if stopped.is_set():
                return None
            score = self._score(connection, answer, rubric)
            if isinstance(score, Fault):
                if score.kind == "final":
                    stopped.set()
                return Verdict(failure=score.reason) if score.kind == "reply" else score
            scores.append(score)
        return as_verdict(self.rubrics, scores)

    def _score(self, connection: Connection, answer: Answer, rubric: Rubric) -> float | Fault:
        asked = question(rubric, answer, self.reading.instruction(rubric), self.seed)
        reply = connection.complete(asked.messages)
        if isinstance(reply, Fault):
            return reply
        try:
            return self.reading.read(reply, rubric, asked.nonce)
        except NoScoreError as error:
            return Fault(str(error), "reply")
        except UnfitEndpointError as error:
            return Fault(f"{error}; ask for written scores, or for a local model", "final")


@dataclass
class _Patience:
    """Passes verdicts on, and holds those of failing requests back until it is known whether the endpoint works."""

    endpoint: Endpoint
    fault: Fault | None = None
    _held: list[tuple[int, Fault]] = field(default_factory=list)
    _has_worked: bool = False

    def take(self, place: int, result: Verdict | Fault | None) -> Iterator[tuple[int, Verdict]]:
        """What is known once a result is there."""
        if result is None:
            return
        if isinstance(result, Fault) and not (result.kind == "request" and self._has_worked):
            self._hold(place, result)
            return
        self._has_worked = True
        if not self.fault:
            yield from self._release()
        yield place, _as_verdict(result)

    def end(self) -> Iterator[tuple[int, Verdict]]:
        """What is still held.

        Raises:
            InputError: the endpoint has failed.
        """
        if not self.fault and self._held and not self._has_worked:
            self.fault = self._held[-1][1]
        if self.fault:
            raise InputError(
                f"judge endpoint {self.endpoint.url}, model {self.endpoint.model}: {self.fault.reason}; "
                f"check the URL, the model's name and the key in {KEY}"
            )
        yield from self._release()

    def _hold(self, place: int, fault: Fault) -> None:
        self._held.append((place, fault))
        if not self.fault and (fault.kind == "final" or len(self._held) >= GIVE_UP_AFTER):
            self.fault = fault

    def _release(self) -> Iterator[tuple[int, Verdict]]:
        held, self._held = self._held, []
        yield from ((place, _as_verdict(fault)) for place, fault in held)


def _as_verdict(result: Verdict | Fault) -> Verdict:
    return Verdict(failure=result.reason) if isinstance(result, Fault) else result
