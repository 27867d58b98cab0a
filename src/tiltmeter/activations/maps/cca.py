"""The canonical correlation map: through the few directions that two models share most closely, and no others."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.activations.maps.centred import centred, same_prompts
from tiltmeter.activations.maps.linear_map import LinearMap
from tiltmeter.activations.maps.ridge import RidgeSource
from tiltmeter.errors import InputError


@dataclass(frozen=True, eq=False)
class CanonicalFit:
    """A map through the k leading canonical pairs.

    Attributes:
        map: of rank k.
        correlations: of these pairs on the fitted rows, descending; a penalty shrinks them.
        penalty: relative to the mean nonzero eigenvalue of each side.
    """

    map: LinearMap
    correlations: Float[Tensor, " k"]
    penalty: float


def fit_cca(
    source: Float[Tensor, "N s"], target: Float[Tensor, "n t"], components: int, penalty: float | None = None
) -> CanonicalFit:
    """Whitens both sides, keeps k pairs of the singular value decomposition between them, and unwhitens the target.

    With X and Y centred, `C_x = X^T X + p_x I` and `C_y = Y^T Y + p_y I`:
    `C_x^-1/2 X^T Y C_y^-1/2 = A diag(rho) B^T` and `W = C_y^1/2 B_k diag(rho_k) A_k^T C_x^-1/2`. All pairs together
    give the ridge map of penalty `p_x`; k of them give its best approximation of rank k where both sides are whitened.
    Source: Hotelling (1936); with penalties, Vinod (1976).

    Args:
        components: k.
        penalty: `p_x` and `p_y` relative to the mean nonzero eigenvalue of `X^T X` and `Y^T Y`. If not given, the one
            that leave-one-out chooses for the ridge map. Where the prompts are no more than the larger width, all
            correlations tend to 1 as it goes to 0, and which pairs lead means nothing.

    Raises:
        InputError: different numbers of rows, fewer than three, a value that is not finite, rows that are all equal;
            more components than directions in which both sides vary; a negative penalty.
    """
    same_prompts(source, target)
    ridge = RidgeSource(source)
    X, Y = ridge.factors, centred(target, "target")
    most = min(len(X.values), len(Y.values))
    if not 1 <= components <= most:
        raise InputError(f"components: expected 1 to {most}, in which both sides vary, got {components}")
    if penalty is None:
        penalty = ridge.fit(target).penalty / X.mean_eigenvalue
    if not 0 <= penalty < float("inf"):
        raise InputError(f"penalty: expected a finite number of 0 or more, got {penalty}")
    x, y = ((side.values.square() + penalty * side.mean_eigenvalue).sqrt() for side in (X, Y))
    A, rho, Bt = torch.linalg.svd((X.values / x)[:, None] * (X.left.T @ Y.left) * (Y.values / y), full_matrices=False)
    A, rho, Bt = A[:, :components], rho[:components], Bt[:components]
    W = (Y.right.T @ (y[:, None] * Bt.T * rho)) @ ((A / x[:, None]).T @ X.right)
    return CanonicalFit(LinearMap(W, X.mean, Y.mean, "cca"), rho, penalty)
