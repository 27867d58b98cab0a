"""Guards that pull: a gradient that is added before each step. The loss that is logged stays the task's."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from tiltmeter.errors import InputError
from tiltmeter.likelihood import batch_log_likelihoods, completion_logits
from tiltmeter.skills import Skill
from tiltmeter.tokens import Batch
from tiltmeter.training.guards.guard import Guard
from tiltmeter.training.guards.kept import Kept


def checked_weight(weight: float) -> float:
    """The weight of a penalty.

    Raises:
        InputError: a negative one.
    """
    if not weight >= 0:
        raise InputError(f"the weight of a penalty is not negative, got {weight:g}")
    return weight


class Rehearsal(Guard):
    """Adds `weight * grad loss(skill examples)`, on `batch_size` examples of each skill whose turn it is.

    Args:
        skills: what is to be kept.
        weight: of the loss, beside the task's.
        batch_size: examples of each skill per step.
        tokenizer: as for every guard.
    """

    def __init__(
        self,
        skills: Sequence[Skill],
        weight: float,
        batch_size: int = 16,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> None:
        super().__init__(skills, tokenizer)
        self.weight, self.batch_size = checked_weight(weight), batch_size

    def penalty(self) -> Float[Tensor, " P"]:
        total = self.trained.zeros()
        for skill in self.kept:
            rows = skill.turn(self.step, self.batch_size)
            for batch in skill.batches(rows, self.batch_size):
                total += self.weight * self._gradient(skill, batch)
        return total

    def _gradient(self, skill: Kept, batch: Batch) -> Float[Tensor, " P"]:
        with self.trained.displacement.at_present():
            return self.trained.gradient(self.loss(skill, batch) / batch.is_completion.sum())

    @abstractmethod
    def loss(self, skill: Kept, batch: Batch) -> Float[Tensor, ""]:
        """Summed over the completion tokens of a batch."""


class Replay(Rehearsal):
    """Replay: the skill's own examples are learned beside the task's, `-log pi(y|x)` per completion token."""

    def loss(self, skill: Kept, batch: Batch) -> Float[Tensor, ""]:
        return -batch_log_likelihoods(self.trained.model.module, batch).sum()


class KLToBase(Rehearsal):
    """`KL(pi_0(.|x, y_<t) || pi(.|x, y_<t))`, the mean over the completion tokens of skill examples.

    One more forward pass through the model as it was, each step.
    """

    def loss(self, skill: Kept, batch: Batch) -> Float[Tensor, ""]:
        with torch.no_grad(), self.trained.displacement.at_base():
            base = completion_logits(self.trained.model.module, batch).log_softmax(-1)
        present = completion_logits(self.trained.model.module, batch).log_softmax(-1)
        return (base.exp() * (base - present)).sum()


class ElasticWeights(Guard):
    """Elastic weight consolidation by the exact Fisher information: `weight/2 v^T F v` with `v = theta - theta_0`.

    F = (1/N) sum_n g_n g_n^T, from per-example gradients g_n at the start, whole and not its diagonal: its gradient is
    `weight/N sum_n c_n g_n` with `c_n = <g_n, v>`. (The square of a batch's gradient, which some
    implementations take, is no Fisher information.) For an adapter theta are its factors.
    Source: Kirkpatrick et al., arXiv 1612.00796.

    Memory: N times what trains.
    """

    def __init__(
        self, skills: Sequence[Skill], weight: float, tokenizer: PreTrainedTokenizerBase | None = None
    ) -> None:
        super().__init__(skills, tokenizer)
        self.weight = checked_weight(weight)
        self._gradients: list[Tensor] = []

    def prepare(self) -> None:
        self.check_start()
        self._start = self.trained.start
        with self.trained.at(self._start):
            self._gradients = [skill.example_gradients() for skill in self.kept]

    def penalty(self) -> Float[Tensor, " P"]:
        moved = self.trained.read() - self._start
        pulls = [gradients.T @ (gradients @ moved) / len(gradients) for gradients in self._gradients]
        return self.weight * torch.stack(pulls).sum(0)
