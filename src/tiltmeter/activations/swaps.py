"""Would labels swapped within random pairs separate as well?"""

from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from tiltmeter.activations.folds import Folds
from tiltmeter.activations.held_out import placements


def swap_p_value(
    base: Float[Tensor, "N d"], tuned: Float[Tensor, "N d"], fold: Folds, permutations: int, seed: int = 0
) -> float:
    """`p = (1 + #{AUROC* >= AUROC}) / (1 + P)` over P random swaps of base and tuned within each pair, folds kept.

    AUROC is the cross-fitted one of the difference in means. If nothing but chance tells the two models apart,
    P(p <= a) <= a exactly, for any a.

    Source: permutation test of the directions study, made cross-fitted; the 1 as in Phipson and Smyth (2010).
    """
    signs = np.random.default_rng((seed, 1)).choice([-1.0, 1.0], size=(permutations + 1, len(fold)))
    signs[0] = 1
    found = swapped_auroc(base, tuned, fold, signs)
    return float((found >= found[0]).mean())


def swapped_auroc(
    base: Float[Tensor, "N d"], tuned: Float[Tensor, "N d"], fold: Folds, signs: Float[NDArray[Any], "P N"]
) -> Float[NDArray[Any], " P"]:
    """Cross-fitted AUROC of the difference in means, pairs with sign -1 swapped.

    With `delta = tuned - base` and `mu` the mean of the two, a swap is `delta -> -delta`. A projection is then
    `w.(mu_i - mean mu) +- s_i w.delta_i / 2` with `w = sum_j s_j delta_j` over the training prompts j: products of the
    signs with two N x N matrices of inner products, whatever the width.
    """
    delta, mu = (tuned - base).numpy(), ((tuned + base) / 2).numpy()
    mu = mu - mu.mean(0)
    among, across = delta @ delta.T, delta @ mu.T
    total = np.zeros(len(signs))
    for held_out in np.unique(fold):
        test, train = np.flatnonzero(fold == held_out), np.flatnonzero(fold != held_out)
        middle = signs[:, train] @ across[np.ix_(train, test)]
        half = signs[:, test] * (signs[:, train] @ among[np.ix_(train, test)]) / 2
        total += placements(middle - half, middle + half)[0].sum(1)
    return total / len(fold)
