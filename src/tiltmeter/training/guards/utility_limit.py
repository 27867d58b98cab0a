"""A limit on what skills lose, measured after every step."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from tiltmeter.errors import InputError
from tiltmeter.skills import Skill
from tiltmeter.training.guards.guard import Guard
from tiltmeter.training.guards.kept import Kept
from tiltmeter.training.guards.multipliers import least_change

ROUNDS = 8
HALVINGS = 12
MARGIN = 0.05  # a correction aims this far below the limit, so that rounding and curvature seldom need a second one


class UtilityLimit(Guard):
    """Utility loss `du_i = mean_n [log pi_0 - log pi](y_n|x_n) <= limit` for every skill, after every step.

    What a skill loses is measured at the weights that the step led to, with all orders of curvature in it. Above the
    limit the smallest change by which the linearised losses fit is made, `theta <- theta - sum_i lambda_i grad du_i`
    with one multiplier `lambda_i >= 0` a skill, and measured again; should that not do after some rounds, the step is
    halved until it fits. Where nothing is above its limit nothing is touched, and a skill may become more likely.

    Memory: one vector of what trains for each skill above its limit. Time: a forward pass over the skills each step,
    and a backward pass with each correction.

    Args:
        skills: what is to be kept.
        limit: nats per completion, for every skill; positive.
        tokenizer: as for every guard.

    Raises:
        InputError: a limit that is not positive; otherwise as every guard.
    """

    def __init__(self, skills: Sequence[Skill], limit: float, tokenizer: PreTrainedTokenizerBase | None = None) -> None:
        super().__init__(skills, tokenizer)
        if not limit > 0:
            raise InputError(f"a limit of the utility loss is positive, got {limit}")
        self.limit = limit
        self._base: list[Tensor] = []

    def prepare(self) -> None:
        with self.trained.displacement.at_base():
            self._base = [skill.log_likelihoods() for skill in self.kept]

    def losses(self) -> Float[Tensor, " S"]:
        """`du_i` at the present weights."""
        pairs = zip(self._base, self.kept, strict=True)
        return torch.stack([(base - skill.log_likelihoods()).mean() for base, skill in pairs])

    def corrected(self, before: Float[Tensor, " P"]) -> Float[Tensor, " P"] | None:
        stepped = self.trained.read()
        for _ in range(ROUNDS):
            losses = self.losses()
            if bool((losses <= self.limit).all()):
                return None if torch.equal(stepped, self.trained.read()) else self.trained.read()
            self.trained.write(self.trained.read() - self._change(losses))
        return self._halved(before, stepped)

    def _change(self, losses: Float[Tensor, " S"]) -> Float[Tensor, " P"]:
        """The least `x = sum_i lambda_i grad du_i` with `du_i - <grad du_i, x> <= (1 - margin) limit`."""
        above = (losses > self.limit).nonzero()[:, 0].tolist()
        gradients = torch.stack([self._loss_gradient(self.kept[i]) for i in above])
        excess = losses[above] - (1 - MARGIN) * self.limit
        gram = (gradients @ gradients.T).double().cpu()
        return least_change(gram, excess).to(gradients) @ gradients

    def _loss_gradient(self, skill: Kept) -> Float[Tensor, " P"]:
        return skill.gradient(torch.full((len(skill),), -1 / len(skill), dtype=torch.float64))

    def _halved(self, before: Float[Tensor, " P"], stepped: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
        """The largest of the step, its half, its quarter, ... that fits; no step at all if none does."""
        for power in range(1, HALVINGS):
            self.trained.write(before + (stepped - before) / 2**power)
            if bool((self.losses() <= self.limit).all()):
                return self.trained.read()
        return before
