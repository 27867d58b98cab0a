"""Who gives and who takes: means of effects over the other models, and what differs between there and back."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from tiltmeter.bounded_intervals import Bounds, paired_difference
from tiltmeter.runs import results
from tiltmeter.runs.results import interval_record
from tiltmeter.runs.transfer_result import Asymmetry, Role

Values: TypeAlias = Float[np.ndarray, " P"]


@dataclass(frozen=True)
class Sides:
    """The outcome of a route's target by prompt, without steering and with it: lower is what is wanted, NaN unknown."""

    plain: Values
    steered: Values


Table: TypeAlias = Mapping[tuple[str, str, str], Sides]  # by source, target and way


def roles(sides: Table, names: Sequence[str], bounds: Bounds) -> Iterator[Role]:
    """Means over the other models, by prompt: a prompt's outcomes stay together in the interval.

    `donor_i = mean_j T_ij`, `receiver_j = mean_i T_ij`, over prompts with an outcome on both sides of every route.
    """
    for way in _ways(sides):
        for name in names:
            given = [each for (source, _, by), each in sides.items() if (source, by) == (name, way)]
            taken = [each for (_, target, by), each in sides.items() if (target, by) == (name, way)]
            yield Role(model=name, way=way, donor=_mean(given, bounds), receiver=_mean(taken, bounds))


def asymmetries(sides: Table, names: Sequence[str], bounds: Bounds) -> Iterator[Asymmetry]:
    """`T_ij - T_ji`, where it is known.

    It is twice the difference of two means that share the outcome's bounds, `(plain_j + steered_ji) / 2` and
    `(plain_i + steered_ij) / 2`.
    """
    for way in _ways(sides):
        for first, second in combinations(names, 2):
            there, back = sides[first, second, way], sides[second, first, way]
            found = _difference((there.plain + back.steered) / 2, (back.plain + there.steered) / 2, bounds)
            if found is not None:
                ends = results.Interval(mean=2 * found.mean, low=2 * found.low, high=2 * found.high)
                yield Asymmetry(first=first, second=second, way=way, difference=ends)


def _ways(sides: Table) -> list[str]:
    """Those that lead from one model to another."""
    return list(dict.fromkeys(way for source, target, way in sides if source != target))


def _mean(sides: Sequence[Sides], bounds: Bounds) -> results.Interval | None:
    plain = np.mean([each.plain for each in sides], axis=0)
    steered = np.mean([each.steered for each in sides], axis=0)
    return _difference(plain, steered, bounds)


def _difference(one: Values, other: Values, bounds: Bounds) -> results.Interval | None:
    known = ~np.isnan(one) & ~np.isnan(other)
    return interval_record(paired_difference(one[known], other[known], bounds)) if known.any() else None
