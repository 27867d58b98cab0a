"""A trust region for each skill in the metric of its Fisher information, for the drift now and the drift to come."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from tiltmeter.errors import InputError
from tiltmeter.skills import Skill
from tiltmeter.training.guards.guard import Guard
from tiltmeter.training.guards.multipliers import Ball, into_balls


class TrustRegion(Guard):
    """Overlap `OS_i = (1/N) sum_n c_n^2 <= limit` for every skill, after every step and for the steps to come.

    `c_n = <g_n, theta - theta_0>` with per-example gradients at the start. A step that leaves the region is followed by
    the least change that brings it back, `theta <- theta - G^T z`, with a multiplier for each skill, so that several
    are balanced; inside, nothing is touched. With `horizon` h the drift foreseen h steps ahead is kept within the
    limit too: the parabola through the drifts now, h and 2h steps ago, `3 c_t - 3 c_{t-h} + c_{t-2h}`, whose second
    difference is what the curvature of the task adds (the `gamma t^2 / 2` of the instability condition).

    With `every`, `c_n` is what the log-likelihood of an example has changed, measured after every step, and the
    gradients along which steps are corrected are taken anew every so many steps: coordinates of the start do not see a
    skill that breaks along curved directions. A correction is then no longer than the step that it corrects, so that
    what is over the limit can take several steps to come back. For an adapter theta are its factors A and B.
    Source of c and the condition: collapse (arXiv 2602.15799).

    Memory: N times what trains, for each skill. Time: N backward passes whenever gradients are taken; with
    `every` a forward pass over the skills each step.

    Args:
        skills: what is to be kept.
        limit: of the overlap of every skill, positive.
        every: steps from one linearisation to the next; None for the start's alone.
        horizon: steps ahead; 0 for the present drift alone.
        tokenizer: as for every guard.

    Raises:
        InputError: a limit that is not positive; otherwise as every guard.
    """

    def __init__(
        self,
        skills: Sequence[Skill],
        limit: float,
        every: int | None = None,
        horizon: int = 0,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> None:
        super().__init__(skills, tokenizer)
        if not limit > 0:
            raise InputError(f"a limit of the overlap is positive, got {limit}")
        self.limit, self.every, self.horizon = limit, every, horizon

    def prepare(self) -> None:
        with self.trained.displacement.at_base():
            self._base = torch.cat([skill.log_likelihoods() for skill in self.kept])
        self._past = [torch.tensor(drift, dtype=torch.float64) for drift in self.saved.get("past", [])]
        if self.every:
            self._linearise()
        else:
            self.check_start()
            with self.trained.at(self.trained.start):
                self._linearise()

    def follow(self) -> None:
        if self.every and self.step % self.every == 0 and not torch.equal(self._point, self.trained.read()):
            self._linearise()

    def drift(self) -> Float[Tensor, " R"]:
        """c of every example of every skill, at the present weights."""
        if self.every:
            return torch.cat([skill.log_likelihoods() for skill in self.kept]) - self._base
        return (self._gradients @ (self.trained.read() - self._point)).double().cpu()

    def corrected(self, before: Float[Tensor, " P"]) -> Float[Tensor, " P"] | None:
        drift, balls = self.drift(), self._balls()
        if all(ball.size(drift) <= ball.limit for ball in balls):
            self._remember(drift)
            return None
        stepped, pull = self.trained.read(), into_balls(self._gram, drift, balls)
        if self.every:
            pull = pull * self._damping(pull, float((stepped - before).norm()))
        self._remember(drift - self._gram @ pull)
        return stepped - self._gradients.T @ pull.to(self._gradients)

    def _damping(self, pull: Float[Tensor, " R"], step: float) -> float:
        """1, or less where the correction is longer than the step: old gradients do not reach farther."""
        length = math.sqrt(float(pull @ self._gram @ pull))
        return min(1.0, step / length) if length else 1.0

    def _remember(self, drift: Float[Tensor, " R"]) -> None:
        if self.horizon:
            self._past = [*self._past, drift][-2 * self.horizon :]
            self.saved["past"] = [each.tolist() for each in self._past]

    def _linearise(self) -> None:
        """Takes gradients at the present weights."""
        self._point = self.trained.read()
        self._gradients = torch.cat([skill.example_gradients() for skill in self.kept])
        wide = self._gradients.double()
        self._gram = (wide @ wide.T).cpu()

    def _balls(self) -> list[Ball]:
        """For every skill the present drift, and the one foreseen."""
        found, first = [], 0
        for skill in self.kept:
            rows = slice(first, first + len(skill))
            first += len(skill)
            found.append(Ball(rows, 1.0, torch.zeros(len(skill), dtype=torch.float64), self.limit))
            if self.horizon and len(self._past) == 2 * self.horizon:
                shift = self._past[0][rows] - 3 * self._past[self.horizon][rows]
                found.append(Ball(rows, 3.0, shift, self.limit))
        return found
