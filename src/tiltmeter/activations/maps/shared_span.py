"""Several directions at once: what the pairs' differences share, how much of them it holds, and its way to a model.

Spans are orthonormal rows in float64 on the CPU. Ablate one with `steering.ablation(span)`, and a control of the same
size with `steering.ablation(span, onto=control)`.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.activations.maps.linear_map import LinearMap
from tiltmeter.activations.separation.folds import assign_folds, checked_pairs
from tiltmeter.errors import InputError

_ROUNDING = 1e-12  # relative: what is left in float64 of a length that should be zero


@dataclass(frozen=True)
class HeldOutShare:
    """What the rows of a leading span hold of other prompts' differences, the first j of them for each j = 1 to k.

    The share rises with j whatever the rows are: judge a row by what it adds, beside what chance adds.

    Attributes:
        shares: of the first j rows.
        chance: what a random row orthogonal to the first j - 1 adds on average, `(1 - shares_(j-1)) / (d - j + 1)`.
    """

    shares: tuple[float, ...]
    chance: tuple[float, ...]

    @property
    def gains(self) -> tuple[float, ...]:
        """What row j adds to the rows before it."""
        return tuple(np.diff(self.shares, prepend=0.0).tolist())


def leading_span(
    base: Float[Tensor, "N d"], tuned: Float[Tensor, "M e"], k: int, name: str = "activations"
) -> Float[Tensor, "k d"]:
    """The mean difference v, and the k - 1 leading principal directions of the pairs' differences orthogonal to it.

    With `delta_n = tuned_n - base_n` and `u = v / ||v||`, the first row is u, and the others are the leading right
    singular vectors of the rows `delta_n (1 - u u^T)`, whose mean is zero, each with its largest entry above zero. Of
    all spans of k directions that hold v, it has the largest share of `sum_n ||delta_n||^2`. The first j rows are the
    leading span of j.

    Args:
        base, tuned: activations of the two models on the same N prompts, row by row.
        k: how many; no more than the prompts or the width.
        name: what an error calls the activations.

    Raises:
        InputError: other shapes, fewer than two prompts, a value that is not finite, no difference in means, more
            directions than the differences span.
    """
    base, tuned = checked_pairs(base, tuned, 2, name)
    delta = tuned - base
    v = delta.mean(0)
    u = v / v.norm()
    rest = delta - torch.outer(delta @ u, u)  # centred: its mean was v
    _, values, right = torch.linalg.svd(rest, full_matrices=False)
    lengths = torch.cat([len(delta) ** 0.5 * v.norm()[None], values])
    seen = int((lengths > _ROUNDING * (base.norm() + tuned.norm())).long().cumprod(0).sum())
    if not 1 <= k <= seen:
        raise InputError(f"{name}: expected 1 to {seen} directions, which the pairs' differences span, got {k}")
    others = right[: k - 1]
    largest = others.gather(1, others.abs().argmax(1, keepdim=True))
    return torch.cat([u[None], others * largest.sign()])


def carry_span(map: LinearMap, span: Float[Tensor, "k s"]) -> Float[Tensor, "k t"]:
    """W applied to each row, then the nearest orthonormal rows: `A B^T` of `span W^T = A S B^T`.

    The span of the result does not depend on the basis of the given one.

    Raises:
        InputError: another width than the map's; an image of fewer directions, to rounding.
    """
    if span.shape[1] != map.matrix.shape[1]:
        raise InputError(f"span: expected rows of width {map.matrix.shape[1]}, the map's source, got {span.shape[1]}")
    left, values, right = torch.linalg.svd(map.carry(span), full_matrices=False)
    # Against all of W, not the image alone: the image of what W does not see is rounding too.
    kept = int((values > _ROUNDING * map.matrix.norm() * span.norm()).sum())
    if kept < len(span):
        raise InputError(f"the {map.name} map sends {len(span)} directions to a span of {kept}: carry fewer")
    image: Tensor = left @ right
    return image


def random_span(k: int, d: int, draws: int, seed: int = 0) -> Float[Tensor, "D k d"]:
    """Spans of k directions in d dimensions, uniform (Haar) among all such orthonormal rows.

    Source: Mezzadri (2007), QR of Gaussian matrices with the diagonal of R above zero.

    Raises:
        InputError: no draws, or k not from 1 to d.
    """
    if draws < 1 or not 1 <= k <= d:
        raise InputError(f"expected draws of 1 to {d} directions in {d} dimensions, got {draws} draws of {k}")
    gaussian = torch.from_numpy(np.random.default_rng(seed).standard_normal((draws, k, d)))
    Q, R = torch.linalg.qr(gaussian.mT)
    spans: Tensor = (Q * R.diagonal(dim1=1, dim2=2).sign()[:, None]).mT.contiguous()
    return spans


def captured_share(span: Float[Tensor, "k w"], base: Float[Tensor, "N d"], tuned: Float[Tensor, "M e"]) -> float:
    """`sum_n ||Q delta_n||^2 / sum_n ||delta_n||^2`, Q the span: how much of the differences lies in it, 0 to 1.

    A random span holds k/d on average. In sample, a leading span of pure noise holds more.

    Raises:
        InputError: rows that are not orthonormal, or of another width; other shapes, fewer than two prompts, a value
            that is not finite, no difference in means.
    """
    base, tuned = checked_pairs(base, tuned, 2)
    Q, delta = span.double().cpu(), tuned - base
    if Q.shape[1] != delta.shape[1]:
        raise InputError(f"span: expected rows of width {delta.shape[1]}, as the activations, got {Q.shape[1]}")
    if not torch.allclose(Q @ Q.T, torch.eye(len(Q), dtype=Q.dtype), rtol=0, atol=1e-5):  # float32 will do
        raise InputError("span: expected orthonormal rows")
    return float(_energies(Q, delta).sum() / delta.square().sum())


def held_out_share(
    base: Float[Tensor, "N d"], tuned: Float[Tensor, "M e"], k: int, folds: int = 5, seed: int = 0
) -> HeldOutShare:
    """`captured_share` of each fold of prompts by the leading span of the other folds, all folds together.

    Raises:
        InputError: as `leading_span`, for the prompts outside each fold; fewer folds than two, or prompts than folds.
    """
    base, tuned = checked_pairs(base, tuned, folds)
    fold = torch.from_numpy(assign_folds(len(base), folds, seed))
    delta, width = tuned - base, base.shape[1]
    held = []
    for number in range(folds):
        inside = fold == number
        span = leading_span(base[~inside], tuned[~inside], k, f"activations without fold {number + 1}")
        held.append(_energies(span, delta[inside]))
    shares = (torch.stack(held).sum(0).cumsum(0) / delta.square().sum()).tolist()
    before = [0.0, *shares[:-1]]
    return HeldOutShare(tuple(shares), tuple((1 - share) / (width - j) for j, share in enumerate(before)))


def _energies(span: Float[Tensor, "k d"], delta: Float[Tensor, "N d"]) -> Float[Tensor, " k"]:
    """`sum_n (q . delta_n)^2` of each row q."""
    return (delta @ span.T).square().sum(0)
