"""A map is affine for activations and linear for directions; what cannot be predicted scores nothing, for any kind."""

from functools import partial

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold
from torch import Tensor

from paired_activations import related, rotation
from tiltmeter.activations.maps.cca import fit_cca
from tiltmeter.activations.maps.linear_map import Fit, LinearMap, cross_validate
from tiltmeter.activations.maps.procrustes import fit_procrustes
from tiltmeter.activations.maps.ridge import fit_ridge
from tiltmeter.errors import InputError

KINDS = {"ridge": fit_ridge, "procrustes": fit_procrustes, "cca": partial(fit_cca, components=4)}
SHAPES = {"more prompts than widths": (60, 12, 9), "fewer": (24, 40, 30), "wider target": (24, 10, 50)}
every_kind = pytest.mark.parametrize("fit", KINDS.values(), ids=KINDS)
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def a_map(matrix: Tensor) -> LinearMap:
    t, s = matrix.shape
    return LinearMap(matrix, torch.arange(s).double(), -torch.arange(t).double(), "given")


def close(a: Tensor, b: Tensor, tolerance: float = 1e-9) -> bool:
    return bool((a - b).norm() <= tolerance * b.norm())


def test_activations_are_mapped_with_their_means_and_directions_without() -> None:
    tuned, base = torch.randn(2, 7, 3, 5, dtype=torch.float64)
    given = a_map(torch.randn(4, 5, dtype=torch.float64))
    assert close(given(tuned)[6, 2], given.matrix @ (tuned[6, 2] - given.source_mean) + given.target_mean, 1e-12)
    assert close(given.carry(tuned) - given.carry(base), given(tuned) - given(base), 1e-12)
    assert close(given.carry(tuned - base), given(tuned) - given(base), 1e-12)


@pytest.mark.parametrize("shape", [(6, 20), (20, 6)])
def test_effective_rank_is_the_participation_ratio_of_singular_values(shape: tuple[int, int]) -> None:
    W = torch.randn(shape, dtype=torch.float64)
    energy = np.linalg.svd(W.numpy(), compute_uv=False) ** 2
    assert a_map(W).effective_rank == pytest.approx(energy.sum() ** 2 / (energy**2).sum(), rel=1e-12)
    assert a_map(1e-100 * W).effective_rank == pytest.approx(a_map(W).effective_rank, rel=1e-12)
    assert a_map(W[:, :1] @ W[:1]).effective_rank == pytest.approx(1, rel=1e-12)
    assert a_map(7 * torch.eye(*shape, dtype=torch.float64)).effective_rank == pytest.approx(6, rel=1e-12)


def test_r2_is_that_of_scikit_learn_and_no_constant_beats_zero() -> None:
    source, target = related(30, 5, 4)
    given = fit_ridge(source[:20], target[:20]).map
    expected = r2_score(target[20:], given(source[20:]), multioutput="variance_weighted")
    assert given.r2(source[20:], target[20:]) == pytest.approx(expected, rel=1e-12)
    constant = LinearMap(torch.zeros(4, 5).double(), source.mean(0), target[:20].mean(0), "constant")
    assert constant.r2(source[20:], target[20:]) < 0
    with pytest.raises(InputError, match="target: expected rows that differ, got 1 equal"):
        given.r2(source[:1], target[:1])
    with pytest.raises(InputError, match="source has 2 rows, target 3"):
        given.r2(source[:2], target[:3])


def test_cross_validation_is_that_of_scikit_learn_for_a_given_penalty() -> None:
    source, target = related(33, 20, 7)
    found = cross_validate(source, target, partial(fit_ridge, penalties=[3.0]), folds=4, seed=5)
    predicted, folds = np.empty(target.shape), []
    errors = totals = 0.0
    for train, test in KFold(4, shuffle=True, random_state=5).split(source):
        predicted[test] = Ridge(alpha=3.0).fit(source[train], target[train]).predict(source[test])
        folds.append(r2_score(target[test], predicted[test], multioutput="variance_weighted"))
        totals += float(((target[test] - target[test].mean(0)) ** 2).sum())
    errors = float(((target.numpy() - predicted) ** 2).sum())
    assert found.folds == pytest.approx(folds, abs=1e-9)
    assert found.r2 == pytest.approx(1 - errors / totals, abs=1e-9)


