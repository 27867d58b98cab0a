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
    matrices = {
        name: [update[name].dense() if name in update else None for update in updates] for name in fisher.modules
    }

    def project(name: str, rows: slice, gradients: Tensor) -> None:
        module = fisher.modules.index(name)
        by_row = gradients.cpu().unflatten(1, (rows.stop - rows.start, -1))
        for offset, row in enumerate(range(rows.start, rows.stop)):
            lines = [torch.zeros_like(by_row[0, 0]) if m is None else m[row].to(by_row) for m in matrices[name]]
            stacked = torch.cat([by_row[:, offset], torch.stack(lines)])
            sketches[module] += (stacked @ _signs(seed, module, row, by_row.shape[2], k).to(stacked)).double()

    fisher.each_gradient(project)
    sketches /= k**0.5
    total = sketches.sum(0)
    by_module = torch.einsum("mnk,muk->umn", sketches[:, :size], sketches[:, size:])
    return Projected((total[:size] @ total[size:].T).square().mean(0), by_module.square().mean(2), k)


def _signs(seed: int, module: int, row: int, width: int, k: int) -> Float[Tensor, "width k"]:
    packed = np.random.default_rng([seed, module, row]).bytes((width * k + 7) // 8)
    bits = np.unpackbits(np.frombuffer(packed, dtype=np.uint8), count=width * k)
    return torch.from_numpy(bits.reshape(width, k)).float() * 2 - 1
