"""The top-d subspace of skills' Fisher information, weight matrix by weight matrix, and what lies outside of it."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.training.guards.kept import Kept

RANK_TOLERANCE = 1e-10  # of an eigenvalue beside the largest: below is rounding


def top_directions(gradients: Float[Tensor, "N p"], dims: int) -> Float[Tensor, "p d"]:
    """Orthonormal eigenvectors of `F = (1/N) sum_n g_n g_n^T` to its `dims` largest eigenvalues.

    Fewer where the gradients span less, by the N x N Gram matrix in float64: `v_j = G^T u_j / sqrt(mu_j)`.
    """
    rows = gradients.double()
    values, vectors = torch.linalg.eigh(rows @ rows.T)
    kept = (values > RANK_TOLERANCE * values[-1].clamp(min=1e-300)) & (values > 0)
    values, vectors = values[kept][-dims:], vectors[:, kept][:, -dims:]
    return _orthonormal(rows.T @ vectors / values.sqrt())


def skill_subspaces(kept: Sequence[Kept], dims: int) -> list[Tensor]:
    """For each parameter that trains, a basis [p, d] of every skill's top `dims` directions at the present weights."""
    found: list[list[Tensor]] = [[] for _ in kept[0].trained.parameters]
    for skill in kept:
        gradients = skill.example_gradients()
        for place, part in enumerate(gradients.split(skill.trained.sizes, dim=1)):
            found[place].append(top_directions(part, dims))
    return [_orthonormal(torch.cat(bases, 1)) for bases in found]


def outside(step: Float[Tensor, " P"], bases: Sequence[Tensor]) -> Float[Tensor, " P"]:
    """`(1 - V V^T) step`, parameter by parameter, each with its basis [p, d]."""
    parts = step.split([len(basis) for basis in bases])
    return torch.cat(
        [part - (basis @ (basis.T @ part.double())).to(part) for part, basis in zip(parts, bases, strict=True)]
    )


def _orthonormal(columns: Float[Tensor, "p d"]) -> Float[Tensor, "p d"]:
    """A basis of their span."""
    left, values, _ = torch.linalg.svd(columns, full_matrices=False)
    return left[:, values > 1e-8 * values.max()] if values.numel() else columns