def test_each_prompt_is_held_out_once_and_its_fold_is_not_seen() -> None:
    source, target = related(23, 4, 3)
    fitted: list[Tensor] = []

    def spy(x: Tensor, y: Tensor) -> Fit:
        fitted.append((source[:, None] == x[None]).all(-1).any(1))
        return fit_ridge(x, y)

    cross_validate(source, target, spy)
    assert torch.equal((~torch.stack(fitted)).sum(0), torch.ones(23, dtype=torch.long))
    assert sorted(seen.sum().item() for seen in fitted) == [18, 18, 18, 19, 19]


def test_cross_validation_needs_two_prompts_per_fold() -> None:
    source, target = related(7, 4, 3)
    for folds in (1, 4):
        with pytest.raises(InputError, match=f"two or more of the 7 rows in each, got {folds}"):
            cross_validate(source, target, fit_ridge, folds)


@every_kind
@pytest.mark.parametrize("shape", [(60, 12, 9), (24, 40, 30)])
def test_shuffled_pairs_and_noise_score_nothing_held_out(fit: partial[Fit], shape: tuple[int, int, int]) -> None:
    for seed in range(20):
        source, target = related(*shape, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        shuffled = target[torch.randperm(len(target), generator=generator)]
        noise = torch.randn(target.shape, generator=generator, dtype=torch.float64)
        assert cross_validate(source, shuffled, fit, seed=seed).r2 <= 0
        assert cross_validate(source, noise, fit, seed=seed).r2 <= 0


@every_kind
@every_shape
def test_true_pairs_score_held_out(fit: partial[Fit], shape: tuple[int, int, int]) -> None:
    for seed in range(3):
        assert cross_validate(*related(*shape, seed=seed), fit, seed=seed).r2 > 0.05


@every_kind
@every_shape
def test_origin_and_axes_do_not_matter(fit: partial[Fit], shape: tuple[int, int, int]) -> None:
    source, target = related(*shape)
    plain = fit(source, target).map
    shifted = fit(source + 5, target - 3).map
    assert close(shifted.matrix, plain.matrix)
    assert close(shifted(source + 5), plain(source) - 3)
    turn, turned = rotation(shape[1], 1), rotation(shape[2], 2)
    assert close(fit(source @ turn, target).map.matrix, plain.matrix @ turn)
    assert close(fit(source, target @ turned).map.matrix, turned.T @ plain.matrix)


@every_kind
def test_any_precision_comes_out_as_float64(fit: partial[Fit]) -> None:
    source, target = (side.bfloat16() for side in related(30, 6, 5))
    found, exact = fit(source, target).map, fit(source.double(), target.double()).map
    assert torch.equal(found.matrix, exact.matrix)
    assert torch.equal(found(source), exact(source.double()))
    assert found.r2(source, target) == exact.r2(source.double(), target.double())


@every_kind
def test_unusable_sides_are_named(fit: partial[Fit]) -> None:
    source, target = related(9, 4, 5)
    broken = target.clone()
    broken[6, 2] = torch.inf
    cases = {
        "source has 9 rows, target 8": (source, target[:8]),
        "source: expected activations of at least 3 prompts, got 2": (source[:2], target[:2]),
        "source: row 6 holds a value that is not finite": (broken, target),
        "target: row 6 holds a value that is not finite": (source, broken),
        "source: expected rows that differ, got 9 equal": (torch.full((9, 4), 0.1), target),
        "target: expected rows that differ, got 9 equal": (source, torch.full((9, 5), 0.1)),
    }
    for message, sides in cases.items():
        with pytest.raises(InputError, match=message):
            fit(*sides)
