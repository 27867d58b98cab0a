"""How well a direction separates base from tuned activations on prompts that it was not found on."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from tiltmeter.activations.separation.folds import Folds, assign_folds, checked_pairs
from tiltmeter.activations.separation.held_out import Projections, correct
from tiltmeter.activations.separation.probes import Probe, difference_in_means
from tiltmeter.activations.separation.swaps import p_value, swap_null
from tiltmeter.errors import InputError
from tiltmeter.intervals import Interval

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Separation:
    """Base against tuned activations, projected onto a unit direction; the threshold is the midpoint of both means.

    Base against tuned on the same prompts separates almost by construction: read it beside a benign fine-tune's.

    Attributes:
        in_sample: balanced accuracy on the prompts that direction and midpoint were found on; near 1 for pure noise
            where the width exceeds the number of prompts, so it proves nothing.
        held_out: cross-fitted balanced accuracy; direction and midpoint are those of the other folds.
        auroc: cross-fitted, within folds.
        d_prime: cross-fitted difference of means over pooled standard deviation, with sign.
    """

    in_sample: float
    held_out: Interval
    auroc: Interval
    d_prime: float


@dataclass(frozen=True, eq=False)
class Separability(Separation):
    """The separation by the difference in means v, with the null of swaps within pairs.

    Attributes:
        norm: `||v||` over all prompts, in units of the activations.
        null: AUROC without swaps, and with each; see `swap_null`.
    """

    norm: float
    null: Float[np.ndarray, " P"] = field(repr=False)

    @property
    def p(self) -> float:
        """Chance of an AUROC as large where base and tuned differ by chance only."""
        return p_value(self.null)


def best_p(found: Sequence[Separability]) -> float:
    """The p-value of the largest AUROC over blocks, against the largest under the same swaps in every block.

    Args:
        found: of the same prompts, with the same permutations and seed.

    Source: maximum statistic, Westfall and Young (1993).
    """
    return p_value(np.max([each.null for each in found], axis=0))


def separability(
    base: Float[Tensor, "N d"],
    tuned: Float[Tensor, "M e"],
    folds: int = 5,
    permutations: int = 499,
    seed: int = 0,
    name: str = "activations",
) -> Separability:
    """How well the difference in means separates two models' activations on the same N prompts, row by row.

    Args:
        folds: of prompts; both activations of a prompt are held out together.
        permutations: swaps within pairs; the smallest possible p is `1 / (1 + permutations)`.
        seed: of folds and swaps.
        name: what an error calls them.

    Raises:
        InputError: other shapes, fewer prompts than folds, a value that is not finite, no difference at all.

    Source: directions, with held-out figures in place of in-sample ones.
    """
    base, tuned = checked_pairs(base, tuned, folds, name)
    fold = assign_folds(len(base), folds, seed)
    found = _separation(base, tuned, difference_in_means, fold, name)
    norm = float(difference_in_means(base, tuned).norm())
    null = swap_null(base, tuned, fold, permutations, seed)
    return Separability(found.in_sample, found.held_out, found.auroc, found.d_prime, norm, null)


def separation(
    base: Float[Tensor, "N d"],
    tuned: Float[Tensor, "M e"],
    probe: Probe,
    folds: int = 5,
    seed: int = 0,
    name: str = "activations",
) -> Separation:
    """How well the direction of any probe separates, on the same folds as `separability`; arguments and errors too."""
    base, tuned = checked_pairs(base, tuned, folds, name)
    return _separation(base, tuned, probe, assign_folds(len(base), folds, seed), name)


def cross_fitted(
    base: Float[Tensor, "N d"], tuned: Float[Tensor, "N d"], probe: Probe, fold: Folds, name: str = "activations"
) -> Projections:
    """Each prompt's two activations on the unit direction that a probe finds on the other folds, less their midpoint.

    Raises:
        InputError: a direction is zero.
    """
    found = Projections(np.empty(len(fold)), np.empty(len(fold)), fold)
    for held_out in np.unique(fold):
        inside = fold == held_out
        test, train = (base[inside], tuned[inside]), (base[~inside], tuned[~inside])
        found.base[inside], found.tuned[inside] = _projected(train, test, probe, f"{name}, without fold {held_out + 1}")
    return found


def _separation(base: Tensor, tuned: Tensor, probe: Probe, fold: Folds, name: str) -> Separation:
    in_sample = correct(*_projected((base, tuned), (base, tuned), probe, name))
    held_out = cross_fitted(base, tuned, probe, fold, name)
    return Separation(float(in_sample.mean()), held_out.accuracy(), held_out.auroc(), held_out.d_prime())


def _projected(train: Pair, test: Pair, probe: Probe, name: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Both sides of the test prompts on the unit direction of the training prompts, less their midpoint."""
    direction = probe(*train)
    if not direction.any():
        raise InputError(f"{name}: the direction is zero: base and tuned activations do not differ")
    unit = direction / direction.norm()
    midpoint = (train[0].mean(0) + train[1].mean(0)) / 2
    base, tuned = ((side - midpoint) @ unit for side in test)
    return base.numpy(), tuned.numpy()
