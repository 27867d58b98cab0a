"""Random singular frames without ever drawing them: r x r products of Haar-random ones."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


def haar_products(width: int, ranks: tuple[int, int], draws: int, rng: np.random.Generator) -> Float[Tensor, "D ra rb"]:
    """`U^T V` of independent Haar-random frames U [width, ra] and V [width, rb], draw by draw; float32.

    U may be the first coordinate vectors. V is G T^-1 of a Gaussian G with `G^T G = T^T T`, so that the product is
    X T^-1 with X the first rows of G, and the other rows enter through their Wishart matrix alone (Bartlett).
    """
    ra, rb = ranks
    X = rng.standard_normal((draws, ra, rb))
    gram = X.swapaxes(1, 2) @ X + _wishart(width - ra, rb, draws, rng)
    triangle = torch.linalg.cholesky(torch.from_numpy(gram), upper=True)
    products: Tensor = torch.linalg.solve_triangular(triangle, torch.from_numpy(X), upper=True, left=False)
    return products.float()


def haar_matrices(size: int, draws: int, rng: np.random.Generator) -> Float[Tensor, "D r r"]:
    """Haar-random orthogonal matrices; float32."""
    Q, R = torch.linalg.qr(torch.from_numpy(rng.standard_normal((draws, size, size))))
    signed: Tensor = Q * R.diagonal(dim1=1, dim2=2).sign()[:, None]
    return signed.float()


def _wishart(freedom: int, size: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """`Y^T Y` of Gaussian Y [freedom, size]."""
    if freedom < size:
        Y = rng.standard_normal((draws, max(freedom, 0), size))
        return Y.swapaxes(1, 2) @ Y
    lower = np.tril(rng.standard_normal((draws, size, size)), -1)
    diagonal = np.arange(size)
    lower[:, diagonal, diagonal] = np.sqrt(rng.chisquare(freedom - diagonal, (draws, size)))
    return lower @ lower.swapaxes(1, 2)
