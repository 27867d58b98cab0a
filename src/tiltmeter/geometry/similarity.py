"""How much two changes of one module share, from the products of their singular frames.

Source of the plain figures: the study of shared parameter subspaces (arXiv 2511.02022), on effective updates.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Side = Literal["left", "right"]
SIDES: tuple[Side, ...] = ("left", "right")
KINDS = ("component_cosine", "angle", "overlap", "weighted_overlap")
FIGURES = ("cosine", *(f"{kind}_{side}" for kind in KINDS for side in SIDES))


@dataclass(frozen=True)
class Dims:
    """How many leading singular directions enter; fewer where a change has a lower rank.

    Attributes:
        components: of the cosines of principal components.
        angles: of the principal angles.
        subspace: of the overlaps.
    """

    components: int = 20
    angles: int = 20
    subspace: int = 16

    @property
    def most(self) -> int:
        """The largest of them."""
        return max(self.components, self.angles, self.subspace)


def cosine(
    left: Float[Tensor, "... ra rb"],
    right: Float[Tensor, "... ra rb"],
    one: Float[Tensor, "... ra"],
    two: Float[Tensor, "... rb"],
) -> Float[Tensor, "..."]:
    """`<V_a, V_b> / (||V_a|| ||V_b||)`: `sum_ij s_i t_j (U_a^T U_b)_ij (W_a^T W_b)_ij / (||s|| ||t||)`."""
    return _weighted_sum(left * right, one / _norm(one), two / _norm(two))


def subspace_figures(
    products: Float[Tensor, "... ra rb"], one: Float[Tensor, "... ra"], two: Float[Tensor, "... rb"], dims: Dims
) -> Mapping[str, Float[Tensor, "..."]]:
    """The four figures of one side, from the products of singular vectors (descending) and the singular values.

    - component_cosine: mean of `|u_i . v_i|` over the leading `dims.components`.
    - angle: mean principal angle in degrees between the spans of the leading `dims.angles`.
    - overlap: `sum cos^2(angle_i) / k` with k = `dims.subspace`.
    - weighted_overlap: `sum_ij s_i^2 t_j^2 (u_i . v_j)^2 / (||s^2|| ||t^2||)` over the same k: where the energy lies.
    """
    shared = _leading(products, dims.subspace)
    return {
        "component_cosine": _leading(products, dims.components).diagonal(dim1=-2, dim2=-1).abs().mean(-1),
        "angle": mean_angle(_leading(products, dims.angles)),
        "overlap": shared.square().sum((-2, -1)) / shared.shape[-1],
        "weighted_overlap": weighted_overlap(products, one, two, dims.subspace),
    }


def weighted_overlap(
    products: Float[Tensor, "... ra rb"], one: Float[Tensor, "... ra"], two: Float[Tensor, "... rb"], k: int
) -> Float[Tensor, "..."]:
    """`sum_ij s_i^2 t_j^2 (u_i . v_j)^2 / (||s^2|| ||t^2||)` over the k leading directions."""
    shared = _leading(products, k)
    energies = [_energies(values, shared.shape[-1]) for values in (one, two)]
    return _weighted_sum(shared.square(), *energies)


def energy_spread(values: Float[Tensor, "... r"], k: int) -> Float[Tensor, "..."]:
    """`sum s^2 / ||s^2||` of the k leading singular values: the square root of how many of them carry the energy."""
    return _energies(values, k).sum(-1)


def mean_angle(products: Float[Tensor, "... k k"]) -> Float[Tensor, "..."]:
    """Mean principal angle in degrees between two k-dimensional spans, from the products of orthonormal bases.

    From the eigenvalues of the smaller Gram: angles below 1e-7 of a radian in float64 (1e-3 in float32) are rounding.
    """
    squares = torch.linalg.eigvalsh(products @ products.mT).clamp(0.0, 1.0)
    angles: Tensor = torch.rad2deg(torch.arccos(squares.sqrt())).mean(-1)
    return angles


def _leading(products: Float[Tensor, "... ra rb"], k: int) -> Float[Tensor, "... k k"]:
    k = min(k, *products.shape[-2:])
    return products[..., :k, :k]


def _energies(values: Float[Tensor, "... r"], k: int) -> Float[Tensor, "... k"]:
    energies = values[..., :k].square()
    return energies / _norm(energies)


def _norm(values: Float[Tensor, "... r"]) -> Float[Tensor, "... 1"]:
    norm: Tensor = torch.linalg.vector_norm(values, dim=-1, keepdim=True)
    return norm


def _weighted_sum(
    entries: Float[Tensor, "... ra rb"], one: Float[Tensor, "... ra"], two: Float[Tensor, "... rb"]
) -> Float[Tensor, "..."]:
    """`sum_ij one_i entries_ij two_j`."""
    return ((entries @ two[..., None])[..., 0] * one).sum(-1)
