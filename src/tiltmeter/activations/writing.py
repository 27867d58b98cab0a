"""How much of a direction a weight update writes: which layers write into the residual stream, and what along it."""

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from scipy import stats
from scipy.sparse.linalg import svds
from torch import Tensor

from tiltmeter.activations.capture import capture
from tiltmeter.errors import InputError
from tiltmeter.geometry.frames import NEGLIGIBLE
from tiltmeter.geometry.thin import SMALL
from tiltmeter.layers import widths
from tiltmeter.models import Model
from tiltmeter.tokens import Encoded
from tiltmeter.updates.delta import Delta, LowRank
from tiltmeter.updates.update import Update

COMPONENTS = 8  # leading left singular vectors whose span is compared with the direction
DRAWS = 1000
HIGH = 0.95
COLUMNS = 1024  # of a dense change in float64 at a time


def residual_writers(model: Model) -> dict[str, list[str]]:
    """Block name -> names of the linear layers whose output goes into the residual stream, in the order of their calls.

    Found by structure in one short forward pass: of each child of a block that holds linear layers (attention, MLP),
    and of those that the block holds directly, it is the last one called whose output is as wide as the block's. A
    block with fewer than two has a part without linear layers: fused experts are none. Of experts that are linear
    layers one by one, the last one called stands for its child.
    """
    called: dict[str, None] = {}
    with ExitStack() as stack:
        for name, layer in model.linears.items():
            stack.callback(layer.register_forward_hook(partial(_note, called, name)).remove)
        seen = capture(model, [Encoded([0, 1, 2], [False] * 3)], list(model.blocks))
    width = next(iter(seen.states.values())).shape[1]
    wide = [name for name in called if widths(model.linears[name])[0] == width]
    return {block: _last_of_each_child(block, wide) for block in model.blocks}


@dataclass(frozen=True)
class WrittenShare:
    """How much of a writer's change dW [d, i] lies along a direction v of the residual stream, v^ = v/||v||.

    Attributes:
        share: `||v^T dW||^2 / ||dW||^2`: of the energy of what dW writes, for inputs that are isotropic.
        chance: 1/d, its mean over random orientations of dW's left side.
        chance_high: its 95th percentile over them, from 1,000 draws.
        first_cosine: `|u_1 . v^|`, u_1 the first left singular vector.
        first_cosine_high: its 95th percentile for a random u_1.
        span_cosine: `||U_k^T v^||`, the cosine of v with the span of the first k left singular vectors.
        span_cosine_high: its 95th percentile for a random span.
        components: k; dW's rank where that is lower than what was asked for.
    """

    share: float
    chance: float
    chance_high: float
    first_cosine: float
    first_cosine_high: float
    span_cosine: float
    span_cosine_high: float
    components: int


