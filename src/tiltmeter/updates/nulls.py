"""Random updates to compare with: what would an update of this size, or of this spectrum, have done by chance?"""

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache, partial

import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.updates.delta import Delta, Dense, LowRank
from tiltmeter.updates.update import Update


def same_spectrum(update: Update, seed: int = 0) -> Update:
    """Each module's singular values in Haar-random orientation: `U C V^T`.

    C [k, k] has the singular values of the module's change, U [o, k] and V [i, k] are Haar-random with orthonormal
    columns. A module's result depends on the seed, its name and its change alone. float32, of kind "null".
    """
    return same_spectra([update], [seed])[0]


def same_spectra(updates: Sequence[Update], seeds: Sequence[int]) -> list[Update]:
    """`same_spectrum` of each update for the first seed, then for the next; cheaper than one by one.

    Updates of the same rank share U and V of a seed, and every seed shares what is read of an update. Both are kept for
    one module at a time: ask for all updates of a module before the next module.
    """
    spectrum = lru_cache(len(updates))(lambda index, name: _spectrum(updates[index][name]))
    frames = lru_cache(2)(_frames)
    return [
        Update({name: partial(_rotated, spectrum, frames, index, seed, name) for name in update}, "null")
        for seed in seeds
        for index, update in enumerate(updates)
    ]


def dense_same_norm(update: Update, seed: int = 0) -> Update:
    """Each module's change replaced by a dense Gaussian direction of the same Frobenius norm; float32, kind "null"."""
    return Update({name: partial(_gaussian, update, seed, name) for name in update}, "null")


def haar(rows: int, columns: int, generator: torch.Generator) -> Float[Tensor, "rows columns"]:
    """Orthonormal columns, uniform on the Stiefel manifold: Q of a Gaussian's QR with the signs of R's diagonal.

    Source: Mezzadri (2007), How to generate random matrices from the classical compact groups.
    """
    Q, R = torch.linalg.qr(torch.randn(rows, columns, generator=generator))
    signed: Tensor = Q * torch.where(R.diagonal() < 0, -1.0, 1.0)
    return signed


def _rotated(
    spectrum: Callable[[int, str], tuple[Tensor, tuple[int, int], bool]],
    frames: Callable[[int, str, tuple[int, int], tuple[int, int]], tuple[Tensor, Tensor]],
    index: int,
    seed: int,
    name: str,
) -> Delta:
    core, shape, in_factors = spectrum(index, name)
    U, V = frames(seed, name, shape, (core.shape[0], core.shape[1]))
    return LowRank(U @ core, V.T) if in_factors else Dense(U @ core @ V.T)


def _spectrum(delta: Delta) -> tuple[Float[Tensor, "k l"], tuple[int, int], bool]:
    return delta.core().float().cpu(), delta.shape, isinstance(delta, LowRank)


def _frames(
    seed: int, name: str, shape: tuple[int, int], ranks: tuple[int, int]
) -> tuple[Float[Tensor, "o k"], Float[Tensor, "i l"]]:
    generator = _generator(seed, name)
    return haar(shape[0], ranks[0], generator), haar(shape[1], ranks[1], generator)


def _gaussian(update: Update, seed: int, name: str) -> Delta:
    delta = update[name]
    direction = torch.randn(*delta.shape, generator=_generator(seed, name))
    return Dense(direction * (delta.norm() / float(direction.double().norm())))


def _generator(seed: int, name: str) -> torch.Generator:
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
