"""How far two judges agree, or a judge and people."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from tiltmeter.intervals import RESAMPLES, Interval, percentile_interval


@dataclass(frozen=True)
class Agreement:
    """Two judges on the same answers.

    Attributes:
        kappa: quadratic-weighted kappa over the answers that both scored; None where it is not defined, since neither
            judge ever says anything but one and the same score.
        both, one, neither: answers that both judges scored, only one of them, and none.
    """

    kappa: Interval | None
    both: int
    one: int
    neither: int


def agreement(
    first: Float[np.ndarray, " N"],
    second: Float[np.ndarray, " N"],
    groups: Int[np.ndarray, " N"] | None = None,
    seed: int = 0,
) -> Agreement:
    """Quadratic-weighted kappa, `1 - E(x - y)^2 / E(x - y')^2` with x and y' of different answers, and its interval.

    0 is the agreement of judges that score independently, 1 is equality. The 95 % percentile bootstrap interval is over
    groups; of one group alone it is the whole range.

    Args:
        first, second: scores on any scale, NaN where a judge gave none.
        groups: the number of each answer's prompt; without it every answer stands for itself.
    """
    known = ~np.isnan(first), ~np.isnan(second)
    both = known[0] & known[1]
    groups = np.arange(len(first)) if groups is None else groups
    neither = int((~known[0] & ~known[1]).sum())
    kappa = _kappa_interval(first[both], second[both], groups[both], seed) if both.any() else None
    return Agreement(kappa, int(both.sum()), len(first) - int(both.sum()) - neither, neither)


def _kappa_interval(x: NDArray[Any], y: NDArray[Any], groups: NDArray[Any], seed: int) -> Interval | None:
    sums = _sums(x, y, np.unique(groups, return_inverse=True)[1])
    point = float(_kappa(sums.sum(0)))
    if np.isnan(point):
        return None
    if len(sums) == 1:
        return Interval(point, -1.0, 1.0)
    rng, even = np.random.default_rng(seed), np.full(len(sums), 1 / len(sums))
    drawn = _kappa(rng.multinomial(len(sums), even, RESAMPLES) @ sums)
    return percentile_interval(point, drawn[~np.isnan(drawn)].tolist())


def _sums(x: NDArray[Any], y: NDArray[Any], groups: NDArray[Any]) -> Float[np.ndarray, "G 5"]:
    """Of each group: how many answers, and the sums of x, y, x^2 + y^2 and (x - y)^2."""
    columns = (np.ones_like(x), x, y, x**2 + y**2, (x - y) ** 2)
    return np.stack([np.bincount(groups, column) for column in columns], 1)


def _kappa(sums: Float[np.ndarray, "*R 5"]) -> Float[np.ndarray, "*R"]:
    """NaN where both judges give one and the same score to everything."""
    count, x, y, squares, differences = np.moveaxis(np.asarray(sums, float), -1, 0)
    by_chance = squares - 2 * x * y / count
    with np.errstate(divide="ignore", invalid="ignore"):
        kappa: NDArray[Any] = np.where(by_chance > 1e-9 * squares, 1 - differences / by_chance, np.nan)
    return kappa
