"""The truncated change is the nearest one, as numpy's SVD of the dense matrix says."""

import numpy as np
import pytest
import torch

from tiltmeter.updates.delta import Delta, Dense, LowRank
from tiltmeter.updates.truncation import truncated


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


DELTAS: dict[str, Delta] = {
    "factors": LowRank(normal(9, 5), normal(5, 7, seed=1)),
    "factors above the width": LowRank(normal(4, 6), normal(6, 9, seed=1)),
    "tall": Dense(normal(9, 5)),
    "wide": Dense(normal(5, 9)),
}


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("delta", DELTAS.values(), ids=DELTAS.keys())
def test_nearest_of_its_rank(delta: Delta, rank: int) -> None:
    U, sigma, Vh = np.linalg.svd(delta.dense().numpy(), full_matrices=False)
    found, left_out = truncated(delta, rank)
    assert found.rank == rank
    truth = torch.from_numpy((U[:, :rank] * sigma[:rank]) @ Vh[:rank])
    torch.testing.assert_close(found.dense(), truth, rtol=0, atol=1e-12)
    assert left_out == pytest.approx(float((sigma[rank:] ** 2).sum()), rel=1e-12)
    assert left_out == pytest.approx(float((delta.dense() - found.dense()).square().sum()), rel=1e-12)


@pytest.mark.parametrize("rank", [5, 8])
def test_enough_rank_loses_nothing(rank: int) -> None:
    assert truncated(DELTAS["factors"], rank) == (DELTAS["factors"], 0.0)
    found, left_out = truncated(DELTAS["tall"], rank)
    assert left_out == 0.0
    assert found.rank == 5
    torch.testing.assert_close(found.dense(), DELTAS["tall"].dense(), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("dtype", "kept"), [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64, torch.float64)]
)
@pytest.mark.parametrize("delta", DELTAS.values(), ids=DELTAS.keys())
def test_factors_are_at_least_float32(delta: Delta, dtype: torch.dtype, kept: torch.dtype) -> None:
    found, _ = truncated(delta.map(lambda tensor: tensor.to(dtype)), 2)
    assert {tensor.dtype for tensor in found.tensors} == {kept}
