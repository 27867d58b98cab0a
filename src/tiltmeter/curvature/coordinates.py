"""What one linear module contributes to the coordinates of updates.

For inputs `a` [T, i] and output gradients `delta` [T, o] of example n, `G_n = sum_t delta_t a_t^T` [o, i] and the
coordinate of an update V is `c_n(V) = <G_n, V> = sum_t delta_t^T V a_t`.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.curvature.gradients import exact_on_tensor_cores, gradients
from tiltmeter.updates.delta import Delta, LowRank


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """At least float32: sums of half-precision products lose what is to be measured."""
    return torch.promote_types(dtype, torch.float32)


class ModuleCoordinates:
    """Collects `values[k, n] = c_n(V_k)` of one module for K updates (None: the update leaves the module alone).

    Low-rank updates go through their factors side by side, `sum_t (left^T delta_t) . (right a_t)`, as long as that is
    cheaper than one `o x i` product a token; a single dense one through `delta_t^T V`; several through `G_n`, and one
    where tensor cores form it.
    """

    def __init__(self, deltas: Sequence[Delta | None], examples: int, dtype: torch.dtype, device: torch.device) -> None:
        present = [(k, delta.map(lambda x: x.to(device, dtype))) for k, delta in enumerate(deltas) if delta is not None]
        low = [(k, delta) for k, delta in present if isinstance(delta, LowRank)]
        if not _factors_are_cheaper([delta for _, delta in low]):
            low = []
        dense = [(k, delta.dense()) for k, delta in present if k not in {k for k, _ in low}]
        self.values = torch.zeros(len(deltas), examples, dtype=torch.float64, device=device)
        self._low = _side_by_side(low, device) if low else None
        self._dense_ks = [k for k, _ in dense]
        self._dense = torch.stack([matrix for _, matrix in dense]) if dense else None

    @property
    def nbytes(self) -> int:
        """Bytes that the updates take."""
        held = [*(self._low or ()), *(() if self._dense is None else (self._dense,))]
        return sum(tensor.nbytes for tensor in held)

    def __call__(self, place: slice, a: Float[Tensor, "B T i"], delta: Float[Tensor, "B T o"]) -> None:
        if self._low is not None:
            left, right, ks = self._low
            products = torch.einsum("btr,btr->rb", delta.to(left.dtype) @ left, a.to(left.dtype) @ right.T)
            self.values[:, place].index_add_(0, ks, products.double())
        if self._dense is not None:
            products = _dense_products(self._dense, a, delta)
            self.values[self._dense_ks, place] += products.double()


def _factors_are_cheaper(low: Sequence[LowRank]) -> bool:
    if not low:
        return False
    o, i = low[0].shape
    return sum(delta.rank for delta in low) * (o + i) < o * i


def _side_by_side(low: Sequence[tuple[int, LowRank]], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    ks = torch.tensor([k for k, delta in low for _ in range(delta.rank)], device=device)
    return torch.cat([delta.left for _, delta in low], dim=1), torch.cat([delta.right for _, delta in low]), ks


def _dense_products(
    dense: Float[Tensor, "K o i"], a: Float[Tensor, "B T i"], delta: Float[Tensor, "B T o"]
) -> Float[Tensor, "K B"]:
    if len(dense) == 1 and not exact_on_tensor_cores(a):
        return ((delta.to(dense.dtype) @ dense[0]) * a.to(dense.dtype)).sum((1, 2))[None]
    return dense.flatten(1) @ gradients(a, delta, dense.dtype).flatten(1).T
