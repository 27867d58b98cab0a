"""The self-check tells bfloat16 from float32."""

import torch

import tiny
from tiltmeter.curvature.fisher import Fisher
from tiltmeter.curvature.precision import batch_dependence
from tiltmeter.layers import widths
from tiltmeter.updates.update import Update


def dependence(dtype: torch.dtype) -> float:
    model = tiny.model("llama", dtype)
    fisher = Fisher(model, tiny.skill())
    torch.manual_seed(0)
    update = Update.from_tensors({name: torch.randn(widths(model.linears[name])) for name in fisher.modules})
    return batch_dependence(fisher, update)


def test_float32_does_not_depend_on_the_batch_and_bfloat16_does() -> None:
    assert dependence(torch.float32) < 1e-4
    assert 1e-3 < dependence(torch.bfloat16) < 2
