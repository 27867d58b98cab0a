"""Paired activations, and their split by prompts: both halves of a pair are always in the same fold."""

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from tiltmeter.errors import InputError

Folds = Int[np.ndarray, " N"]


def assign_folds(prompts: int, folds: int, seed: int = 0) -> Folds:
    """Which fold each prompt is held out in: random, of sizes that differ by one at most."""
    places: NDArray[np.int64] = np.random.default_rng(seed).permutation(prompts)
    return places % folds


def checked_pairs(
    base: Float[Tensor, "N d"], tuned: Float[Tensor, "M e"], folds: int, name: str = "activations"
) -> tuple[Float[Tensor, "N d"], Float[Tensor, "N d"]]:
    """Both sides in float64 on the CPU.

    Raises:
        InputError: other shapes, fewer prompts than folds or than two, a value that is not finite, no difference.
    """
    if base.shape != tuned.shape:
        raise InputError(f"{name}: base is {tuple(base.shape)}, tuned {tuple(tuned.shape)}: expected the same prompts")
    if folds < 2 or len(base) < folds:
        raise InputError(f"{name}: expected 2 folds or more, and a prompt in each; got {folds} and {len(base)} prompts")
    for side, rows in (("base", base), ("tuned", tuned)):
        broken = (~rows.isfinite().all(1)).nonzero()[:, 0].tolist()
        if broken:
            raise InputError(f"{name}: the {side} activations of prompt {broken[0] + 1} are not finite")
    base, tuned = base.detach().double().cpu(), tuned.detach().double().cpu()
    if not (tuned - base).mean(0).any():
        raise InputError(
            f"{name}: the adapter did nothing: base and tuned activations are the same on average over "
            f"all {len(base)} prompts"
        )
    return base, tuned
