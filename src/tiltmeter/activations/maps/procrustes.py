"""The Procrustes map: a rotation and one scale, so that no direction is favoured over another."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.activations.maps.centred import centred, same_prompts
from tiltmeter.activations.maps.linear_map import LinearMap
from tiltmeter.errors import InputError


@dataclass(frozen=True)
class ProcrustesFit:
    """A scaled orthogonal map.

    Attributes:
        map: `W = scale Q^T`.
        scale: of all lengths.
        rank: how many directions it carries; the others go to zero.
    """

    map: LinearMap
    scale: float
    rank: int


def fit_procrustes(source: Float[Tensor, "N s"], target: Float[Tensor, "n t"]) -> ProcrustesFit:
    """`y = c Q^T x`, Q [s, t] (semi-)orthogonal, with X and Y centred.

    `Q = A B^T` from `X^T Y = A diag(sigma) B^T` maximises `tr(Q^T X^T Y)`, and `c = sum sigma / ||X Q||^2` is the least
    squares scale for it. For s <= t, Q and c together minimise `||c X Q - Y||`. For s > t that problem has no closed
    form, and Q is that of the target padded with zeros to width s.

    Only pairs with sigma above rounding enter: where the prompts are fewer than the widths, at most N - 1 directions
    are seen, and a completed rotation would carry the others at random. Then Q is a partial isometry.

    Source: Schoenemann (1966); scipy's `orthogonal_procrustes` gives the same Q where N exceeds the widths.

    Raises:
        InputError: different numbers of rows, fewer than three, a value that is not finite, rows that are all equal;
            sides without any correlation.
    """
    same_prompts(source, target)
    X, Y = centred(source, "source"), centred(target, "target")
    A, sigma, Bt = torch.linalg.svd(X.values[:, None] * (X.left.T @ Y.left) * Y.values, full_matrices=False)
    rounding = X.values[0] * Y.values[0] * len(X.left) * torch.finfo(sigma.dtype).eps
    rank = int((sigma > rounding).sum())
    if rank == 0:
        raise InputError("source and target do not vary together at all: no rotation is better than another")
    A, Bt = A[:, :rank], Bt[:rank]
    scale = float(sigma[:rank].sum() / (X.values[:, None] * A).square().sum())
    W = scale * (Y.right.T @ Bt.T) @ (A.T @ X.right)
    return ProcrustesFit(LinearMap(W, X.mean, Y.mean, "procrustes"), scale, rank)
