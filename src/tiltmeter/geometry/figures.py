"""Figures of similarity beside the draws of their nulls, and their means over modules and blocks."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from tiltmeter.geometry.similarity import FIGURES

Values = Float[np.ndarray, " F"]
PerNull = Float[np.ndarray, "Q F"]

_COSINE = FIGURES.index("cosine")
_CLOSER = np.array([-1.0 if figure.startswith("angle") else 1.0 for figure in FIGURES])


@dataclass(frozen=True)
class Summary:
    """Figures beside their nulls, in the order of `FIGURES` and `NULLS`; NaN where a null says nothing of a figure.

    Attributes:
        values: the cosine is a mean of signed cosines.
        closed: means of independent frames by closed form (of `|cosine|`).
        means: of the draws (of `|cosine|`).
        p: `(1 + draws at least as similar) / (D + 1)`, one-sided; similar by `|cosine|`.
    """

    values: Values
    closed: Values
    means: PerNull
    p: PerNull


@dataclass(frozen=True)
class Figures:
    """Figures over some modules, beside D draws of each under each null; in the order of `FIGURES` and `NULLS`."""

    values: Values
    closed: Values
    draws: Float[np.ndarray, "Q F D"]

    def summary(self) -> Summary:
        """The draws as means and p-values."""
        sizes = np.abs(self.draws)  # only cosines have a sign
        at_least = (sizes * _CLOSER[:, None] >= (np.abs(self.values) * _CLOSER)[:, None]).sum(-1)
        p = np.where(np.isnan(sizes[..., 0]), np.nan, (1 + at_least) / (1 + sizes.shape[-1]))
        return Summary(self.values, self.closed, sizes.mean(-1, dtype=np.float64), p)

    def ranges(self) -> Float[np.ndarray, "2 Q F"]:
        """The central 95 % of the draws (of `|cosine|`)."""
        found: NDArray[np.float64] = np.quantile(np.abs(self.draws), [0.025, 0.975], axis=-1)
        return found


class Mean:
    """The mean of independent figures, taken in one by one; draws are averaged draw by draw.

    The closed form of `|cosine|` is a standard deviation, and adds like one: the mean of n cosines has
    `sqrt(sum_n closed_n^2) / n`.
    """

    def __init__(self) -> None:
        self._count = 0
        self._values = np.zeros(len(FIGURES))
        self._closed = np.zeros(len(FIGURES))
        self._draws: NDArray[np.float32] = np.zeros((1, 1, 1), np.float32)

    @classmethod
    def of(cls, parts: Iterable[Figures]) -> Figures:
        """The mean of some figures."""
        mean = cls()
        for part in parts:
            mean.add(part)
        return mean.figures

    def add(self, part: Figures) -> None:
        """Takes in one more."""
        self._count += 1
        self._values = self._values + part.values
        self._closed = self._closed + _additive(part.closed, 2.0)
        self._draws = self._draws + part.draws

    @property
    def figures(self) -> Figures:
        """The mean so far."""
        closed = _additive(self._closed, 0.5) / self._count
        return Figures(self._values / self._count, closed, self._draws / np.float32(self._count))


def _additive(closed: Values, power: float) -> Values:
    """With the cosine's closed form squared, or taken back."""
    found = closed.copy()
    found[_COSINE] **= power
    return found
