"""Cosines of halves against explicit means."""

import numpy as np
import pytest
import torch
from torch import Tensor

from tiltmeter.activations.separation.stability import cosine, stability
from tiltmeter.errors import InputError


def pairs(prompts: int, width: int, shift: float = 0.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    base, tuned = torch.randn(2, prompts, width, generator=generator, dtype=torch.float64)
    tuned[:, 0] += shift
    return base, tuned


@pytest.mark.parametrize(("prompts", "width"), [(8, 30), (9, 3)])
def test_cosines_are_those_of_the_means_of_halves(prompts: int, width: int) -> None:
    base, tuned = pairs(prompts, width, 1)
    half = prompts // 2
    firsts = np.random.default_rng(4).permuted(np.tile(np.arange(prompts) < half, (6, 1)), axis=1)
    expected = []
    for first in firsts:
        one, other = (tuned[side].mean(0) - base[side].mean(0) for side in (first, ~first))
        expected.append(float(torch.nn.functional.cosine_similarity(one, other, dim=0)))
        assert first.sum() == half
    found = stability(base, tuned, draws=6, seed=4)
    assert found.mean == pytest.approx(np.mean(expected))
    assert (found.lowest, found.highest) == pytest.approx((min(expected), max(expected)))


def test_halves_of_noise_agree_by_chance_only_and_of_a_direction_always() -> None:
    means = [stability(*pairs(40, 500, seed=seed)).mean for seed in range(40)]
    assert np.mean(means) == pytest.approx(0, abs=4 * np.std(means) / 40**0.5)
    assert max(np.abs(means)) < 0.15
    base, _ = pairs(40, 500)
    assert stability(base, base + 1).lowest == pytest.approx(1)


def test_cosine_of_two_directions() -> None:
    a, b = torch.tensor([3.0, 4.0]), torch.tensor([4.0, 3.0])
    assert cosine(a, b) == pytest.approx(24 / 25)
    assert cosine(a, -2 * a) == pytest.approx(-1)
    with pytest.raises(InputError, match="got one that is zero"):
        cosine(a, 0 * a)


def test_a_half_without_a_difference_is_an_error() -> None:
    base, tuned = pairs(6, 3, 1)
    only = base.clone()
    only[2] = tuned[2]
    with pytest.raises(InputError, match="half of the 6 prompts show no difference"):
        stability(base, only)
    with pytest.raises(InputError, match="the adapter did nothing"):
        stability(base, base.clone())
