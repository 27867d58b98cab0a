"""The short way from Python: the fine-tuning gradient, Hessian-vector products, the condition and a forecast."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tiltmeter.curvature.example_risk import weight_count
from tiltmeter.curvature.fisher import Fisher
from tiltmeter.curvature.flow import Krylov, krylov
from tiltmeter.curvature.forecast import Course, Drift, drift, krylov_course
from tiltmeter.curvature.instability import Instability, Subspace
from tiltmeter.curvature.planned import Plan, planned_flow
from tiltmeter.curvature.training_loss import TrainingLoss
from tiltmeter.curvature.training_space import TrainingSpace, weight_space
from tiltmeter.models import Model
from tiltmeter.skills import Skill
from tiltmeter.tokens import encode_within
from tiltmeter.updates.update import Update

GRADIENT_FLOW = Plan("sgd")


def gradient(model: Model, data: Skill, batch_size: int = 8) -> Update:
    """`grad l` of the fine-tuning loss (mean over completion tokens) in the weights of the linear modules, [o, i]."""
    with weight_space(model) as space:
        return space.tangent(TrainingLoss(space, encode_within(model, data), batch_size).gradient())


def hessian_vector_product(model: Model, data: Skill, update: Update, batch_size: int = 8) -> Update:
    """`H V` of the fine-tuning loss in the weights of the linear modules, exact, by double backward.

    Raises:
        InputError: an update of modules that the model does not have in its blocks.
    """
    with weight_space(model) as space:
        loss = TrainingLoss(space, encode_within(model, data), batch_size)
        return space.tangent(loss.product(space.vector(update)))


def instability(fisher: Fisher, data: Skill, dims: int = 8, plan: Plan = GRADIENT_FLOW) -> Instability:
    """The instability condition of full fine-tuning on some data, for a skill: one Hessian-vector product."""
    with weight_space(fisher.model) as space:
        model = krylov(planned_flow(_loss(space, data), plan), 1)
        rows = [space.tangent(row) for row in model.rows()]
    return condition(fisher, model, rows, dims)


@dataclass(frozen=True)
class Forecast:
    """What fine-tuning is going to do to one skill: drift in its subspace, and evaluated losses.

    Attributes:
        course: losses of each example at each time.
        drift: coordinates, drift and overlap at the same times.
        utility_loss: mean at each time, in the Fisher's reduction.
    """

    course: Course
    drift: Drift
    utility_loss: Sequence[float]

    @property
    def trusted_until(self) -> float:
        """The last time up to which the forecast holds together; 0 where it never does."""
        return self.course.trusted_for(self.utility_loss, self.drift.quadratic)


def forecast(
    fisher: Fisher, data: Skill, times: Sequence[float], plan: Plan = GRADIENT_FLOW, products: int = 4, dims: int = 8
) -> Forecast:
    """Full fine-tuning on some data over times (learning rate times steps), by m Hessian-vector products."""
    with weight_space(fisher.model) as space:
        loss = _loss(space, data)
        model = krylov(planned_flow(loss, plan), products)
        course = krylov_course(model, loss, times, {fisher.skill.name: fisher.encoded})
        rows = fisher.coordinates([space.tangent(row) for row in model.rows()]).sum(1)
    losses: list[float] = (course.losses[fisher.skill.name] * fisher.weights).mean(1).tolist()
    return Forecast(course, drift(model, rows, times, Subspace(fisher.gram().sum(0), dims)), losses)


def condition(fisher: Fisher, model: Krylov, rows: Sequence[Update], dims: int) -> Instability:
    """The condition from a quadratic model, the rows of its basis given as updates."""
    c = fisher.coordinates(rows[:2]).sum(1)
    acceleration = torch.tensor(model.acceleration[: len(c)]) @ c
    speed = model.size * rows[0].norm()
    return Instability(
        Subspace(fisher.gram().sum(0), dims), model.size * c[0], acceleration, speed, weight_count(fisher)
    )


def _loss(space: TrainingSpace, data: Skill) -> TrainingLoss:
    return TrainingLoss(space, encode_within(space.model, data))
