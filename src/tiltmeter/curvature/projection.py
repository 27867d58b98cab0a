"""The study's way to the overlap: Rademacher projection. Offered for comparison with published figures only.

With `P = R / sqrt(k)`, `R` of random signs, `E[OS_projected] = OS (1 + 1/k) + ||dW||^2 tr(F)/k` up to lower order: the
second term hides the overlap whenever |cos(g_n, dW)| is under about 1/sqrt(k).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.curvature.fisher import Fisher
from tiltmeter.updates.update import Update

SIGNS = 1 << 20  # signs of output rows that are held at a time, or of one row
SIGNS_OF_BYTE = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.float32) * 2 - 1


@dataclass(frozen=True)
class Projected:
    """Overlap scores of K updates after projection to k dimensions, with `P = R / sqrt(k)`.

    Attributes:
        total: the concatenated update through one P, that is one block of P per module.
        by_module: per module.
        k: the dimension.
    """

    total: Float[Tensor, " K"]
    by_module: Float[Tensor, "K M"]
    k: int

    @property
    def unnormalised(self) -> Float[Tensor, " K"]:
        """The total with `P = R`, entries +-1, the usual default of libraries: `k^2` times too large."""
        return self.total * self.k**2


def projected_scores(fisher: Fisher, updates: Sequence[Update], k: int = 4096, seed: int = 0) -> Projected:
    """`(1/N) sum_n <P g_n, P dW>^2` for K updates, with the same P for all of them.

    The signs depend on the seed, the module and the output row only, so neither the memory budget nor the batch size
    changes them. Costs `k` operations for each of the `o * i` numbers of each gradient.
    """
    size = len(fisher)
    sketches = torch.zeros(len(fisher.modules), size + len(updates), k, dtype=torch.float64)

    def project(name: str, rows: slice, gradients: Tensor) -> None:
        module = fisher.modules.index(name)
        width = gradients.shape[1] // (rows.stop - rows.start)
        matrices = [update[name].dense()[rows].flatten() if name in update else None for update in updates]
        lines = [torch.zeros(gradients.shape[1]) if matrix is None else matrix.cpu() for matrix in matrices]
        stacked = torch.cat([gradients.cpu(), torch.stack(lines).to(gradients.dtype)])
        step = max(1, SIGNS // (width * k))
        for first in range(rows.start, rows.stop, step):
            together = range(first, min(first + step, rows.stop))
            signs = torch.cat([_signs(seed, module, row, width, k) for row in together])
            start = (first - rows.start) * width
            part = stacked[:, start : start + len(signs)]
            sketches[module] += (part @ signs.to(part.dtype)).double()

    fisher.each_gradient(project)
    sketches /= k**0.5
    total = sketches.sum(0)
    by_module = torch.einsum("mnk,muk->umn", sketches[:, :size], sketches[:, size:])
    return Projected((total[:size] @ total[size:].T).square().mean(0), by_module.square().mean(2), k)


def _signs(seed: int, module: int, row: int, width: int, k: int) -> Float[Tensor, "width k"]:
    packed = np.random.default_rng([seed, module, row]).bytes((width * k + 7) // 8)
    signs = np.take(SIGNS_OF_BYTE, np.frombuffer(packed, dtype=np.uint8), axis=0).reshape(-1)[: width * k]
    return torch.from_numpy(signs.reshape(width, k))
