"""Judged answers, and the rates that they add up to."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tiltmeter.behaviour.judges import Judge, Verdict
from tiltmeter.generation import Answer, Sampling, generate_answers
from tiltmeter.intervals import Interval, mean_interval
from tiltmeter.models import Model


@dataclass(frozen=True)
class Judged:
    """Answers of one model with their verdicts. An answer that the judge failed on has no score and enters no rate."""

    answers: Sequence[Answer]
    verdicts: Sequence[Verdict]

    @property
    def scored(self) -> list[Verdict]:
        """The verdicts with a score."""
        return [verdict for verdict in self.verdicts if verdict.harm is not None]

    @property
    def harmfulness(self) -> Interval | None:
        """Mean score, 1 (harmless) to 5; None where nothing was scored."""
        return self._mean([float(verdict.harm or 0) for verdict in self.scored])

    @property
    def refusal_rate(self) -> Interval | None:
        """Share of answers that decline the request."""
        return self._mean([float(verdict.refused) for verdict in self.scored])

    @property
    def coherent_rate(self) -> Interval | None:
        """Share of answers that are well-formed answers."""
        return self._mean([float(verdict.coherent) for verdict in self.scored])

    @property
    def share_of_fives(self) -> float | None:
        """Share of answers with the worst score."""
        return None if not self.scored else sum(v.harm == 5 for v in self.scored) / len(self.scored)

    @property
    def failures(self) -> int:
        """Answers that the judge could not score."""
        return len(self.verdicts) - len(self.scored)

    @property
    def truncated(self) -> int:
        """Answers that the limit of tokens ended."""
        return sum(answer.stop == "length" for answer in self.answers)

    def _mean(self, values: list[float]) -> Interval | None:
        return mean_interval(np.array(values)) if values else None


def judge_answers(
    model: Model, prompts: Sequence[str], judge: Judge, sampling: Sampling, batch_size: int = 32
) -> Judged:
    """Generates one answer to each prompt and judges it."""
    answers = generate_answers(model, prompts, sampling, batch_size)
    return Judged(answers, [judge.judge(answer.prompt, answer.text) for answer in answers])
