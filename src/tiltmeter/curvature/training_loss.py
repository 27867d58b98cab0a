"""The fine-tuning loss over a data set: value, gradient and Hessian-vector products as vectors of a training space."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from tiltmeter.curvature.training_space import TrainingSpace
from tiltmeter.errors import InputError
from tiltmeter.likelihood import batch_log_likelihoods, completion_lengths, log_likelihoods
from tiltmeter.progress import track
from tiltmeter.tokens import Batch, Encoded, batches

Method = Literal["double-backward", "central-difference"]


@dataclass(frozen=True)
class TrainingLoss:
    """`l(theta) = -sum_z log pi(y_z|x_z) / T`, T the completion tokens of all examples: what a Trainer minimises.

    Nothing here depends on `batch_size`, up to rounding.

    Attributes:
        space: the parameters that learn.
        encoded: the fine-tuning examples.
        batch_size: examples per forward pass.
        method: how Hessian-vector products are taken. "double-backward" differentiates the gradient again, exact, with
            attention computed by its plain formula (fused kernels have no second derivative). "central-difference"
            works everywhere, in float32 or better, with an error of about 1e-3.
    """

    space: TrainingSpace
    encoded: Sequence[Encoded]
    batch_size: int = 8
    method: Method = "double-backward"

    def __post_init__(self) -> None:
        if not self.encoded:
            raise InputError("the fine-tuning loss needs at least one example, got none")

    @cached_property
    def tokens(self) -> float:
        """Completion tokens of all examples."""
        return float(completion_lengths(self.encoded).sum())

    def value(self) -> float:
        """The loss where the parameters stand."""
        return float(-log_likelihoods(self.space.model, self.encoded, self.batch_size).sum()) / self.tokens

    def gradient(self) -> Float[Tensor, " P"]:
        """`grad l`, where the parameters stand."""
        total: dict[str, Tensor] = {}
        for batch in self._batches("gradient of the fine-tuning loss"):
            for name, part in zip(self.space.parameters, self._gradient(batch), strict=True):
                if part is not None:
                    total[name] = total[name].add_(part) if name in total else part.to(self.space.dtype)
        return self.space.join(total)

    def product(self, vector: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
        """`H v`, with H the Hessian of the loss, where the parameters stand.

        Raises:
            InputError: an operation of the model has no second derivative.
        """
        if self.method == "central-difference":
            return central_difference(self, vector).product
        total = torch.zeros_like(vector)
        for batch in self._batches("Hessian-vector product"):
            try:
                total += self.space.join(self._second(batch, vector))
            except (RuntimeError, NotImplementedError) as error:
                if "not implemented" not in str(error):
                    raise
                cause = str(error).splitlines()[0]
                raise InputError(f"no double backward ({cause}): take central differences (--hessian)") from error
        return total

    def _second(self, batch: Batch, vector: Float[Tensor, " P"]) -> dict[str, Tensor]:
        """The batch's part of `H v`, by parameter."""
        with sdpa_kernel(SDPBackend.MATH):
            first = self._gradient(batch, create_graph=True)
            parts = self.space.split(vector).values()
            pairs = [(g, v.to(g)) for g, v in zip(first, parts, strict=True) if g is not None and g.requires_grad]
            second = torch.autograd.grad(
                [g for g, _ in pairs], self._learning, [v for _, v in pairs], materialize_grads=True
            )
        return dict(zip(self.space.parameters, second, strict=True))

    @property
    def _learning(self) -> list[Tensor]:
        return list(self.space.parameters.values())

    def _gradient(self, batch: Batch, create_graph: bool = False) -> tuple[Tensor | None, ...]:
        loss = -batch_log_likelihoods(self.space.model.module, batch).sum() / self.tokens
        return torch.autograd.grad(loss, self._learning, create_graph=create_graph, allow_unused=True)

    def _batches(self, what: str) -> Iterator[Batch]:
        model = self.space.model
        every = batches(self.encoded, self.batch_size, model.tokenizer, model.device)
        return track(every, what, -(-len(self.encoded) // self.batch_size))


@dataclass(frozen=True)
class Difference:
    """A Hessian-vector product by difference, and its relative error as two step sizes tell it."""

    product: Float[Tensor, " P"]
    error: float


def central_difference(loss: TrainingLoss, vector: Float[Tensor, " P"]) -> Difference:
    """`(grad l(theta + h v) - grad l(theta - h v)) / 2h`, extrapolated from steps h and 2h (Richardson).

    Four gradients. The step is scaled to the numbers at hand: `h ||v|| = eps^(1/3) ||theta|| / 10`. The error is the
    distance of the two differences, relative to their size.

    Raises:
        InputError: in half precision, where the difference is rounding alone.
    """
    if loss.space.model.module.dtype not in (torch.float32, torch.float64):
        raise InputError(f"central differences need float32 or float64, the model is {loss.space.model.module.dtype}")
    if not vector.any():
        return Difference(torch.zeros_like(vector), 0.0)
    size = loss.space.join(loss.space.parameters).norm()
    step = float(torch.finfo(loss.space.dtype).eps ** (1 / 3) * 0.1 * size / vector.norm())

    def difference(h: float) -> Tensor:
        with loss.space.moved(h * vector):
            ahead = loss.gradient()
        with loss.space.moved(-h * vector):
            return (ahead - loss.gradient()) / (2 * h)

    fine, coarse = difference(step), difference(2 * step)
    product = fine + (fine - coarse) / 3
    return Difference(product, float((fine - coarse).norm() / product.norm()))
