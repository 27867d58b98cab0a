"""A planned training run: the flow that its optimiser follows, and a short roll-out of the run itself."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal, TypeVar

import torch
from jaxtyping import Float
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from tiltmeter.curvature.flow import Flow
from tiltmeter.curvature.training_loss import TrainingLoss
from tiltmeter.progress import track
from tiltmeter.tokens import Encoded

_T = TypeVar("_T")


@dataclass(frozen=True)
class Plan:
    """How a fine-tune is going to run, at a constant learning rate.

    Attributes:
        optimizer: "sgd" is plain gradient descent, "adamw" AdamW.
        learning_rate, steps, batch_size: as the trainer has them; flow time is learning rate times steps.
        epsilon: of AdamW.
        max_grad_norm: gradients are clipped to this norm; 0 turns clipping off.
        weight_decay: of AdamW; the roll-out has it, the flow does not.
        seed: of the order of the examples.
    """

    optimizer: Literal["sgd", "adamw"] = "adamw"
    learning_rate: PositiveFloat = 1e-4
    steps: PositiveInt = 60
    batch_size: PositiveInt = 16
    epsilon: PositiveFloat = 1e-8
    max_grad_norm: NonNegativeFloat = 1.0
    weight_decay: NonNegativeFloat = 0.0
    seed: Annotated[int, Field(ge=0)] = 0

    @property
    def time(self) -> float:
        """Flow time of the whole run."""
        return self.learning_rate * self.steps


def planned_flow(loss: TrainingLoss, plan: Plan) -> Flow:
    """The flow of a plan: gradient flow for "sgd", a preconditioned flow for "adamw".

    AdamW moves by `m / (sqrt(v) + epsilon)`. With v the mean square of the (clipped) gradients of the batches at the
    start, that is `P = k / (sqrt(v) + epsilon)`, k the mean factor of clipping. Where every batch's gradient is zero at
    the start (LoRA's A, as long as B = 0), v is what it becomes by half the planned time, `(t/2 . H P g)^2`, at the
    cost of one Hessian-vector product. Momentum and the drift of v during training are left out.
    """
    if plan.optimizer == "sgd":
        return Flow(loss.gradient(), loss.product)
    gradient, squares = (torch.zeros(len(loss.space), dtype=loss.space.dtype) for _ in range(2))
    gradient, squares = gradient.to(loss.space.model.device), squares.to(loss.space.model.device)
    factors = []
    for part in track(list(_epoch(loss, plan)), "gradients of the planned batches"):
        found = part.gradient()
        gradient += found * (part.tokens / loss.tokens)
        factors.append(_clipping(found, plan))
        squares += (factors[-1] * found).square()
    clipping, second = sum(factors) / len(factors), squares / len(factors)
    still = second == 0
    P = clipping / (second.sqrt() + plan.epsilon)
    P[still] = 0
    if still.any():
        later = loss.product(P * gradient)[still] * (plan.time / 2)
        P[still] = torch.where(later == 0, 0.0, clipping / (later.abs() + plan.epsilon))
    return Flow(gradient, loss.product, P.sqrt(), is_bounded=True)


def roll_out(loss: TrainingLoss, plan: Plan, at: Sequence[int], observe: Callable[[], _T]) -> list[_T]:
    """Trains by the plan, calls `observe` after each number of steps in `at` (ascending), and takes it all back."""
    parameters = list(loss.space.parameters.values())
    optimizer: torch.optim.Optimizer = torch.optim.SGD(parameters, lr=plan.learning_rate)
    if plan.optimizer == "adamw":
        optimizer = torch.optim.AdamW(
            parameters, lr=plan.learning_rate, eps=plan.epsilon, weight_decay=plan.weight_decay
        )
    seen: list[_T] = []
    parts = _epochs(loss, plan)
    with loss.space.restored():
        for step in track(range(1, max(at) + 1), "rolling out the training"):
            gradient = next(parts).gradient()
            pieces = loss.space.split(gradient * _clipping(gradient, plan)).values()
            for parameter, piece in zip(parameters, pieces, strict=True):
                parameter.grad = piece.to(parameter)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            seen += [observe() for wanted in at if wanted == step]
    return seen


def group_gradients(loss: TrainingLoss, groups: int, seed: int = 0) -> list[tuple[float, Float[Tensor, " P"]]]:
    """The gradients of disjoint groups of the examples, each with its share of the tokens; the loss's is their mean.

    What a bootstrap over fine-tuning examples resamples, without a gradient for each of them.
    """
    order = torch.randperm(len(loss.encoded), generator=torch.Generator().manual_seed(seed)).tolist()
    parts = [[loss.encoded[index] for index in order[start::groups]] for start in range(min(groups, len(order)))]
    losses = [replace(loss, encoded=part) for part in parts]
    return [(each.tokens / loss.tokens, each.gradient()) for each in losses]


def _epochs(loss: TrainingLoss, plan: Plan) -> Iterator[TrainingLoss]:
    epoch = 0
    while True:
        yield from _epoch(loss, replace(plan, seed=plan.seed + epoch))
        epoch += 1


def _epoch(loss: TrainingLoss, plan: Plan) -> Iterator[TrainingLoss]:
    """The loss of each batch of one epoch: the mean over the completion tokens of that batch."""
    order = torch.randperm(len(loss.encoded), generator=torch.Generator().manual_seed(plan.seed)).tolist()
    for start in range(0, len(order), plan.batch_size):
        part: list[Encoded] = [loss.encoded[index] for index in order[start : start + plan.batch_size]]
        yield replace(loss, encoded=part)


def _clipping(gradient: Float[Tensor, " P"], plan: Plan) -> float:
    norm = float(gradient.norm())
    return min(1.0, plan.max_grad_norm / norm) if plan.max_grad_norm and norm else 1.0
