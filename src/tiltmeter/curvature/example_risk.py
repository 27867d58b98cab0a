"""Before training: what a gradient step on each candidate example does to a skill, to first order."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.curvature.fisher import Fisher
from tiltmeter.curvature.gradient_products import GradientProducts, gradient_products
from tiltmeter.errors import NothingMeasuredError
from tiltmeter.layers import widths
from tiltmeter.updates.update import Update


@dataclass(frozen=True)
class ExampleRisk:
    """The risk of each candidate z, with its fine-tuning loss `l(z) = -log pi(z)` and `gbar = grad u` of the skill.

    Attributes:
        harm: `<gbar, grad l(z)>`: a step `-eta grad l(z)` lowers the skill's utility u by `eta * harm` to first order.
        cosine: of gbar and `grad l(z)`: harm without the length of either gradient; 0 where `grad l(z)` is zero.
        norms: `||grad l(z)||`.
        skill_norm: `||gbar||`.
    """

    harm: Float[Tensor, " N"]
    cosine: Float[Tensor, " N"]
    norms: Float[Tensor, " N"]
    skill_norm: float


def example_risk(candidates: Fisher, gradients: Sequence[Update]) -> list[ExampleRisk]:
    """The risk of each candidate for several skills, from their mean gradients `gbar`, in one pass over the candidates.

    Positive harm lowers the skill's log-likelihood. The sign is that of descent on `l(z) = -log pi(z)`:
    `harm(z) = <gbar, grad l(z)> = -mean_n <g_n, grad log pi(z)>`. Reductions are those of the two Fishers.

    Raises:
        InputError: a mean gradient that does not have the candidates' modules.
        NothingMeasuredError: a mean gradient that is zero.
    """
    products = gradient_products(candidates, gradients)
    return [_risk(products, k, _norm(candidates, gradient)) for k, gradient in enumerate(gradients)]


def cosine_null(candidates: Fisher) -> float:
    """The standard deviation `1/sqrt(n)` of the cosine of a random direction in the space of the n measured weights.

    Its distribution is close to normal, with mean 0. It says what chance alone does, and no more: gradients of one
    model are alike, and unrelated data exceeds it too.
    """
    return 1 / math.sqrt(weight_count(candidates))


def weight_count(fisher: Fisher) -> int:
    """The number n of measured weights."""
    return sum(math.prod(widths(layers[0])) for layers in fisher.layers.values())


def _risk(products: GradientProducts, k: int, norm: float) -> ExampleRisk:
    harm = -products.inner[k]
    cosine = torch.where(products.norms > 0, harm / (norm * products.norms), 0.0)
    return ExampleRisk(harm, cosine, products.norms, norm)


def _norm(fisher: Fisher, gradient: Update) -> float:
    norm = math.hypot(*(gradient[name].norm() for name in fisher.modules))
    if norm == 0:
        raise NothingMeasuredError(
            "the skill's mean gradient is zero: no example can change its utility to first order"
        )
    return norm
