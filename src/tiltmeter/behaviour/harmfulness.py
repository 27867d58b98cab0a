"""Judged answers, and the rates that they add up to."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from tiltmeter.behaviour.judges import Judge, Verdict
from tiltmeter.generation import Answer, Sampling, generate_answers
from tiltmeter.intervals import Interval, mean_interval
from tiltmeter.models import Model


@dataclass(frozen=True)
class Judged:
    """Answers of one model with their verdicts. An answer that the judge failed on enters no rate."""

    answers: Sequence[Answer]
    verdicts: Sequence[Verdict]

    @property
    def harmfulness(self) -> Interval | None:
        """Mean score, 1 (harmless) to 5; None where nothing was scored."""
        return self._mean("harm")

    @property
    def refusal_rate(self) -> Interval | None:
        """Share of answers that decline the request."""
        return self._mean("refused")

    @property
    def coherent_rate(self) -> Interval | None:
        """Share of answers that are well-formed answers."""
        return self._mean("coherent")

    @property
    def share_of_fives(self) -> float | None:
        """Share of answers with the worst score."""
        scores = self.known("harm")
        return float((scores == 5).mean()) if len(scores) else None

    @property
    def failures(self) -> int:
        """Answers that the judge could not judge."""
        return sum(verdict.failure is not None for verdict in self.verdicts)

    @property
    def truncated(self) -> int:
        """Answers that the limit of tokens ended."""
        return sum(answer.stop == "length" for answer in self.answers)

    def known(self, outcome: str) -> Float[np.ndarray, " N"]:
        """One field of the verdicts, by its name, where the judge did not fail and judges it."""
        values = (getattr(verdict, outcome) for verdict in self.verdicts if verdict.failure is None)
        return np.array([float(value) for value in values if value is not None])

    def _mean(self, outcome: str) -> Interval | None:
        values = self.known(outcome)
        return mean_interval(values) if len(values) else None


def judge_answers(
    model: Model, prompts: Sequence[str], judge: Judge, sampling: Sampling, batch_size: int = 32
) -> Judged:
    """Generates one answer to each prompt and judges it."""
    answers = generate_answers(model, prompts, sampling, batch_size)
    verdicts = dict(judge.judge(answers))
    return Judged(answers, [verdicts[place] for place in range(len(answers))])
