"""A skill that a guard keeps: its log-likelihoods and their gradients at the model that trains."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from tiltmeter.likelihood import batch_log_likelihoods, log_likelihoods
from tiltmeter.skills import Skill
from tiltmeter.tokens import Batch, batches, encode_within
from tiltmeter.training.guards.trained import Trained

BATCH = 32


class Kept:
    """N examples of a skill. Every measurement runs without dropout, and is the same in every process.

    Attributes:
        name: the skill's.
        encoded: its examples as token ids.
        trained: the parameters that gradients are taken by.
    """

    def __init__(self, skill: Skill, trained: Trained) -> None:
        self.name, self.trained, self._model = skill.name, trained, trained.model
        self.encoded = encode_within(self._model, skill)

    def __len__(self) -> int:
        return len(self.encoded)

    def log_likelihoods(self) -> Float[Tensor, " N"]:
        """`log pi(y_n|x_n)`, summed over tokens, at the present weights."""
        with self.trained.displacement.at_present():
            return log_likelihoods(self._model, self.encoded, BATCH)

    def gradient(self, weights: Float[Tensor, " N"]) -> Float[Tensor, " P"]:
        """`sum_n w_n grad log pi(y_n|x_n)`; examples of weight 0 are left out."""
        total = self.trained.zeros()
        rows = weights.nonzero()[:, 0].tolist()
        with self.trained.displacement.at_present():
            for batch in self.batches(rows, BATCH):
                likelihoods = batch_log_likelihoods(self._model.module, batch)
                total += self.trained.gradient((likelihoods * weights[batch.rows].to(likelihoods)).sum())
        return total

    def example_gradients(self) -> Float[Tensor, "N P"]:
        """`grad log pi(y_n|x_n)`, one example after the other. Takes N times the memory of what trains."""
        zeros = self.trained.zeros()
        rows = zeros.new_empty(len(self), len(zeros))
        with self.trained.displacement.at_present():
            for batch in self.batches(range(len(self)), 1):
                rows[batch.rows[0]] = self.trained.gradient(batch_log_likelihoods(self._model.module, batch)[0])
        return rows

    def batches(self, rows: Sequence[int], size: int) -> Iterator[Batch]:
        """Some of the examples, padded, on the model's device; `Batch.rows` are their places in the skill."""
        chosen = [self.encoded[row] for row in rows]
        for batch in batches(chosen, size, self._model.tokenizer, self._model.device):
            yield replace(batch, rows=[rows[place] for place in batch.rows])

    def turn(self, step: int, size: int) -> list[int]:
        """The `size` examples whose turn it is at a step: the same ones after a resume."""
        return [(step * size + offset) % len(self) for offset in range(min(size, len(self)))]
