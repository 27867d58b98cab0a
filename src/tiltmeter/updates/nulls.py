"""Random updates to compare with: what would an update of this size, or of this spectrum, have done by chance?"""

import hashlib
from functools import partial

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
    return Update({name: partial(_rotated, update, seed, name) for name in update}, "null")


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


def _rotated(update: Update, seed: int, name: str) -> Delta:
    delta, generator = update[name], _generator(seed, name)
    core = delta.core().float().cpu()
    left = haar(delta.shape[0], core.shape[0], generator) @ core
    right = haar(delta.shape[1], core.shape[1], generator).T
    return LowRank(left, right) if isinstance(delta, LowRank) else Dense(left @ right)


def _gaussian(update: Update, seed: int, name: str) -> Delta:
    delta = update[name]
    direction = torch.randn(*delta.shape, generator=_generator(seed, name))
    return Dense(direction * (delta.norm() / float(direction.double().norm())))


def _generator(seed: int, name: str) -> torch.Generator:
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
