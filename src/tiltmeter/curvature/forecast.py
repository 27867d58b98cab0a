"""What a training run is going to do to a skill, forecast from the base model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from tiltmeter.curvature.flow import Krylov
from tiltmeter.curvature.instability import Subspace
from tiltmeter.curvature.planned import Plan, roll_out
from tiltmeter.curvature.training_loss import TrainingLoss
from tiltmeter.curvature.training_space import TrainingSpace
from tiltmeter.intervals import Interval, crossing_interval
from tiltmeter.likelihood import log_likelihoods
from tiltmeter.progress import track
from tiltmeter.tokens import Encoded

MOST_DISAGREEMENT = 0.1  # of the displacements with m and m - 1 products, relative
MOST_MISS = 0.2  # of a loss: quadratic model against evaluated, relative to its change
SMALL = 0.01  # nats of utility loss: a miss below it is none

Skills = Mapping[str, Sequence[Encoded]]
Losses = Float[Tensor, "S N"]


@dataclass(frozen=True)
class Course:
    """A forecast of one training run: S points on its way.

    Attributes:
        method: "krylov" propagates the quadratic model of the flow, "roll-out" trains.
        times: flow time of each point (learning rate times steps).
        losses: skill -> utility loss of each example at each point, evaluated there (sum over completion tokens). Any
            set of pairs can be observed: of completions that the model should not give, a loss is good news.
        data_losses: the fine-tuning loss at each point, evaluated.
        expected: what the quadratic model expects of it; None for a roll-out.
        disagreement: `||d_m - d_{m-1}|| / ||d_m||` of the displacements with m and m - 1 products; None for a roll-out.
        start: the fine-tuning loss at the base.
        held_from: the time from which the forecast stands still, because the evaluated fine-tuning loss, which a flow
            only lowers, would rise: losses are those of the point before. None where it descends all the way.
    """

    method: Literal["krylov", "roll-out"]
    times: Sequence[float]
    losses: Mapping[str, Losses]
    data_losses: Sequence[float]
    expected: Sequence[float] | None
    disagreement: Sequence[float] | None
    start: float
    held_from: float | None = None

    def utility_loss(self, skill: str) -> list[float]:
        """The mean utility loss at each point."""
        found: list[float] = self.losses[skill].mean(1).tolist()
        return found

    @property
    def trusted_until(self) -> float:
        """The last time up to which the forecast holds together; 0 where it never does.

        A Krylov forecast is trusted as long as m and m - 1 products agree within 10 % and the quadratic model's
        fine-tuning loss is within 20 % of the evaluated loss's change. A roll-out is the run itself.
        """
        if self.expected is None or self.disagreement is None:
            return max(self.times)
        trusted = 0.0
        for time, loss, model, apart in zip(
            self.times, self.data_losses, self.expected, self.disagreement, strict=True
        ):
            if time == self.held_from or not (
                apart <= MOST_DISAGREEMENT and abs(model - loss) <= MOST_MISS * abs(loss - self.start)
            ):
                break
            trusted = time
        return trusted

    def trusted_for(self, losses: Sequence[float], quadratic: Sequence[float]) -> float:
        """`trusted_until`, and no further than a skill's own quadratic model tells its evaluated loss.

        Args:
            losses: the skill's mean utility loss at each point, in the Fisher's reduction.
            quadratic: what the skill's quadratic model expects there (`Drift.quadratic`): within 20 %, or 0.01 nats.
        """
        trusted = 0.0
        for time, loss, model in zip(self.times, losses, quadratic, strict=True):
            if time > self.trusted_until or not abs(model - loss) <= max(SMALL, MOST_MISS * abs(loss)):
                break
            trusted = time
        return trusted

    def alarm(self, skill: str, limit: float, weights: Float[Tensor, " N"] | None = None) -> Interval | None:
        """The time at which the mean utility loss first exceeds a limit; None where it does not.

        Linear between the points; the interval is a bootstrap over examples (its upper end is the last time where
        resamples never cross). `weights` multiply the losses of each example, for other reductions than the sum.
        """
        losses = self.losses[skill] if weights is None else self.losses[skill] * weights
        return crossing_interval(np.array([0.0, *self.times]), _with_start(losses), limit)


def krylov_course(model: Krylov, loss: TrainingLoss, times: Sequence[float], skills: Skills) -> Course:
    """The forecast by the quadratic model of a loss; losses are evaluated at its points, by forward passes only."""
    before, start = _likelihoods(loss.space, skills), loss.value()
    after, data_losses = [before], [start]
    for time in track(times, "evaluating the forecast", len(times)):
        with loss.space.moved(model.change(model.coefficients(time))):
            value = loss.value()
            if not value < data_losses[-1]:
                break
            data_losses.append(value)
            after.append(_likelihoods(loss.space, skills))
    reached = len(after) - 1
    missing = len(times) - reached
    after, data_losses = after + after[-1:] * missing, data_losses + data_losses[-1:] * missing
    return Course(
        method="krylov",
        times=times,
        losses={name: torch.stack([before[name] - point[name] for point in after[1:]]) for name in skills},
        data_losses=data_losses[1:],
        expected=[start + quadratic_change(model, time) for time in times],
        disagreement=[disagreement(model, time) for time in times],
        start=start,
        held_from=times[reached] if missing else None,
    )


def rolled_course(loss: TrainingLoss, plan: Plan, steps: Sequence[int], skills: Skills) -> Course:
    """The run itself for some steps, observed after each number of steps."""
    before, start = _likelihoods(loss.space, skills), loss.value()
    seen = roll_out(loss, plan, steps, lambda: (_likelihoods(loss.space, skills), loss.value()))
    losses = {name: torch.stack([before[name] - after[name] for after, _ in seen]) for name in skills}
    times = [plan.learning_rate * step for step in steps]
    return Course("roll-out", times, losses, [value for _, value in seen], None, None, start)


def quadratic_change(model: Krylov, time: float) -> float:
    """`b . d + d K d / 2` with the displacement d: the change of the fine-tuning loss in the quadratic model."""
    d = model.coefficients(time)
    bent = model.alphas * d
    bent[:-1] += model.betas[: len(d) - 1] * d[1:]
    bent[1:] += model.betas[: len(d) - 1] * d[:-1]
    return float(model.size * d[0] + d @ bent / 2)


def disagreement(model: Krylov, time: float) -> float:
    """`||d_m - d_{m-1}|| / ||d_m||`; infinite where there is nothing to compare with."""
    if model.products == 1:
        return float("inf") if len(model.basis) > 1 else 0.0
    if len(model.basis) == model.products:  # the space is exhausted: the model is exact
        return 0.0
    d, fewer = model.coefficients(time), model.coefficients(time, model.products - 1)
    return float(np.linalg.norm(d - fewer) / np.linalg.norm(d))


@dataclass(frozen=True)
class Drift:
    """A skill's coordinates along a quadratic model's displacements, S points.

    Attributes:
        coordinates: of each displacement.
        subspace: the skill's.
    """

    coordinates: Float[Tensor, "S N"]
    subspace: Subspace

    @property
    def drift(self) -> list[float]:
        """`||F^{1/2} P (theta(t) - theta*)||`."""
        return [self.subspace.weighted(point) for point in self.coordinates]

    @property
    def overlap(self) -> list[float]:
        """`mean_n c_n^2`, without projection."""
        found: list[float] = self.coordinates.square().mean(1).tolist()
        return found

    @property
    def quadratic(self) -> list[float]:
        """`-mean_n c_n + mean_n c_n^2 / 2`: the utility loss that the skill's own quadratic model expects."""
        found: list[float] = (self.coordinates.square().mean(1) / 2 - self.coordinates.mean(1)).tolist()
        return found


def drift(model: Krylov, rows: Float[Tensor, "m1 N"], times: Sequence[float], subspace: Subspace) -> Drift:
    """Drift and overlap at all times from the coordinates of the basis, `rows[j] = c(sqrt(P) q_j)`."""
    weights = torch.tensor(np.stack([model.coefficients(time) for time in times]))
    return Drift(weights @ rows[: weights.shape[1]], subspace)


def taylor(velocity: Float[Tensor, " N"], acceleration: Float[Tensor, " N"], times: Sequence[float]) -> Tensor:
    """Coordinates of `-t p + t^2/2 a` [S, N]: the study's form, which holds for `t << 1 / lambda_max` only."""
    t = torch.tensor(times, dtype=torch.float64)[:, None]
    return -t * velocity + t.square() / 2 * acceleration


def _likelihoods(space: TrainingSpace, skills: Skills) -> dict[str, Tensor]:
    return {name: log_likelihoods(space.model, encoded) for name, encoded in skills.items()}


def _with_start(losses: Losses) -> NDArray[np.float64]:
    found: NDArray[np.float64] = torch.cat([torch.zeros(1, losses.shape[1], dtype=torch.float64), losses]).numpy()
    return found
