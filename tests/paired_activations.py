"""Activations of two invented models on the same prompts."""

import torch
from torch import Tensor


def related(prompts: int, s: int, t: int, seed: int = 0, noise: float = 0.3) -> tuple[Tensor, Tensor]:
    """A source whose directions differ in variance, and a target that is linear in it up to noise; both off centre."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    source = normal(prompts, s) * torch.logspace(0.5, -1, s, dtype=torch.float64)
    target = source @ normal(s, t) / s**0.5 + noise * normal(prompts, t)
    return source @ rotation(s, seed) + 3 * normal(s), target - 2 * normal(t)


def rotation(width: int, seed: int) -> Tensor:
    """A random orthogonal matrix."""
    generator = torch.Generator().manual_seed(1000 + seed)
    Q: Tensor = torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64)).Q
    return Q
