"""Measured output ranks against dense output gradients, and the bound against dense Fisher matrices."""

from functools import partial

import pytest
import torch
from torch import Tensor

import tiny
from tiltmeter.curvature.fisher import Fisher
from tiltmeter.curvature.output_rank import output_ranks
from tiltmeter.layers import weight_of, widths
from truth import example_gradients, float64_throughout


def keep(seen: list[Tensor], _: slice, a: Tensor, delta: Tensor) -> None:
    seen.append(delta.flatten(0, 1))


@pytest.mark.parametrize("memory", [1, 5000, 1 << 30])
def test_energies_are_those_of_all_output_gradients(memory: int) -> None:
    model = tiny.model("llama", torch.float64)
    fisher = Fisher(model, tiny.skill(), batch_size=2, memory=memory)
    seen: dict[str, list[Tensor]] = {name: [] for name in fisher.modules}
    for name in fisher.modules:
        fisher.watch({name: [partial(keep, seen[name])]})
    for found in output_ranks(fisher):
        deltas = torch.cat(seen[found.module])
        o, i = widths(model.linears[found.module])
        expected = torch.zeros(o, dtype=torch.float64)
        values = torch.linalg.svdvals(deltas).square()
        expected[: len(values)] = values[:o]
        torch.testing.assert_close(found.energies, expected, rtol=1e-8, atol=1e-12 * float(values[0]))
        shares = values.cumsum(0) / values.sum()
        assert shares[found.r - 1] >= 0.99
        assert found.r == 1 or shares[found.r - 2] < 0.99
        assert found.bound == found.r * i
    assert [found.module for found in output_ranks(fisher)] == fisher.modules


def test_output_gradients_of_known_rank_bound_the_rank_of_the_fisher() -> None:
    """What follows the module sees two of its outputs only, so that its output gradients have rank two."""
    model = tiny.model("llama", torch.float64)
    name = "model.layers.0.self_attn.v_proj"
    after = weight_of(model.linears["model.layers.0.self_attn.o_proj"])
    with torch.no_grad():
        after[:, [column for column in range(16) if column % 8]] = 0
    with float64_throughout():
        fisher = Fisher(model, tiny.skill(), modules=[name])
        (found,) = output_ranks(fisher)
        G = torch.stack([g[name].flatten() for g in example_gradients(model, fisher.encoded)])
    assert found.r <= 2
    assert int(torch.linalg.matrix_rank(G)) <= found.bound
    assert int((found.energies > 1e-12 * found.energies[0]).sum()) == 2
