"""A change as two thin factors: a low-rank change as it is, a dense one by a randomised range finder."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.updates.delta import Delta, LowRank

OVERSAMPLED = 12
ITERATIONS = 6
SMALL = 128  # up to it, an exact decomposition costs no more


@dataclass(frozen=True)
class Thin:
    """`left @ right`, equal to the change or close to it in its leading directions.

    Attributes:
        energy: squared Frobenius norm of the whole change; None where the factors are exact.
        error: largest `||V v_i - sigma_i u_i|| / sigma_i` over the directions asked for; 0 where the factors are exact.
        is_low_rank: was the change given in factors, whose right one may have a common origin with others?
    """

    left: Float[Tensor, "o r"]
    right: Float[Tensor, "r i"]
    energy: float | None = None
    error: float = 0.0
    is_low_rank: bool = True


def thin(delta: Delta, rank: int, accuracy: float, seed: int = 0) -> Thin:
    """The change in factors, its leading `rank` directions to a relative accuracy.

    Args:
        delta: the change.
        rank: leading directions wanted of a dense change.
        accuracy: residual of a singular pair relative to its singular value at which the iteration stops.
        seed: of the random start.
    """
    if isinstance(delta, LowRank):
        return Thin(delta.left, delta.right)
    matrix = delta.dense()
    if min(matrix.shape) <= max(SMALL, 2 * (rank + OVERSAMPLED)):
        U, values, Vh = torch.linalg.svd(matrix.double(), full_matrices=False)
        return Thin(U * values, Vh, is_low_rank=False)
    return range_finder(matrix, rank, accuracy, seed)


def range_finder(matrix: Float[Tensor, "o i"], rank: int, accuracy: float, seed: int = 0) -> Thin:
    """Leading singular directions by block subspace iteration from a random start, in the matrix's own precision.

    One iteration multiplies by the matrix and by its transpose. It ends when every wanted pair has
    `||V v_i - sigma_i u_i|| <= accuracy * sigma_i`, or after 6 iterations; `error` says where it ended. It bounds the
    distance of each sigma_i to a singular value; directions whose singular values lie closer than that are not told
    apart.

    Source: Halko, Martinsson and Tropp (2011), Finding structure with randomness, algorithm 4.4.
    """
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(matrix.shape[1], rank + OVERSAMPLED, generator=generator).to(matrix)
    product = matrix @ torch.linalg.qr(start).Q
    for _ in range(ITERATIONS):
        basis = torch.linalg.qr(product).Q
        rows, triangle = torch.linalg.qr((basis.T @ matrix).T)
        inner, values, turn = torch.linalg.svd(triangle.T)
        left, right = basis @ inner, turn @ rows.T
        product = matrix @ right.T
        residuals = torch.linalg.vector_norm(product - left * values, dim=0)[:rank]
        error = float((residuals / values[:rank].clamp_min(torch.finfo(values.dtype).tiny)).max())
        if error <= accuracy:
            break
    energy = float(torch.linalg.vector_norm(matrix, dim=1).double().square().sum())
    return Thin(left * values, right, energy, error, is_low_rank=False)
