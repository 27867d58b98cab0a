"""The best approximation of a change by one of lower rank."""

import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.updates.delta import Delta, LowRank


def truncated(delta: Delta, rank: int) -> tuple[LowRank, float]:
    """`sum_{i <= rank} sigma_i u_i v_i^T`, the nearest matrix of that rank, and the energy left out.

    The energy left out is `sum_{i > rank} sigma_i^2`, the squared Frobenius norm of the error. Singular values and
    vectors are taken in float64, those of factors without the [o, i] matrix; sqrt(sigma_i) goes to each factor. Factors
    of that rank or less are returned as they are.

    Source: Eckart and Young (1936).
    """
    if isinstance(delta, LowRank) and delta.rank <= rank:
        return delta, 0.0
    U, sigma, V = _svd(delta)
    root = sigma[:rank].sqrt()
    dtype = torch.promote_types(delta.tensors[0].dtype, torch.float32)
    nearest = LowRank((U[:, :rank] * root).to(dtype), (V[:, :rank] * root).T.to(dtype))
    return nearest, float(sigma[rank:].square().sum())


def _svd(delta: Delta) -> tuple[Float[Tensor, "o k"], Float[Tensor, " k"], Float[Tensor, "i k"]]:
    if not isinstance(delta, LowRank):
        U, sigma, Vh = torch.linalg.svd(delta.dense().double(), full_matrices=False)
        return U, sigma, Vh.T
    left, right = torch.linalg.qr(delta.left.double()), torch.linalg.qr(delta.right.double().T)
    U, sigma, Vh = torch.linalg.svd(left.R @ right.R.T, full_matrices=False)
    return left.Q @ U, sigma, right.Q @ Vh.T
