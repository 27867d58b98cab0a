"""The range finder against full decompositions, and its error estimate against the error."""

import torch
from torch import Tensor

from tiltmeter.geometry.thin import range_finder, thin
from tiltmeter.updates.delta import Dense, LowRank


def matrix(o: int, i: int, values: Tensor, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    U = torch.linalg.qr(torch.randn(o, len(values), generator=generator, dtype=torch.float64)).Q
    V = torch.linalg.qr(torch.randn(i, len(values), generator=generator, dtype=torch.float64)).Q
    product: Tensor = (U * values) @ V.T
    return product


def test_leading_directions_of_a_decaying_spectrum() -> None:
    values = 0.8 ** torch.arange(200, dtype=torch.float64)
    whole = matrix(700, 600, values)
    found = range_finder(whole, 10, 1e-8)
    U, S, Vh = torch.linalg.svd(whole, full_matrices=False)

    torch.testing.assert_close(torch.linalg.norm(found.left, dim=0)[:10], S[:10], rtol=1e-10, atol=0)
    torch.testing.assert_close((found.right @ Vh[:10].T).abs()[:10], torch.eye(10).double(), atol=1e-7, rtol=0)
    directions = found.left / torch.linalg.norm(found.left, dim=0)
    torch.testing.assert_close((directions.T @ U[:, :10]).abs()[:10], torch.eye(10).double(), atol=1e-7, rtol=0)
    assert found.error <= 1e-8
    assert found.energy is not None
    torch.testing.assert_close(found.energy, float(S.square().sum()), rtol=1e-12, atol=0)


def test_the_error_is_the_residual_of_its_directions() -> None:
    """A flat spectrum: no directions lead, and the tool must not say that it found them."""
    generator = torch.Generator().manual_seed(1)
    whole = torch.randn(600, 550, generator=generator, dtype=torch.float64)
    found = range_finder(whole, 8, 1e-6)
    values = torch.linalg.norm(found.left, dim=0)
    residuals = torch.linalg.norm(whole @ found.right.T - found.left, dim=0) / values

    assert found.error > 1e-6
    torch.testing.assert_close(found.error, float(residuals[:8].max()), rtol=1e-6, atol=0)


def test_more_accuracy_costs_more_and_gives_more() -> None:
    whole = matrix(600, 600, 0.9 ** torch.arange(300, dtype=torch.float64))
    exact = torch.linalg.svdvals(whole)[:5]
    misses = [
        float((torch.linalg.norm(range_finder(whole, 5, accuracy).left, dim=0)[:5] - exact).abs().max())
        for accuracy in (1.0, 1e-2, 1e-5)
    ]

    assert misses[0] > misses[1] > misses[2]
    assert misses[2] < 1e-7


def test_small_and_low_rank_changes_are_exact() -> None:
    small = Dense(matrix(30, 20, torch.tensor([3.0, 2, 1], dtype=torch.float64)))
    factors = LowRank(torch.ones(4, 1), torch.ones(1, 5))

    torch.testing.assert_close(thin(small, 2, 0.1).left @ thin(small, 2, 0.1).right, small.matrix)
    assert thin(small, 2, 0.1).energy is None
    assert not thin(small, 2, 0.1).is_low_rank
    assert thin(factors, 2, 0.1).left is factors.left
    assert thin(factors, 2, 0.1).is_low_rank
