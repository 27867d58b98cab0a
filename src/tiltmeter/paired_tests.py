"""Is a mean of paired differences more than chance, and how many such questions were asked?"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy import stats

RESAMPLES = 9999


def sign_flip_test(differences: Float[np.ndarray, " P"], seed: int = 0) -> float:
    """Two-sided p-value of the mean under random signs: exact up to 13 differences, else by 9999 draws."""
    if len(differences) < 2 or not differences.any():
        return 1.0  # either sign of one difference is as far from zero
    found = stats.permutation_test(
        (differences,),
        lambda x, axis: np.mean(x, axis=axis),
        permutation_type="samples",
        n_resamples=RESAMPLES,
        batch=1000,
        rng=np.random.default_rng(seed),
    )
    return min(float(found.pvalue), 1.0)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number: the i-th smallest of m times (m - i + 1), never below a smaller one's.

    At a limit of 0.05, the chance of one false finding or more among all is at most 5 %. Source: Holm (1979).
    """
    if not p_values:
        return []
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in adjusted]