def written_share(
    update: Update, name: str, direction: Float[Tensor, " d"], components: int = COMPONENTS, seed: int = 0
) -> WrittenShare:
    """The share of module `name`'s change along a direction, beside what random orientations share.

    For `dW = U S R^T` the share is `sum_i s_i^2 (u_i . v^)^2 / sum_i s_i^2`. Chance keeps the spectrum and turns U by a
    Haar-random rotation, which is the same as taking a random v: a sum over a Dirichlet(1/2) weighted by s^2, never
    larger than for a change of rank one. The square of a cosine with k random directions is Beta(k/2, (d-k)/2). A norm
    between the writer and the stream, as some models have, rescales what is written and is not in these figures.

    Args:
        update: the change of the linear layers.
        name: a module of it that writes into the residual stream; see `residual_writers`.
        direction: in the residual stream, of any length above 0.
        components: singular vectors in the span.
        seed: of the draws.

    Raises:
        InputError: a module that the update does not change, another width, a direction of zero norm or not finite.
    """
    if name not in update:
        raise InputError(f"module {name}: the update does not change it")
    delta, d = update[name], len(direction)
    if delta.shape[0] != d:
        raise InputError(f"module {name}: writes {delta.shape[0]} numbers, the direction has {d}")
    energy = delta.norm() ** 2
    if not energy:
        raise InputError(f"module {name}: its change is zero, no direction has a share of it")
    unit = _unit(direction).to(delta.tensors[0].device)
    vectors = torch.randn(DRAWS, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(unit)
    drawn = _energies(delta, vectors) / vectors.square().sum(1) / energy
    cosines = _leading_left(delta, components).T @ unit
    return WrittenShare(
        share=float(_energies(delta, unit[None])) / energy,
        chance=1 / d,
        chance_high=float(drawn.quantile(HIGH)),
        first_cosine=float(cosines[0].abs()),
        first_cosine_high=_chance_cosine(1, d),
        span_cosine=float(cosines.norm()),
        span_cosine_high=_chance_cosine(len(cosines), d),
        components=len(cosines),
    )


def written_shares(
    update: Update, writers: Mapping[str, Sequence[str]], directions: Mapping[str, Float[Tensor, " d"]]
) -> dict[str, dict[str, WrittenShare]]:
    """Block -> writer -> its share along the block's own direction; writers that the update leaves alone are left out.

    Raises:
        InputError: as `written_share`; no writer of these blocks in the update.
    """
    found = {
        block: {name: written_share(update, name, direction) for name in writers[block] if name in update}
        for block, direction in directions.items()
    }
    if not any(found.values()):
        raise InputError("the update changes no layer that writes into the residual stream of these blocks")
    return found


def _note(called: dict[str, None], name: str, *_: object) -> None:
    called.pop(name, None)  # a layer may be called again: its last call counts
    called[name] = None


def _last_of_each_child(block: str, called: Sequence[str]) -> list[str]:
    """The last name below each child of a block; names directly below the block make one group."""
    last: dict[str, str] = {}
    for name in called:
        if name.startswith(f"{block}."):
            child, inner, _ = name.removeprefix(f"{block}.").partition(".")
            last[child if inner else ""] = name
    return [name for name in called if name in last.values()]


def _energies(delta: Delta, vectors: Float[Tensor, "K d"]) -> Float[Tensor, " K"]:
    """`||x^T dW||^2` of each vector, in float64."""
    if isinstance(delta, LowRank):
        triangle = torch.linalg.qr(delta.right.double().T, mode="r").R
        products = [vectors @ delta.left.double() @ triangle.T]
    else:
        products = [vectors @ part.double() for part in delta.dense().split(COLUMNS, dim=1)]
    return torch.stack([product.square().sum(1) for product in products]).sum(0)


def _leading_left(delta: Delta, k: int) -> Float[Tensor, "d k"]:
    """The first k left singular vectors in float64, or as many as the change has beyond rounding."""
    if isinstance(delta, LowRank):
        left, right = torch.linalg.qr(delta.left.double()), torch.linalg.qr(delta.right.double().T, mode="r")
        U, values, _ = torch.linalg.svd(left.R @ right.R.T)
        U, floor = left.Q @ U, NEGLIGIBLE * float(left.R.norm() * right.R.norm())
    else:
        U, values = _dense_svd(delta.dense(), k)
        eps = torch.finfo(torch.promote_types(delta.dense().dtype, torch.float32)).eps
        floor = eps * max(delta.shape) * float(values[0])  # as NumPy's matrix_rank
    vectors: Tensor = U[:, : min(k, int((values > floor).sum()))]
    return vectors


def _dense_svd(matrix: Float[Tensor, "d i"], k: int) -> tuple[Float[Tensor, "d c"], Float[Tensor, " c"]]:
    """At least k left singular vectors and values, descending; by Lanczos iteration where the matrix is large.

    A fixed number of subspace iterations, as in `thin`, does not find the vectors of a flat spectrum.
    """
    if min(matrix.shape) <= max(SMALL, 2 * k):
        U, values, _ = torch.linalg.svd(matrix.double(), full_matrices=False)
        return U, values
    wide = matrix.to(torch.promote_types(matrix.dtype, torch.float32)).cpu().numpy()
    found, values, _ = svds(wide, k, rng=np.random.default_rng(0))
    order = np.argsort(values)[::-1]
    return torch.from_numpy(found[:, order]).double().to(matrix.device), torch.from_numpy(values[order]).double()


def _unit(direction: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
    norm = float(direction.double().norm())
    if not (norm and math.isfinite(norm)):
        raise InputError(f"the direction has norm {norm}: expected a finite one above 0")
    return direction.double() / norm


def _chance_cosine(k: int, d: int) -> float:
    """The 95th percentile of the cosine between a vector and a random k-dimensional span."""
    return math.sqrt(stats.beta.ppf(HIGH, k / 2, (d - k) / 2)) if k < d else 1.0
