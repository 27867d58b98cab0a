"""Vectors to steer along instead of the direction: what would any change of this size have done?

Every function returns D vectors of unit norm, float64 on the CPU, that depend on its arguments alone; `matched` gives
them the direction's norm. Draws of different kinds are independent under one seed; blocks need seeds of their own.
"""

import hashlib

import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.errors import InputError

_ROUNDING = 1e-12  # relative: what is left of a vector that should be zero in float64


def isotropic(direction: Float[Tensor, " d"], draws: int, seed: int = 0) -> Float[Tensor, "D d"]:
    """Uniform on the sphere: of the direction only its width is used.

    A weak control: activations vary little along most of these vectors.
    """
    return _unit(_gaussian((draws, len(direction)), "isotropic", seed), 1.0, "a random vector")


def orthogonal(direction: Float[Tensor, " d"], draws: int, seed: int = 0) -> Float[Tensor, "D d"]:
    """Uniform on the sphere among the vectors orthogonal to the direction.

    Raises:
        InputError: the direction is zero or not finite, or has no orthogonal vector (d = 1).
    """
    v = _direction(direction)
    z = _gaussian((draws, len(v)), "orthogonal", seed)
    c = z - torch.outer(z @ v, v)
    c -= torch.outer(c @ v, v)  # what rounding left of v
    return _unit(c, 1.0, "a vector orthogonal to the direction")


def anisotropic(activations: Float[Tensor, "N d"], draws: int, seed: int = 0) -> Float[Tensor, "D d"]:
    """Gaussian with the covariance of the activations, then to unit norm: `c = X^T z`, X [N, d] centred, z Gaussian.

    No d x d matrix is formed; c lies in the span of the centred rows.

    Raises:
        InputError: the activations do not vary, or are not finite.
    """
    X = _centred(activations)
    z = _gaussian((draws, len(X)), "anisotropic", seed)
    return _unit(z @ X, _scale(activations), "the spread of the activations")


def permuted_means(
    base: Float[Tensor, "N d"], tuned: Float[Tensor, "M e"], draws: int, seed: int = 0
) -> Float[Tensor, "D d"]:
    """What the difference in means finds where there is no difference: after swaps within a random half of the pairs.

    `c = sum_n s_n (tuned_n - v - base_n)` to unit norm, v the difference in means, s_n = -1 in half of the pairs and
    +1 in the others. Plain swaps leave v times the mean of s in c: where the pairs differ in much the same way that is,
    to unit norm, the direction itself or its opposite, and no control at all.

    Args:
        base, tuned: activations of the two models on the same N prompts.

    Raises:
        InputError: not the same shape, all pairs differ in the same way, or values that are not finite.

    Source: permutation of labels as in the directions study; moved to the null as in the bootstrap of a mean, Efron and
        Tibshirani (1993), chapter 16.
    """
    if base.shape != tuned.shape:
        raise InputError(f"expected base and tuned activations of one shape, got {_shape(base)} and {_shape(tuned)}")
    pairs = tuned.double().cpu() - base.double().cpu()
    z = _gaussian((draws, len(pairs) + 1), "permuted means", seed)
    half = (len(pairs) + (z[:, -1:] > 0).long()) // 2  # of an odd number, either side may be the larger
    s = torch.where(z[:, :-1].argsort(1) < half, -1.0, 1.0).double()
    return _unit(s @ _centred(pairs), _scale(base) + _scale(tuned), "the spread of the pairs' differences")


def sign_flip(direction: Float[Tensor, " d"]) -> Float[Tensor, "1 d"]:
    """`-v / ||v||`.

    Raises:
        InputError: the direction is zero or not finite.
    """
    return -_direction(direction)[None]


def matched(vectors: Float[Tensor, "D d"], norm: float) -> Float[Tensor, "D d"]:
    """Each vector at the given norm, that of the direction: the applied change is then as large.

    For vectors of any origin: drawn here, or another block's, task's or model's direction.

    Raises:
        InputError: a vector is zero or not finite, or the norm is not a positive number.
    """
    if not 0 < norm < float("inf"):
        raise InputError(f"expected a positive norm for control vectors, got {norm:g}")
    return norm * _unit(vectors.double().cpu(), 0.0, "a control vector")


def _direction(direction: Tensor) -> Tensor:
    return _unit(direction.double().cpu()[None], 0.0, "the direction")[0]


def _unit(rows: Tensor, scale: float, what: str) -> Tensor:
    """Rows over their norms, none of which may be zero up to the rounding of numbers of this scale."""
    norms = rows.norm(dim=1)
    if not norms.isfinite().all():
        raise InputError(f"{what} is not finite")
    if not (norms > _ROUNDING * scale).all():
        raise InputError(f"{what} is zero: nothing to steer along")
    unit: Tensor = rows / norms[:, None]
    return unit


def _centred(rows: Tensor) -> Tensor:
    X = rows.double().cpu()
    return X - X.mean(0)


def _scale(rows: Tensor) -> float:
    return float(rows.double().norm())


def _gaussian(shape: tuple[int, int], kind: str, seed: int) -> Tensor:
    if shape[0] < 1:
        raise InputError(f"expected at least one draw of a control, got {shape[0]}")
    digest = hashlib.sha256(f"{seed}:{kind}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))
