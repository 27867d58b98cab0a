"""Canonical pairs equal those of scikit-learn and of dense eigenproblems; all of them together are the ridge map."""

from functools import partial

import numpy as np
import pytest
import scipy.linalg
import torch
from numpy.typing import NDArray
from sklearn.cross_decomposition import CCA

from paired_activations import related
from tiltmeter.activations.maps.cca import fit_cca
from tiltmeter.activations.maps.linear_map import cross_validate
from tiltmeter.activations.maps.ridge import fit_ridge
from tiltmeter.errors import InputError

SHAPES = {"more prompts than widths": (60, 7, 5), "fewer": (12, 20, 16), "wide target": (30, 6, 40)}
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
Matrix = NDArray[np.float64]


def products(source: torch.Tensor, target: torch.Tensor, penalty: float) -> tuple[Matrix, Matrix, Matrix]:
    """`C_x`, `C_y` and `X^T Y`, dense; the penalty is relative to trace over rank."""
    X, Y = (side.numpy() - side.numpy().mean(0) for side in (source, target))
    whole = [
        side.T @ side
        + penalty * np.trace(side.T @ side) / np.linalg.matrix_rank(side, tol=1e-9) * np.eye(side.shape[1])
        for side in (X, Y)
    ]
    return whole[0], whole[1], X.T @ Y


def power(C: Matrix, exponent: float) -> Matrix:
    values, vectors = np.linalg.eigh(C)
    return np.asarray((vectors * values**exponent) @ vectors.T)


def test_correlations_equal_scikit_learn() -> None:
    source, target = related(200, 5, 4, noise=2)
    theirs = CCA(3, max_iter=10000, tol=1e-14).fit(source.numpy(), target.numpy())
    a, b = theirs.transform(source.numpy(), target.numpy())
    expected = [np.corrcoef(a[:, k], b[:, k])[0, 1] for k in range(3)]
    assert fit_cca(source, target, 3, penalty=0).correlations.tolist() == pytest.approx(expected, abs=1e-7)


@every_shape
def test_correlations_solve_the_generalised_eigenproblem(shape: tuple[int, int, int]) -> None:
    source, target = related(*shape, noise=2)
    Cx, Cy, cross = products(source, target, 0.3)
    left = np.block([[np.zeros_like(Cx), cross], [cross.T, np.zeros_like(Cy)]])
    values = scipy.linalg.eigh(left, scipy.linalg.block_diag(Cx, Cy), eigvals_only=True)[::-1]
    found = fit_cca(source, target, 4, penalty=0.3).correlations
    assert found.tolist() == pytest.approx(values[:4].tolist(), rel=1e-10)


@every_shape
def test_the_map_whitens_keeps_pairs_and_unwhitens(shape: tuple[int, int, int]) -> None:
    source, target = related(*shape, noise=2)
    Cx, Cy, cross = products(source, target, 0.3)
    A, rho, Bt = np.linalg.svd(power(Cx, -0.5) @ cross @ power(Cy, -0.5), full_matrices=False)
    expected = power(Cy, 0.5) @ (Bt[:3].T * rho[:3]) @ A[:, :3].T @ power(Cx, -0.5)
    found = fit_cca(source, target, 3, penalty=0.3).map.matrix
    assert np.abs(found.numpy() - expected).max() < 1e-10
    assert np.linalg.matrix_rank(found.numpy(), tol=1e-9) == 3


@every_shape
def test_all_pairs_together_are_the_ridge_map(shape: tuple[int, int, int]) -> None:
    source, target = related(*shape, noise=2)
    ridge = fit_ridge(source, target)
    found = fit_cca(source, target, min(shape[0] - 1, *shape[1:]))
    assert (found.map.matrix - ridge.map.matrix).abs().max() < 1e-10
    mean_eigenvalue = (source - source.mean(0)).square().sum().item() / min(shape[0] - 1, shape[1])
    assert found.penalty == pytest.approx(ridge.penalty / mean_eigenvalue)


def test_shared_directions_alone_predict_better_where_only_they_are_shared() -> None:
    generator = torch.Generator().manual_seed(0)
    shared, noise = (torch.randn(80, width, generator=generator, dtype=torch.float64) for width in (2, 60))
    source = torch.cat([shared, noise[:, :30]], 1)
    target = torch.cat([shared, noise[:, 30:]], 1)
    through_pairs = cross_validate(source, target, partial(fit_cca, components=2)).r2
    assert through_pairs > cross_validate(source, target, fit_ridge).r2


def test_without_penalty_and_prompts_everything_correlates() -> None:
    source, target = torch.randn(2, 10, 12, dtype=torch.float64)
    found = fit_cca(source, target, 9, penalty=0)
    assert found.correlations.tolist() == pytest.approx([1] * 9, abs=1e-12)


@pytest.mark.parametrize(
    ("components", "penalty", "message"),
    [
        (0, 0.1, "components: expected 1 to 4, in which both sides vary, got 0"),
        (5, 0.1, "components: expected 1 to 4, in which both sides vary, got 5"),
        (2, -0.1, "penalty: expected a finite number of 0 or more, got -0.1"),
        (2, float("nan"), "penalty: expected a finite number of 0 or more, got nan"),
    ],
)
def test_impossible_settings_are_refused(components: int, penalty: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit_cca(*related(9, 4, 6), components, penalty)
