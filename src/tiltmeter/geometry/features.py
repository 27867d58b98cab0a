"""Is a path through weights a straight line in features too? Block outputs along it, against the mix of its ends'."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tiltmeter.intervals import Interval, ratio_interval
from tiltmeter.models import Model


@contextmanager
def block_outputs(model: Model) -> Iterator[list[Tensor]]:
    """A list that each forward pass fills with the output [B, T, h] of every block, in order."""
    found: list[Tensor] = []
    first = next(iter(model.blocks.values()))
    handles = [first.register_forward_pre_hook(lambda *_: found.clear())]
    handles += [block.register_forward_hook(partial(_keep, found)) for block in model.blocks.values()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _keep(found: list[Tensor], block: nn.Module, inputs: object, output: Tensor | tuple[Any, ...]) -> None:
    found.append(output[0] if isinstance(output, tuple) else output)


@dataclass(frozen=True)
class Linearity:
    """How far the features f at theta(s) are from a straight line, by example and block: sums of squares over tokens.

    Attributes:
        off_mix: `||f - f_mix||^2`, f_mix = (1-s) f_0 + s f_1.
        mix: `||f_mix||^2`.
        gap: `||f_0 - f_1||^2`, of the ends.
        off_start, off_end: `||f - f_0||^2`, `||f - f_1||^2`.
        spread: `||f - mean||^2`, mean over all tokens of the set.
        floor: relative distance below which the ends' features are equal up to rounding.
    """

    off_mix: Float[Tensor, "N L"]
    mix: Float[Tensor, "N L"]
    gap: Float[Tensor, "N L"]
    off_start: Float[Tensor, "N L"]
    off_end: Float[Tensor, "N L"]
    spread: Float[Tensor, "N L"]
    floor: float

    def distance(self, block: int) -> Interval:
        """`nL2 = ||f - f_mix|| / ||f_mix||` (source: subspaces, arXiv 2511.02022)."""
        return _root(_ratio(self.off_mix, self.mix, block))

    def ends_apart(self, block: int) -> Interval:
        """`||f_0 - f_1|| / ||f_mix||`: where it is small, nL2 is small whatever the path does."""
        return _root(_ratio(self.gap, self.mix, block))

    def distance_over_gap(self, block: int) -> Interval | None:
        """`||f - f_mix|| / ||f_0 - f_1||`, nL2's control; None where the ends have the same features up to rounding."""
        if self.ends_apart(block).mean <= self.floor:
            return None
        return _root(_ratio(self.off_mix, self.gap, block))

    def explained(self, block: int) -> Interval | None:
        """`R2 = 1 - ||f - f_mix||^2 / ||f - mean||^2`, the mean held fixed over resamples; None if f does not vary."""
        return self._explained(block, self.off_mix)

    def explained_by_end(self, block: int) -> Interval | None:
        """R2 of a plain copy of the nearer end in the place of f_mix: R2's control."""
        nearer = min(self.off_start, self.off_end, key=lambda off: float(off[:, block].sum()))
        return self._explained(block, nearer)

    def _explained(self, block: int, off: Float[Tensor, "N L"]) -> Interval | None:
        if self.spread[:, block].sum() <= self.floor**2 * self.mix[:, block].sum():
            return None
        left = _ratio(off, self.spread, block)
        return Interval(1 - left.mean, 1 - left.high, 1 - left.low)


class LinearitySums:
    """Adds up a `Linearity` over batches, for N examples and L blocks at one s.

    Args:
        s: the place on the path, 0 to 1.
        shape: (N, L, h).
    """

    def __init__(self, s: float, shape: tuple[int, int, int]) -> None:
        count, blocks, width = shape
        self._s = s
        self._squares = torch.zeros(5, count, blocks, dtype=torch.float64)
        self._norms = torch.zeros(count, blocks, dtype=torch.float64)
        self._sums = torch.zeros(count, blocks, width, dtype=torch.float64)
        self._tokens = torch.zeros(count, dtype=torch.float64)

    def add(
        self,
        rows: Int[Tensor, " T"],
        features: Sequence[Float[Tensor, "T h"]],
        start: Sequence[Float[Tensor, "T h"]],
        end: Sequence[Float[Tensor, "T h"]],
    ) -> None:
        """The features of some tokens in each block, and those of both ends; `rows` are the tokens' examples."""
        self._tokens.index_add_(0, rows, torch.ones(len(rows), dtype=torch.float64))
        for block, given in enumerate(zip(features, start, end, strict=True)):
            f, first, last = (values.double() for values in given)
            mix = (1 - self._s) * first + self._s * last
            for index, values in enumerate((f - mix, mix, first - last, f - first, f - last)):
                self._squares[index, :, block].index_add_(0, rows, values.square().sum(1))
            self._norms[:, block].index_add_(0, rows, f.square().sum(1))
            self._sums[:, block].index_add_(0, rows, f)

    def total(self, dtype: torch.dtype) -> Linearity:
        """The sums; `dtype` is that of the weights, which decides what is rounding."""
        mean = self._sums.sum(0) / self._tokens.sum()
        tokens = self._tokens[:, None]
        spread = self._norms - 2 * (self._sums * mean).sum(-1) + tokens * mean.square().sum(-1)
        off_mix, mix, gap, off_start, off_end = self._squares
        return Linearity(off_mix, mix, gap, off_start, off_end, spread, 16 * torch.finfo(dtype).eps)


def _ratio(above: Float[Tensor, "N L"], below: Float[Tensor, "N L"], block: int) -> Interval:
    return ratio_interval(above[:, block].numpy(), below[:, block].numpy())


def _root(interval: Interval) -> Interval:
    mean, low, high = np.sqrt([interval.mean, interval.low, interval.high]).tolist()
    return Interval(mean, low, high)
