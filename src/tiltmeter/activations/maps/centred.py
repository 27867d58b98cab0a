"""Activations less their mean, factorised in float64: what every map from one model to another starts from."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.errors import InputError

FEWEST = 3  # two rows and their intercept leave nothing over


@dataclass(frozen=True, eq=False)
class Centred:
    """`X - mean = U S V^T` for activations X [N, w] of N prompts, by one SVD in float64.

    Directions in which X varies by no more than rounding, `s <= eps max(N, w) s_1`, are left out: there are at most
    `r = N - 1` others.

    Attributes:
        mean: over the prompts.
        left: U; its columns are orthonormal, and orthogonal to the constant column.
        values: the singular values, descending, in units of the activations times sqrt(N).
        right: V^T.
    """

    mean: Float[Tensor, " w"]
    left: Float[Tensor, "N r"]
    values: Float[Tensor, " r"]
    right: Float[Tensor, "r w"]

    @property
    def mean_eigenvalue(self) -> float:
        """The mean of the r nonzero eigenvalues `s^2` of `(X - mean)^T (X - mean)`: the unit of a relative penalty."""
        return float(self.values.square().mean())


def centred(activations: Float[Tensor, "N w"], name: str = "activations") -> Centred:
    """Factorises activations.

    Args:
        name: what an error calls them.

    Raises:
        InputError: fewer than three rows, a value that is not finite, rows that are all equal.
    """
    X = usable(activations, name)
    mean = X.mean(0)
    U, s, Vt = torch.linalg.svd(X - mean, full_matrices=False)
    varies = s > s[0] * max(X.shape) * torch.finfo(s.dtype).eps
    return Centred(mean, U[:, varies], s[varies], Vt[varies])


def usable(activations: Float[Tensor, "N w"], name: str) -> Float[Tensor, "N w"]:
    """The activations in float64.

    Raises:
        InputError: fewer than three rows, a value that is not finite, rows that are all equal.
    """
    if len(activations) < FEWEST:
        raise InputError(f"{name}: expected activations of at least {FEWEST} prompts, got {len(activations)}")
    return varying(activations, name)


def varying(activations: Float[Tensor, "N w"], name: str) -> Float[Tensor, "N w"]:
    """The activations in float64, however few.

    Raises:
        InputError: a value that is not finite, rows that are all equal.
    """
    odd = ~activations.isfinite().all(1)
    if odd.any():
        raise InputError(f"{name}: row {int(odd.nonzero()[0])} holds a value that is not finite")
    if (activations == activations[:1]).all():
        raise InputError(f"{name}: expected rows that differ, got {len(activations)} equal ones")
    return activations.detach().double()


def same_prompts(source: Float[Tensor, "N s"], target: Float[Tensor, "n t"]) -> None:
    """Refuses two sides that are not of the same prompts, row by row.

    Raises:
        InputError: different numbers of rows.
    """
    if len(source) != len(target):
        raise InputError(f"source has {len(source)} rows, target {len(target)}: expected one per prompt on both sides")
