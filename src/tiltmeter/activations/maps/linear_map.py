"""A linear map from one model's activations to another's, and how well its kind does on prompts that were held out."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from jaxtyping import Float
from sklearn.model_selection import KFold
from torch import Tensor

from tiltmeter.activations.maps.centred import same_prompts, usable, varying
from tiltmeter.errors import InputError


@dataclass(frozen=True, eq=False)
class LinearMap:
    """`y = W (h - source_mean) + target_mean`, in float64, from width s to width t.

    Attributes:
        matrix: W.
        source_mean: of the source activations that the map was fitted to.
        target_mean: of the target's.
        name: of the kind of map.
    """

    matrix: Float[Tensor, "t s"]
    source_mean: Float[Tensor, " s"]
    target_mean: Float[Tensor, " t"]
    name: str

    def __call__(self, h: Float[Tensor, "... s"]) -> Float[Tensor, "... t"]:
        """Where activations of the source lie in the target's space."""
        return self.carry(h.double() - self.source_mean) + self.target_mean

    def carry(self, vectors: Float[Tensor, "... s"]) -> Float[Tensor, "... t"]:
        """`W v`: a direction is a difference of activations, so the means drop out."""
        return vectors.double() @ self.matrix.T

    @cached_property
    def effective_rank(self) -> float:
        """The participation ratio `(sum s_i^2)^2 / sum s_i^4` of the singular values of W; NaN if W is zero.

        It is 1 for a map onto one line and the rank where all singular values are equal. A map of low effective rank
        sends most vectors to the same few directions. Since `sum s_i^4 = ||W W^T||^2`, no SVD is needed.
        """
        W = self.matrix / self.matrix.norm()
        return 1 / float((W @ W.T if W.shape[0] < W.shape[1] else W.T @ W).square().sum())

    def r2(self, source: Float[Tensor, "N s"], target: Float[Tensor, "n t"]) -> float:
        """`1 - SSE/SST` over all outputs together, SST about the mean of the rows given here.

        About that mean, and not that of the fitted rows, because it is the hardest constant to beat: a map that
        predicts a constant scores 0 at most, whichever constant, and one that learnt noise scores less.

        Raises:
            InputError: different numbers of rows; a target with a value that is not finite, or with equal rows.
        """
        errors, total = _squares(self, source, target)
        return 1 - errors / total


class Fit(Protocol):
    """What fitting any kind of map returns: the map, and what else was found."""

    @property
    def map(self) -> LinearMap:
        """The map."""


@dataclass(frozen=True)
class HeldOut:
    """R^2 on prompts that the map was not fitted to.

    Attributes:
        r2: of all folds, `1 - sum SSE / sum SST`.
        folds: of each fold alone.
    """

    r2: float
    folds: tuple[float, ...]


def cross_validate(
    source: Float[Tensor, "N s"],
    target: Float[Tensor, "n t"],
    fit: Callable[[Tensor, Tensor], Fit],
    folds: int = 5,
    seed: int = 0,
) -> HeldOut:
    """R^2 on held-out prompts: the rows are split at random, each fold is predicted by a map fitted to the others.

    All that `fit` chooses, a penalty too, it chooses inside the rows of the other folds. SST is taken about the mean
    of each fold (see `LinearMap.r2`). Rows of one prompt in different wordings are not independent: give one of them.

    Raises:
        InputError: what `fit` raises; fewer than two folds, or fewer than two rows in a fold.
    """
    same_prompts(source, target)
    source, target = usable(source, "source"), usable(target, "target")
    if not 2 <= folds <= len(source) / 2:
        raise InputError(f"folds: expected 2 or more, with two or more of the {len(source)} rows in each, got {folds}")
    split = KFold(folds, shuffle=True, random_state=seed).split(range(len(source)))
    found = [
        _squares(fit(source[train], target[train]).map, source[test], target[test])
        for train, test in (map(torch.from_numpy, fold) for fold in split)
    ]
    errors, totals = torch.tensor(found, dtype=torch.float64).T
    return HeldOut(1 - float(errors.sum() / totals.sum()), tuple((1 - errors / totals).tolist()))


def _squares(fitted: LinearMap, source: Float[Tensor, "N s"], target: Float[Tensor, "n t"]) -> tuple[float, float]:
    """SSE, and SST about the mean of these rows."""
    same_prompts(source, target)
    y = varying(target, "target")
    return float((y - fitted(source)).square().sum()), float((y - y.mean(0)).square().sum())
