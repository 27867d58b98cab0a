"""The overlap score: how much of an update lies where a skill's Fisher information is."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.curvature.fisher import Fisher
from tiltmeter.errors import InputError
from tiltmeter.updates.update import Update


@dataclass(frozen=True)
class Overlap:
    """`OS = vec(dW)^T F vec(dW) = (1/N) sum_n c_n(dW)^2`, per module and in total.

    The total sums coordinates over modules before it squares: it is the overlap of the whole update with the Fisher of
    all modules together. `block_means` is the study's figure: the mean over a block's modules.
    Source: collapse, section 4; without its random projection.

    Attributes:
        modules, blocks: the M measured modules, and the block index of each.
        coordinates: `c_n(dW)` per module.
        traces: `tr F` per module.
        norms: `||dW||` per module.
        top: the largest eigenvalue of F over all modules together.
    """

    modules: Sequence[str]
    blocks: Sequence[int | None]
    coordinates: Float[Tensor, "M N"]
    traces: Float[Tensor, " M"]
    norms: Float[Tensor, " M"]
    top: float

    @property
    def exact(self) -> float:
        """`(1/N) sum_n (sum_m c_mn)^2`."""
        return float(self.coordinates.sum(0).square().mean())

    @property
    def exact_by_module(self) -> Float[Tensor, " M"]:
        """`(1/N) sum_n c_mn^2`."""
        return self.coordinates.square().mean(1)

    @property
    def normalised(self) -> float:
        """`OS / (||dW||^2 tr F)`, between 0 and 1, free of the update's scale."""
        return self.exact / float(self.norms.square().sum() * self.traces.sum())

    @property
    def normalised_by_module(self) -> Float[Tensor, " M"]:
        """`OS / (||dW||^2 tr F)` per module; 0 where the update leaves the module alone."""
        scale = self.norms.square() * self.traces
        return torch.where(scale > 0, self.exact_by_module / scale.clamp(min=1e-300), 0.0)

    @property
    def normalised_by_top(self) -> float:
        """`OS / (||dW||^2 lambda_1)`: 1 for an update along the first eigenvector."""
        return self.exact / (float(self.norms.square().sum()) * self.top)

    def floor(self, k: int) -> float:
        """`||dW||^2 tr(F) / k`: what a Rademacher projection to k dimensions adds to the score, whatever the update."""
        return float(self.norms.square().sum() * self.traces.sum()) / k

    def floor_by_module(self, k: int) -> Float[Tensor, " M"]:
        """The noise floor per module."""
        return self.norms.square() * self.traces / k

    @property
    def block_means(self) -> dict[int, float]:
        """Mean exact overlap over the modules of each block."""
        exact = self.exact_by_module
        indices = sorted({block for block in self.blocks if block is not None})
        return {b: float(exact[[m for m, block in enumerate(self.blocks) if block == b]].mean()) for b in indices}


def overlap_score(fisher: Fisher, update: Update) -> Overlap:
    """The exact overlap of one update with a skill's Fisher information."""
    return overlap_scores(fisher, [update])[0]


def overlap_scores(fisher: Fisher, updates: Sequence[Update]) -> list[Overlap]:
    """The exact overlap of several updates, measured in one pass.

    Raises:
        InputError: as `Fisher.coordinates`; an update that is zero in every measured module.
    """
    coordinates = fisher.coordinates(updates)
    gram = fisher.gram()
    traces = gram.diagonal(dim1=1, dim2=2).sum(1)
    top = float(torch.linalg.eigvalsh(gram.sum(0))[-1])
    scores = []
    for update, values in zip(updates, coordinates, strict=True):
        norms = torch.tensor([update[name].norm() if name in update else 0.0 for name in fisher.modules]).double()
        if not norms.any():
            raise InputError("the update is zero in every module that the Fisher measures")
        scores.append(Overlap(fisher.modules, fisher.blocks, values, traces, norms, top))
    return scores
