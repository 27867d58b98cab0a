"""Per-example gradients `G_n = sum_t delta_t a_t^T` of a module, held until those of all examples are there.

Held as they are, or as the inputs `a` and output gradients `delta` that they are formed from, whichever is less.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

ALIGNMENT = 64
SCRATCH = 8 << 20  # bytes of gradients formed at a time: few enough to stay in a cache until they are used
ON_ACCELERATOR = 512 << 20  # there, large products count for more than any cache
_precision = Lock()
_idle: list[Tensor] = []  # the workspace, while nobody uses it


@runtime_checkable
class ExampleGradients(Protocol):
    """Collects the gradients of one module, or of some of its output rows, for all examples."""

    def __call__(self, place: slice, a: Float[Tensor, "B T i"], delta: Float[Tensor, "B T o"]) -> None: ...

    def chunks(self) -> Iterator[tuple[slice, Float[Tensor, "N c"]]]:
        """The gradients by ranges of output rows, `c = rows * i` numbers for each example, in batch order."""
        ...


@dataclass(frozen=True)
class Unit:
    """What is held together or not at all: a module, or some of its output rows; `make` takes memory and scratch."""

    module: str
    nbytes: int
    make: Callable[[UInt8[Tensor, " nbytes"], Float[Tensor, " c"]], ExampleGradients]


@dataclass(frozen=True)
class Seen:
    """What a module shows in a whole pass: its widths, the examples, and their padded tokens in all calls together."""

    o: int
    i: int
    examples: int
    tokens: int


def units(name: str, seen: Seen, kept: torch.dtype, dtype: torch.dtype, memory: int) -> Iterator[Unit]:
    """A module as factors of dtype `kept` where they are fewer bytes than its gradients of `dtype`.

    Gradients that take more than `memory` bytes are split by output rows.
    """
    as_factors = seen.tokens * (seen.o + seen.i) * kept.itemsize
    row = seen.examples * seen.i * dtype.itemsize
    if as_factors <= min(row * seen.o, memory):
        yield Unit(name, _aligned(as_factors), partial(KeptFactors, seen, kept))
        return
    step = max(1, min(seen.o, memory // row))
    for start in range(0, seen.o, step):
        rows = slice(start, min(seen.o, start + step))
        yield Unit(name, _aligned(row * (rows.stop - start)), partial(KeptGradients, rows, seen))


class KeptGradients:
    """Holds `G_n` itself for a range of output rows: N * rows * i numbers."""

    def __init__(self, rows: slice, seen: Seen, memory: UInt8[Tensor, " nbytes"], scratch: Float[Tensor, " c"]) -> None:
        self._rows = rows
        numbers, dtype = seen.examples * (rows.stop - rows.start) * seen.i, scratch.dtype
        self._gradients = memory[: numbers * dtype.itemsize].view(dtype).view(seen.examples, -1, seen.i).zero_()

    def __call__(self, place: slice, a: Float[Tensor, "B T i"], delta: Float[Tensor, "B T o"]) -> None:
        _add_gradients(self._gradients[place], a, delta[:, :, self._rows])

    def chunks(self) -> Iterator[tuple[slice, Float[Tensor, "N c"]]]:
        yield self._rows, self._gradients.flatten(1)


class KeptFactors:
    """Holds copies of `a` and `delta`: N * T * (o + i) numbers, fewer than a wide module's gradients.

    Copies, since tensors of the pass that stayed alive would make every batch touch fresh memory. Forms `G_n` by as
    many rows as `scratch` holds, one at least; all stores share it: use a chunk before the next is asked for.
    """

    def __init__(
        self, seen: Seen, dtype: torch.dtype, memory: UInt8[Tensor, " nbytes"], scratch: Float[Tensor, " c"]
    ) -> None:
        self._seen, self._scratch = seen, scratch
        self._free = memory.view(dtype)
        self._parts: list[tuple[slice, Tensor, Tensor]] = []

    def __call__(self, place: slice, a: Float[Tensor, "B T i"], delta: Float[Tensor, "B T o"]) -> None:
        self._parts.append((place, self._copy(a), self._copy(delta)))

    def _copy(self, x: Float[Tensor, "B T w"]) -> Float[Tensor, "B T w"]:
        copy = self._free[: x.numel()].view(x.shape).copy_(x)
        self._free = self._free[x.numel() :]
        return copy

    def chunks(self) -> Iterator[tuple[slice, Float[Tensor, "N c"]]]:
        o, i, examples = self._seen.o, self._seen.i, self._seen.examples
        step = len(self._scratch) // (examples * i)
        for start in range(0, o, step):
            rows = slice(start, min(o, start + step))
            chunk = self._scratch[: examples * (rows.stop - start) * i].view(examples, -1, i).zero_()
            for place, a, delta in self._parts:
                _add_gradients(chunk[place], a, delta[:, :, rows])
            yield rows, chunk.flatten(1)


@contextmanager
def workspace(nbytes: int, device: torch.device) -> Iterator[UInt8[Tensor, " nbytes"]]:
    """Memory for as long as the context lasts; what it holds is undefined.

    On the CPU it stays with the process for the next caller, as an accelerator's allocator keeps it, since touching
    fresh pages costs a good part of a Gram. numpy asks for huge pages.
    """
    if device.type != "cpu":
        yield torch.empty(nbytes, dtype=torch.uint8, device=device)
        return
    memory = _idle.pop() if _idle else torch.empty(0, dtype=torch.uint8)
    if len(memory) < nbytes:
        memory = torch.from_numpy(np.empty(nbytes, dtype=np.uint8))
    try:
        yield memory[:nbytes]
    finally:
        _idle[:] = [memory]


def scratch_bytes(on_cpu: int, device: torch.device) -> int:
    """Bytes of gradients to form at a time."""
    return on_cpu if device.type == "cpu" else ON_ACCELERATOR


def release_workspace() -> None:
    """Gives the kept workspace back to the system; the next caller touches fresh memory."""
    _idle.clear()


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def gradients(a: Float[Tensor, "B T i"], delta: Float[Tensor, "B T o"], dtype: torch.dtype) -> Float[Tensor, "B o i"]:
    """`G_n = sum_t delta_t a_t^T` of a batch, in `dtype`."""
    with _on_tensor_cores(a):
        return torch.bmm(delta.to(dtype).mT, a.to(dtype))


def exact_on_tensor_cores(x: Tensor) -> bool:
    """Are products of these numbers exact on tensor cores? bfloat16 numbers are TF32 numbers too."""
    return x.dtype == torch.bfloat16 and x.device.type == "cuda"


def _add_gradients(total: Float[Tensor, "B o i"], a: Float[Tensor, "B T i"], delta: Float[Tensor, "B T o"]) -> None:
    with _on_tensor_cores(a):
        total.baddbmm_(delta.to(total.dtype).mT, a.to(total.dtype))


@contextmanager
def _on_tensor_cores(factor: Tensor) -> Iterator[None]:
    """Float32 products of numbers that were bfloat16 lose nothing as TF32, where a GPU is many times as fast.

    The setting is the process's: threads that go backward on several GPUs take turns.
    """
    if not exact_on_tensor_cores(factor):
        yield
        return
    with _precision:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)
