"""Control vectors against dense truths, at unit norm, and from their seed alone."""

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from tiltmeter.activations.specificity.controls import (
    anisotropic,
    isotropic,
    matched,
    orthogonal,
    permuted_means,
    sign_flip,
)
from tiltmeter.errors import InputError

N, WIDTH, MANY = 7, 5, 20000


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


DIRECTION = normal(WIDTH)
BASE = normal(N, WIDTH, seed=1) * torch.arange(1.0, WIDTH + 1, dtype=torch.float64)
TUNED = BASE + 0.5 * normal(N, WIDTH, seed=2) + DIRECTION
KINDS: Mapping[str, Callable[[int, int], Tensor]] = {
    "isotropic": lambda draws, seed: isotropic(DIRECTION, draws, seed),
    "anisotropic": lambda draws, seed: anisotropic(BASE, draws, seed),
    "orthogonal": lambda draws, seed: orthogonal(DIRECTION, draws, seed),
    "permuted means": lambda draws, seed: permuted_means(BASE, TUNED, draws, seed),
}
drawn_kinds = pytest.mark.parametrize("draw", KINDS.values(), ids=KINDS)


def second_moment(vectors: Tensor) -> Tensor:
    return vectors.T @ vectors / len(vectors)


def to_unit(vectors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors)


def same_up_to_chance(found: Tensor, expected: Tensor) -> None:
    """Means of MANY products of entries of unit vectors: six standard errors of at most `1/(2 sqrt(MANY))`."""
    torch.testing.assert_close(found, expected, rtol=0, atol=3 / MANY**0.5)


@drawn_kinds
def test_draws_have_unit_norm_and_depend_on_the_seed_alone(draw: Callable[[int, int], Tensor]) -> None:
    there = draw(9, 3)
    torch.rand(4)
    assert torch.equal(draw(9, 3), there)
    torch.testing.assert_close(there.norm(dim=1), torch.ones(9, dtype=torch.float64), rtol=0, atol=1e-14)
    assert not torch.allclose(draw(9, 4), there)
    assert len(there.unique(dim=0)) > 5  # of seven pairs there are 70 swaps


@drawn_kinds
def test_draws_have_no_side(draw: Callable[[int, int], Tensor]) -> None:
    same_up_to_chance(draw(MANY, 0).mean(0), torch.zeros(WIDTH, dtype=torch.float64))


def test_kinds_of_one_seed_are_independent() -> None:
    one, other = (kind(normal(300), 50, 0) for kind in (isotropic, orthogonal))
    assert (one * other).sum(1).abs().max() < 0.4


def test_isotropic_draws_are_uniform_on_the_sphere() -> None:
    vectors = isotropic(DIRECTION, MANY)
    same_up_to_chance(second_moment(vectors), torch.eye(WIDTH, dtype=torch.float64) / WIDTH)
    along = (vectors @ DIRECTION / DIRECTION.norm()).square().numpy()
    assert stats.kstest(along, stats.beta(0.5, (WIDTH - 1) / 2).cdf).pvalue > 0.01


def test_orthogonal_draws_are_uniform_where_the_direction_is_not() -> None:
    vectors = orthogonal(DIRECTION, MANY)
    assert (vectors @ DIRECTION).abs().max() < 1e-14
    v = DIRECTION / DIRECTION.norm()
    complement = torch.eye(WIDTH, dtype=torch.float64) - torch.outer(v, v)
    same_up_to_chance(second_moment(vectors), complement / (WIDTH - 1))
    nearly = v + 1e-9 * normal(WIDTH)
    assert (orthogonal(1e6 * nearly, 50) @ nearly).abs().max() < 1e-14


def test_anisotropic_draws_are_those_of_the_dense_covariance() -> None:
    covariance = torch.from_numpy(np.cov(BASE.numpy(), rowvar=False))
    dense = torch.from_numpy(np.random.default_rng(0).multivariate_normal(np.zeros(WIDTH), covariance.numpy(), MANY))
    same_up_to_chance(second_moment(anisotropic(BASE, MANY)), second_moment(to_unit(dense)))
    moved = anisotropic(BASE + 100 * DIRECTION, 9)
    torch.testing.assert_close(moved, anisotropic(BASE, 9), rtol=0, atol=1e-11)


def test_anisotropic_draws_lie_where_activations_vary() -> None:
    few = normal(3, 40)
    centred = few - few.mean(0)
    outside = torch.eye(40, dtype=torch.float64) - torch.linalg.pinv(centred) @ centred
    assert (anisotropic(few, 20) @ outside).abs().max() < 1e-13
    assert torch.linalg.matrix_rank(anisotropic(few, 20)) == 2


