"""Sums of gradients against per-example gradients by autograd."""

import pytest
import torch

import tiny
from tiltmeter.curvature.fisher import Fisher
from tiltmeter.curvature.mean_gradient import mean_gradient, weighted_gradient
from truth import example_gradients, float64_throughout


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("family", list(tiny.CONFIGS))
def test_sums_equal_those_of_dense_gradients(family: str, reduction: str) -> None:
    model = tiny.model(family, torch.float64)
    weights = torch.tensor([0.5, -1.0, 0.0, 2.0, 0.25], dtype=torch.float64)
    with float64_throughout():
        fisher = Fisher(model, tiny.skill(), reduction="mean" if reduction == "mean" else "sum", batch_size=2)
        gradients = example_gradients(model, fisher.encoded, mean=reduction == "mean")
        mean, weighted = mean_gradient(fisher), weighted_gradient(fisher, weights)
    assert list(mean) == list(weighted) == fisher.modules
    for name in fisher.modules:
        stacked = torch.stack([g[name] for g in gradients])
        torch.testing.assert_close(mean[name].dense(), stacked.mean(0), rtol=1e-9, atol=1e-12)
        expected = (weights[:, None, None] * stacked).sum(0)
        torch.testing.assert_close(weighted[name].dense(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("batch_size", [1, 3, 5])
def test_the_mean_does_not_depend_on_batch_size_or_padding_side(batch_size: int, padding_side: str) -> None:
    with float64_throughout():
        alone = mean_gradient(Fisher(tiny.model("gemma2", torch.float64), tiny.skill(), batch_size=1))
        model = tiny.model("gemma2", torch.float64, padding_side)
        batched = mean_gradient(Fisher(model, tiny.skill(), batch_size=batch_size))
    assert (alone - batched).norm() < 1e-10 * alone.norm()
