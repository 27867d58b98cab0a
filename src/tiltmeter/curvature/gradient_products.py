"""Inner products of each example's gradient with updates, and its norm, in one pass and without storing gradients."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.curvature.coordinates import working_dtype
from tiltmeter.curvature.fisher import Fisher
from tiltmeter.curvature.gradients import gradients, scratch_bytes
from tiltmeter.curvature.sweep import sweep
from tiltmeter.errors import InputError
from tiltmeter.layers import widths
from tiltmeter.updates.update import Update

SCRATCH = 2 << 20  # bytes of gradients formed at a time: few enough to stay in a cache for all that is done with them


@dataclass(frozen=True)
class GradientProducts:
    """Of each example's gradient `g_n` over all modules, in float64.

    Attributes:
        inner: `<g_n, V_k>`.
        norms: `||g_n||`.
    """

    inner: Float[Tensor, "K N"]
    norms: Float[Tensor, " N"]


def gradient_products(fisher: Fisher, updates: Sequence[Update]) -> GradientProducts:
    """`<g_n, V_k>` and `||g_n||` for K updates, in the order of the examples.

    One pass whatever K is: the K updates stay in memory. A norm needs `G_n` itself, so `G_n` is formed by ranges of
    rows, used for norm and inner products, and dropped.

    Raises:
        InputError: an update that has other modules than the Fisher, or other shapes than the model.
    """
    inner = torch.zeros(len(updates), len(fisher), dtype=torch.float64, device=fisher.model.device)
    squares = torch.zeros(len(fisher), dtype=torch.float64, device=fisher.model.device)
    observers = {name: _Module(fisher, name, updates, (inner, squares)) for name in fisher.modules}
    sweep(fisher.model, fisher.batches(), fisher.layers, {n: [o] for n, o in observers.items()}, fisher.weight)
    for observer in observers.values():
        observer.finish()
    return GradientProducts(inner[:, fisher.batch_order].cpu(), squares[fisher.batch_order].sqrt().cpu())


class _Module:
    """Adds what one module contributes to `inner` [K, N] and to the squared norms [N], both in batch order.

    A module that is called several times in a forward pass has one gradient, the sum over its calls: these wait for
    each other, and their tokens count as those of one call.
    """

    def __init__(self, fisher: Fisher, name: str, updates: Sequence[Update], totals: tuple[Tensor, Tensor]) -> None:
        dtype, device = working_dtype(fisher.model.module.dtype), fisher.model.device
        self._matrices = [_matrix(fisher, name, update).to(device, dtype) for update in updates]
        self._inner, self._squares = totals
        self._calls, self._dtype = fisher.calls[name], dtype
        self._waiting: list[tuple[slice, Tensor, Tensor]] = []

    def __call__(self, place: slice, a: Float[Tensor, "B T i"], delta: Float[Tensor, "B T o"]) -> None:
        if self._waiting and self._waiting[0][0] != place:  # a call of that batch had no part in its loss
            self.finish()
        self._waiting.append((place, a, delta))
        if len(self._waiting) == self._calls:
            self.finish()

    def finish(self) -> None:
        """Counts the calls that wait."""
        if self._waiting:
            places, a, delta = zip(*self._waiting, strict=True)
            self._waiting = []
            self._add(places[0], torch.cat(a, dim=1), torch.cat(delta, dim=1))

    def _add(self, place: slice, a: Float[Tensor, "B T i"], delta: Float[Tensor, "B T o"]) -> None:
        o, row = delta.shape[2], len(a) * a.shape[2] * self._dtype.itemsize
        step = max(1, scratch_bytes(SCRATCH, a.device) // row)
        for start in range(0, o, step):
            rows = slice(start, start + step)
            formed = gradients(a, delta[:, :, rows], self._dtype).flatten(1)
            self._squares[place] += torch.linalg.vector_norm(formed, dim=1).double().square()
            for inner, matrix in zip(self._inner, self._matrices, strict=True):
                inner[place] += (formed @ matrix[rows].flatten()).double()


def _matrix(fisher: Fisher, name: str, update: Update) -> Float[Tensor, "o i"]:
    expected = widths(fisher.layers[name][0])
    if name not in update:
        raise InputError(f"module {name} is measured on these examples but missing in the update")
    delta = update[name]
    if delta.shape != expected:
        raise InputError(f"module {name}: the model's weight is {list(expected)}, the update's {delta.shape}")
    return delta.dense()
