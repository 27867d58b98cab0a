"""Would labels swapped within random pairs separate as well?"""

import numpy as np
from jaxtyping import Float
from torch import Tensor

from tiltmeter.activations.separation.folds import Folds
from tiltmeter.activations.separation.held_out import placements


def swap_null(
    base: Float[Tensor, "N d"], tuned: Float[Tensor, "N d"], fold: Folds, permutations: int, seed: int = 0
) -> Float[np.ndarray, " P"]:
    """The cross-fitted AUROC of the difference in means, as it is and under random swaps within pairs.

    A swap makes base tuned and tuned base. Folds are kept. The same seed gives the same swaps for every block of a
    model, so that the largest AUROC over blocks has a null of its own.

    Returns:
        P = 1 + permutations values, the first without swaps.

    Source: permutation test of the directions study, made cross-fitted.
    """
    signs = np.random.default_rng((seed, 1)).choice([-1.0, 1.0], size=(permutations + 1, len(fold)))
    signs[0] = 1
    return swapped_auroc(base, tuned, fold, signs)


def p_value(null: Float[np.ndarray, " P"]) -> float:
    """`(1 + #{as large as the first}) / P`: at most any a with probability at most a, where only chance is at work.

    Source: Phipson and Smyth (2010).
    """
    return float((null >= null[0]).mean())


def swapped_auroc(
    base: Float[Tensor, "N d"], tuned: Float[Tensor, "N d"], fold: Folds, signs: Float[np.ndarray, "P N"]
) -> Float[np.ndarray, " P"]:
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
