"""Where a Fisher matrix is looked at: all modules together, a block's, or one alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.curvature.fisher import Fisher
from tiltmeter.layers import widths

Scope = Literal["all", "block", "module"]


@dataclass(frozen=True)
class Site:
    """Modules whose gradients are taken as one long vector.

    Attributes:
        name: the module's name; "" for blocks and for all.
        members: indices of the modules.
        size: n, their weights' numbers together.
    """

    scope: Scope
    name: str
    block: int | None
    members: tuple[int, ...]
    size: int


def sites(fisher: Fisher) -> list[Site]:
    """All modules together, then each block, then each module."""
    found = {name: widths(layers[0]) for name, layers in fisher.layers.items()}
    sizes = [o * i for o, i in (found[name] for name in fisher.modules)]

    def site(scope: Scope, name: str, block: int | None, members: Sequence[int]) -> Site:
        return Site(scope, name, block, tuple(members), sum(sizes[m] for m in members))

    blocks = sorted({block for block in fisher.blocks if block is not None})
    return [
        site("all", "", None, range(len(sizes))),
        *(site("block", "", b, [m for m, block in enumerate(fisher.blocks) if block == b]) for b in blocks),
        *(site("module", name, fisher.blocks[m], [m]) for m, name in enumerate(fisher.modules)),
    ]


def pooled(gram: Float[Tensor, "M N N"], places: Sequence[Site]) -> Float[Tensor, "S N N"]:
    """The Gram matrix of each of S sites: inner products of concatenated gradients add up over modules."""
    return torch.stack([gram[list(site.members)].sum(0) for site in places])
