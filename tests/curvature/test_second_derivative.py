"""Second derivatives along an update against autograd on one scalar step, example by example."""

from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

import tiny
from tiltmeter.curvature.fisher import Fisher
from tiltmeter.curvature.second_derivative import second_derivatives
from tiltmeter.layers import is_transposed, weight_of, widths
from tiltmeter.models import Model
from tiltmeter.tokens import Encoded
from tiltmeter.updates.update import Update
from truth import float64_throughout


def along(model: Model, example: Encoded, update: Update, step: Tensor) -> Tensor:
    """`log pi` with all weights moved by `step * V`."""
    moved = {}
    for name in update:
        weight, V = weight_of(model.linears[name]), update[name].dense()
        moved[f"{name}.weight"] = weight + step * (V.T if is_transposed(model.linears[name]) else V)
    ids = torch.tensor([example.ids])
    logits = torch.func.functional_call(model.module, moved, (ids,), {"use_cache": False}).logits
    picked = logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
    total: Tensor = picked[torch.tensor(example.is_completion[1:])].sum()
    return total


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "gpt_neox"])
def test_second_derivatives_equal_autograd(family: str, rank: int | None, reduction: Literal["sum", "mean"]) -> None:
    model = tiny.model(family, torch.float64)
    generator = torch.Generator().manual_seed(5)

    def normal(*shape: int) -> Tensor:
        return 0.1 * torch.randn(*shape, generator=generator, dtype=torch.float64)

    with float64_throughout():
        fisher = Fisher(model, tiny.skill(), batch_size=2, reduction=reduction)
        shapes = {name: widths(model.linears[name]) for name in fisher.modules}
        update = Update.from_tensors(
            {n: normal(o, i) if rank is None else (normal(o, rank), normal(rank, i)) for n, (o, i) in shapes.items()}
        )
        expected = []
        for example in fisher.encoded:
            step = torch.zeros((), dtype=torch.float64, requires_grad=True)
            with sdpa_kernel(SDPBackend.MATH):  # the fused kernel has no second derivative
                (first,) = torch.autograd.grad(along(model, example, update, step), step, create_graph=True)
            (second,) = torch.autograd.grad(first, step)
            expected.append(second / (sum(example.is_completion) if reduction == "mean" else 1))
        truth = torch.stack(expected)
        assert (second_derivatives(fisher, update) - truth).norm() <= 1e-9 * truth.norm()
        assert truth.norm() > 0
