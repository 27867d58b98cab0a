"""In how many dimensions the output gradients of a module lie, and what that allows as a rank of its Fisher matrix."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.curvature.coordinates import working_dtype
from tiltmeter.curvature.fisher import Fisher, groups
from tiltmeter.curvature.sweep import Observer
from tiltmeter.layers import widths

ENERGY = 0.99


@dataclass(frozen=True)
class OutputRank:
    """One module's output gradients `delta` [o] over all tokens and examples.

    Attributes:
        r: eigenvalues of `sum delta delta^T` that hold 99 % of its trace together.
        bound: `r i`: the rank of F if the gradients lay in r dimensions; the N gradients themselves allow N.
        energies: those eigenvalues, all o of them, descending.
    """

    module: str
    r: int
    bound: int
    energies: Float[Tensor, " o"]


def output_ranks(fisher: Fisher) -> list[OutputRank]:
    """The measured r and the bound `rank F <= r i` of every module, `i` the input width.

    The bound holds exactly where the rest is 0, and for 99 % of the energy of the output gradients otherwise. One pass
    for as many modules as fit `o^2` numbers each into the Fisher's memory. Source: collapse, theorem A.8.
    """
    return [
        _rank(name, energy, widths(fisher.layers[name][0])[1])
        for group in groups(fisher.modules, lambda name: _nbytes(fisher, name), fisher.memory)
        for name, energy in _energies(fisher, group)
    ]


class _OutputEnergy:
    """Collects `sum delta delta^T`."""

    def __init__(self, width: int, dtype: torch.dtype, device: torch.device) -> None:
        self.total = torch.zeros(width, width, dtype=dtype, device=device)

    def __call__(self, _: slice, a: Float[Tensor, "B T i"], delta: Float[Tensor, "B T o"]) -> None:
        rows = delta.flatten(0, 1).to(self.total.dtype)
        self.total.addmm_(rows.T, rows)


def _energies(fisher: Fisher, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
    dtype = working_dtype(fisher.model.module.dtype)
    held = {name: _OutputEnergy(_width(fisher, name), dtype, fisher.model.device) for name in names}
    watching: dict[str, list[Observer]] = {name: [energy] for name, energy in held.items()}
    fisher.watch(watching)
    return ((name, energy.total) for name, energy in held.items())


def _rank(module: str, energy: Float[Tensor, "o o"], i: int) -> OutputRank:
    energies = torch.linalg.eigvalsh(energy).flip(0).clamp(min=0).double().cpu()
    held = energies.cumsum(0) < ENERGY * energies.sum()
    r = int(held.sum()) + bool(energies.any())
    return OutputRank(module, r, r * i, energies)


def _width(fisher: Fisher, name: str) -> int:
    return widths(fisher.layers[name][0])[0]


def _nbytes(fisher: Fisher, name: str) -> int:
    return _width(fisher, name) ** 2 * working_dtype(fisher.model.module.dtype).itemsize
