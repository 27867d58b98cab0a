"""The ridge map: least squares with a penalty, chosen by exact leave-one-out errors, all penalties from one SVD."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.activations.maps.centred import Centred, centred, same_prompts, usable
from tiltmeter.activations.maps.linear_map import LinearMap
from tiltmeter.errors import InputError

RELATIVE_PENALTIES = tuple(np.logspace(-6, 3, 13).tolist())  # of the mean nonzero eigenvalue of X^T X


@dataclass(frozen=True)
class RidgeFit:
    """A ridge map, and what led to its penalty.

    Attributes:
        map: with the penalty of the smallest error.
        penalties: those tried, in units of the eigenvalues of `X^T X`.
        errors: the leave-one-out mean squared error of each, over rows and outputs.
    """

    map: LinearMap
    penalties: tuple[float, ...]
    errors: tuple[float, ...]

    @property
    def penalty(self) -> float:
        """The one chosen."""
        return self.penalties[int(np.argmin(self.errors))]

    @property
    def at_edge(self) -> bool:
        """Is it the smallest or largest tried? The best may lie beyond; at the upper end, little is related."""
        return self.penalty in (min(self.penalties), max(self.penalties))


class RidgeSource:
    """Source activations X [N, s], factorised once for any number of targets.

    `W = Y^T U diag(s_i / (s_i^2 + lambda)) V^T` minimises `||Y - X W^T||^2 + lambda ||W||^2`, with X and Y centred and
    `X = U S V^T`: the intercept is not penalised.

    Raises:
        InputError: fewer than three rows, a value that is not finite, rows that are all equal.
    """

    def __init__(self, source: Float[Tensor, "N s"]) -> None:
        self.factors = centred(source, "source")

    def fit(self, target: Float[Tensor, "n t"], penalties: Sequence[float] | None = None) -> RidgeFit:
        """The map to one target; see `fit_ridge`."""
        X = self.factors
        same_prompts(X.left, target)
        target = usable(target, "target")
        mean = target.mean(0)
        Y = target - mean
        tried = _checked(penalties) if penalties is not None else _default(X)
        errors = leave_one_out(X, Y, tried)
        penalty = tried[int(np.argmin(errors))]
        W = (Y.T @ X.left * (X.values / (X.values.square() + penalty))) @ X.right
        return RidgeFit(LinearMap(W, X.mean, mean, "ridge"), tried, errors)


def fit_ridge(
    source: Float[Tensor, "N s"], target: Float[Tensor, "n t"], penalties: Sequence[float] | None = None
) -> RidgeFit:
    """The ridge map from source to target activations of the same N prompts.

    Source: directions (arXiv 2606.20225); the penalty is chosen as scikit-learn's `RidgeCV` does.

    Args:
        penalties: all above 0. If not given, 13 of them, 1e-6 to 1e3 in equal ratios, times the mean nonzero
            eigenvalue of the centred `X^T X`.

    Raises:
        InputError: different numbers of rows, fewer than three, a value that is not finite, rows that are all equal;
            penalties that are missing, not finite, or not above 0.
    """
    return RidgeSource(source).fit(target, penalties)


def leave_one_out(X: Centred, Y: Float[Tensor, "N t"], penalties: Sequence[float]) -> tuple[float, ...]:
    """Mean squared error of each row under the map fitted to all others, for each penalty, without refitting.

    `e_n = (Y - HY)_n / (1 - H_nn)` with `H = 1 1^T/N + U diag(s^2 / (s^2 + lambda)) U^T`: exact, intercept included.
    With `k = lambda / (s^2 + lambda)`, `I - H = (I - 1 1^T/N - U U^T) + U diag(k) U^T`: nothing cancels where lambda is
    small. Source: Rifkin and Lippert (2007).

    Args:
        Y: centred.
    """
    count, outputs = Y.shape
    if outputs > count:
        Y = torch.linalg.qr(Y.T, mode="r").R.T  # the same row norms in fewer columns: outputs are only rotated
    U, seen = X.left, X.left.T @ Y
    saturated = len(X.values) == count - 1  # U and the constant column span everything: the rest is rounding
    rest = torch.zeros_like(Y) if saturated else Y - U @ seen
    free = torch.zeros_like(Y[:, 0]) if saturated else (1 - 1 / count - U.square().sum(1)).clamp(min=0)
    errors = []
    for penalty in penalties:
        kept = penalty / (X.values.square() + penalty)
        residuals = torch.addmm(rest, U * kept, seen)
        squares = residuals.square().sum(1) / (free + U.square() @ kept).square()
        errors.append(float(squares.sum()) / (count * outputs))
    return tuple(errors)


def _default(X: Centred) -> tuple[float, ...]:
    return tuple(relative * X.mean_eigenvalue for relative in RELATIVE_PENALTIES)


def _checked(penalties: Sequence[float]) -> tuple[float, ...]:
    if not penalties or not all(0 < penalty < float("inf") for penalty in penalties):
        raise InputError(f"penalties: expected one or more, finite and above 0, got {list(penalties)}")
    return tuple(penalties)