@pytest.mark.parametrize("pairs", [2, 3, 6, 7])
def test_permuted_means_are_those_of_every_swap_in_half_of_the_pairs(pairs: int) -> None:
    """All of them, each made, of models with one mean, against MANY draws."""
    base, tuned = BASE[:pairs], TUNED[:pairs]
    moved = tuned - (tuned.mean(0) - base.mean(0))
    swaps = torch.cartesian_prod(*[torch.tensor([False, True])] * pairs)
    swaps = swaps[(2 * swaps.sum(1) - pairs).abs() <= 1][:, :, None]
    one, other = torch.where(swaps, base, moved), torch.where(swaps, moved, base)
    every = to_unit(one.mean(1) - other.mean(1))
    drawn = permuted_means(base, tuned, MANY)
    nearest = drawn @ every.T
    torch.testing.assert_close(nearest.max(1).values, torch.ones(MANY, dtype=torch.float64), rtol=0, atol=1e-12)
    counts = torch.bincount(nearest.argmax(1), minlength=len(every)).numpy()
    assert stats.chisquare(counts).pvalue > 0.001


def test_permuted_means_are_not_the_direction_itself() -> None:
    """Where every pair differs in nearly the same way, plain swaps leave the direction or its opposite."""
    base = normal(50, 40)
    tuned = base + normal(40, seed=3) + 0.1 * normal(50, 40, seed=4)
    v = tuned.mean(0) - base.mean(0)
    signs = normal(100, 50, seed=5).sign()
    plain = to_unit(signs @ (tuned - base)) @ (v / v.norm())
    assert plain.abs().median() > 0.95
    assert (permuted_means(base, tuned, 100) @ (v / v.norm())).abs().median() < 0.2


def test_permuted_means_do_not_depend_on_the_shift() -> None:
    torch.testing.assert_close(
        permuted_means(BASE, TUNED + 3 * DIRECTION, 9), permuted_means(BASE, TUNED, 9), rtol=0, atol=1e-12
    )


def test_a_sign_flip_is_the_opposite() -> None:
    torch.testing.assert_close(sign_flip(3 * DIRECTION), -to_unit(DIRECTION[None]))


def test_matched_rows_have_the_norm_and_keep_their_way() -> None:
    vectors = normal(4, WIDTH).float()
    found = matched(vectors, 2.5)
    torch.testing.assert_close(found.norm(dim=1), torch.full((4,), 2.5, dtype=torch.float64))
    torch.testing.assert_close(to_unit(found), to_unit(vectors.double()))


ZERO, NOT_FINITE = torch.zeros(WIDTH), torch.tensor([1.0, torch.nan])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: orthogonal(ZERO, 2), "the direction is zero"),
        (lambda: sign_flip(ZERO), "the direction is zero"),
        (lambda: sign_flip(NOT_FINITE), "the direction is not finite"),
        (lambda: orthogonal(torch.ones(1), 2), "a vector orthogonal to the direction is zero"),
        (lambda: matched(torch.stack([torch.ones(WIDTH), ZERO]), 1.0), "a control vector is zero"),
        (lambda: matched(torch.ones(1, 2), 0.0), "expected a positive norm for control vectors, got 0"),
        (lambda: matched(torch.ones(1, 2), float("nan")), "expected a positive norm for control vectors, got nan"),
        (lambda: anisotropic(BASE[:1], 2), "the spread of the activations is zero"),
        (lambda: anisotropic((DIRECTION / 3).expand(N, WIDTH), 2), "the spread of the activations is zero"),
        (lambda: anisotropic(torch.full((2, 2), torch.inf), 2), "the spread of the activations is not finite"),
        (lambda: permuted_means(BASE, BASE, 2), "the spread of the pairs' differences is zero"),
        (lambda: permuted_means(BASE, BASE + DIRECTION, 2), "the spread of the pairs' differences is zero"),
        (lambda: permuted_means(BASE, TUNED[:, 1:], 2), r"one shape, got \(7, 5\) and \(7, 4\)"),
        (lambda: permuted_means(BASE, TUNED[1:], 2), r"one shape, got \(7, 5\) and \(6, 5\)"),
        (lambda: isotropic(DIRECTION, 0), "at least one draw of a control, got 0"),
    ],
)
def test_what_cannot_be_used_is_refused(call: Callable[[], Tensor], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
