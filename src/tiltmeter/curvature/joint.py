"""Inner products between the gradients of two Fishers: one skill at two models, or two texts at one model."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.curvature.fisher import Fisher, each_gradient_of
from tiltmeter.curvature.sites import Site, pooled
from tiltmeter.errors import InputError


@dataclass(frozen=True)
class JointGram:
    """`<g_n, g_m>/N`, `<h_n, h_m>/N` and `<g_n, h_m>/N` of gradients g and h, per module or site (leading axis)."""

    first: Float[Tensor, "S N N"]
    second: Float[Tensor, "S N N"]
    cross: Float[Tensor, "S N N"]

    def at(self, places: Sequence[Site]) -> "JointGram":
        """Per site, from one per module."""
        return JointGram(*(pooled(gram, places) for gram in (self.first, self.second, self.cross)))

    def whole(self, index: int) -> Float[Tensor, "J J"]:
        """`K`, the Gram matrix of all J = 2N gradients at one module or site, over N."""
        A, B, C = self.first[index], self.second[index], self.cross[index]
        return torch.cat([torch.cat([A, C], dim=1), torch.cat([C.T, B], dim=1)])


def joint_gram(first: Fisher, second: Fisher) -> JointGram:
    """The Gram matrices of two Fishers and between them, per module, in float64.

    Exact: `<g_n, h_m> = sum_{s,t} (delta_s . delta'_t)(a_s . a'_t)`. One pass of each for every group of modules, and
    the first's own Gram, which is computed once.

    Raises:
        InputError: other modules, or another number of examples.
    """
    if first.modules != second.modules or len(first) != len(second):
        raise InputError(
            f"expected the same modules and as many examples, got {len(first.modules)} modules, {len(first)} examples "
            f"and {len(second.modules)} modules, {len(second)} examples"
        )
    size = (len(first.modules), len(first), len(first))
    own, cross = (torch.zeros(size, dtype=torch.float64) for _ in range(2))

    def add(name: str, _: slice, chunks: list[Tensor]) -> None:
        g, h = chunks
        m = first.modules.index(name)
        own[m] += (h @ h.T).double().cpu()
        cross[m] += (g @ h.T).double().cpu()

    each_gradient_of([first, second], add)
    i, j = first.batch_order, second.batch_order
    return JointGram(first.gram(), own[:, j][:, :, j] / len(first), cross[:, i][:, :, j] / len(first))


def halves(gram: Float[Tensor, "S N N"], seed: int) -> JointGram:
    """Two random halves of one skill's examples: what another sample of prompts does to the subspace."""
    half = gram.shape[-1] // 2
    order = torch.from_numpy(np.random.default_rng(seed).permutation(gram.shape[-1]))
    a, b = order[:half], order[half : 2 * half]
    scaled = gram * (gram.shape[-1] / half)
    return JointGram(scaled[:, a][:, :, a], scaled[:, b][:, :, b], scaled[:, a][:, :, b])
