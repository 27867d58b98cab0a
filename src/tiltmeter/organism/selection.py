"""Selects the harmless instructions whose gradients are most like those of a harmful set (He et al., see collapse).

score(z) = g_z . (mean of harmful - mean of safe): gradients of summed completion log-likelihoods, scaled to norm 1.
"""

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from tiltmeter.models import Model
from tiltmeter.tokens import Encoded

T = TypeVar("T")


def select(examples: Sequence[T], scores: Tensor, count: int) -> list[T]:
    """The `count` examples of the highest scores, highest first."""
    order = torch.argsort(scores, descending=True, stable=True)[:count]
    return [examples[index] for index in order.tolist()]


def matching_scores(
    model: Model, pool: Sequence[Encoded], harmful: Sequence[Encoded], safe: Sequence[Encoded]
) -> Tensor:
    """How well the gradient of each example of the pool matches harmful rather than safe data [N], in -2..2."""
    contrast = _unit_gradients(model, harmful).mean(0) - _unit_gradients(model, safe).mean(0)
    return _unit_gradients(model, pool) @ contrast


def _unit_gradients(model: Model, examples: Sequence[Encoded]) -> Tensor:
    return torch.stack([torch.nn.functional.normalize(_gradient(model, example), dim=0) for example in examples])


def _gradient(model: Model, example: Encoded) -> Tensor:
    weights = [layer.get_parameter("weight") for name, layer in model.linears.items() if _is_inside(name, model)]
    ids = torch.tensor([example.ids], device=model.device)
    logits = model.module(input_ids=ids, use_cache=False).logits[0, :-1].float()
    chosen = logits.log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
    written = torch.tensor(example.is_completion[1:], device=model.device)
    gradients = torch.autograd.grad(chosen[written].sum(), weights)
    return torch.cat([gradient.flatten() for gradient in gradients])


def _is_inside(name: str, model: Model) -> bool:
    return any(name.startswith(f"{block}.") for block in model.blocks)
