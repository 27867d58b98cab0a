"""Is a direction the same on other prompts, with another seed, for another task?"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.activations.separation.folds import checked_pairs
from tiltmeter.errors import InputError


@dataclass(frozen=True)
class Stability:
    """Cosines between the directions of two random halves of the prompts; 0 on average for pure noise.

    Attributes:
        mean: over the draws of halves.
        lowest, highest: of the draws. They share prompts, so this is no confidence interval.
    """

    mean: float
    lowest: float
    highest: float


def stability(
    base: Float[Tensor, "N d"],
    tuned: Float[Tensor, "M e"],
    draws: int = 100,
    seed: int = 0,
    name: str = "activations",
) -> Stability:
    """`cos(v_1, v_2)`, v_1 and v_2 the differences in means of two disjoint halves of the prompts, over random halves.

    From the N x N inner products of the pairs' differences.

    Args:
        base, tuned: activations of the two models on the same N prompts, row by row.
        draws: of halves; of an odd number of prompts, the second half is the larger.
        name: what an error calls the activations.

    Raises:
        InputError: fewer than two prompts, other shapes, a value that is not finite, no difference at all in a half.
    """
    base, tuned = checked_pairs(base, tuned, 2, name)
    delta = tuned - base
    gram, N = delta @ delta.T, len(delta)
    rng = np.random.default_rng(seed)
    first = torch.from_numpy(rng.permuted(np.tile(np.arange(N) < N // 2, (draws, 1)), axis=1)).double()
    second = 1 - first
    products = [((one @ gram) * other).sum(1) for one, other in ((first, second), (first, first), (second, second))]
    if not (products[1].all() and products[2].all()):
        raise InputError(f"{name}: half of the {N} prompts show no difference between base and tuned at all")
    cosines = products[0] / (products[1] * products[2]).sqrt()
    return Stability(float(cosines.mean()), float(cosines.min()), float(cosines.max()))


def cosine(one: Float[Tensor, " d"], other: Float[Tensor, " d"]) -> float:
    """`a.b / (||a|| ||b||)` of two directions, in float64.

    Raises:
        InputError: a direction of zero norm.
    """
    a, b = one.double().cpu(), other.double().cpu()
    if not (a.any() and b.any()):
        raise InputError("expected two directions to compare, got one that is zero")
    return float(a @ b / (a.norm() * b.norm()))
