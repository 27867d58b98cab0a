"""The ridge map and its leave-one-out errors equal scikit-learn's and those of explicit refits."""

from collections.abc import Callable
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeCV
from torch import Tensor

from paired_activations import related
from tiltmeter.activations.maps.ridge import RidgeSource, fit_ridge
from tiltmeter.errors import InputError

SHAPES = {
    "more prompts than widths": (40, 8, 5),
    "wide target": (40, 8, 60),
    "wide source": (20, 30, 6),
    "both wide": (20, 30, 50),
}
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def refitted(source: Tensor, target: Tensor, penalty: float) -> float:
    """Mean squared error of each row under a map fitted to the other rows, by the normal equations."""
    X, Y = source.numpy(), target.numpy()
    squares = []
    for n in range(len(X)):
        x, y = np.delete(X, n, 0), np.delete(Y, n, 0)
        xc, yc = x - x.mean(0), y - y.mean(0)
        W = np.linalg.solve(xc.T @ xc + penalty * np.eye(x.shape[1]), xc.T @ yc)
        squares.append((Y[n] - y.mean(0) - (X[n] - x.mean(0)) @ W) ** 2)
    return float(np.mean(squares))


def with_lone_row(source: Tensor) -> Tensor:
    """One prompt alone varies along the first axis: its leverage is nearly 1."""
    return torch.cat([torch.eye(len(source), 1, dtype=torch.float64), source[:, 1:]], 1)


def with_copied_axis(source: Tensor) -> Tensor:
    """Rank below the width."""
    return torch.cat([source[:, 1:2], source[:, 1:]], 1)


def test_a_known_map_is_recovered() -> None:
    W = torch.randn(6, 9, dtype=torch.float64)
    source = torch.randn(50, 9, dtype=torch.float64) + 4
    found = fit_ridge(source, source @ W.T - 2, penalties=[1e-10]).map
    assert (found.matrix - W).abs().max() < 1e-8
    fresh = torch.randn(3, 9, dtype=torch.float64)
    assert (found(fresh) - (fresh @ W.T - 2)).abs().max() < 1e-8


@every_shape
def test_equals_scikit_learn(shape: tuple[int, int, int]) -> None:
    source, target = related(*shape, noise=1)
    ours = fit_ridge(source, target)
    theirs = RidgeCV(ours.penalties, fit_intercept=True, store_cv_results=True).fit(source.numpy(), target.numpy())
    assert ours.penalty == theirs.alpha_
    assert not ours.at_edge
    assert ours.errors == pytest.approx(theirs.cv_results_.mean((0, 1)), rel=1e-8)
    assert np.abs(ours.map.matrix.numpy() - theirs.coef_).max() < 1e-8
    assert np.abs(ours.map(source).numpy() - theirs.predict(source.numpy())).max() < 1e-8


@every_shape
@pytest.mark.parametrize("change", [Tensor.clone, with_lone_row, with_copied_axis])
def test_leave_one_out_errors_are_those_of_refits(
    shape: tuple[int, int, int], change: Callable[[Tensor], Tensor]
) -> None:
    source, target = related(*shape, noise=1)
    source = change(source)
    penalties = [1e-4, 0.1, 20.0, 1e4]
    found = fit_ridge(source, target, penalties)
    assert found.errors == pytest.approx([refitted(source, target, penalty) for penalty in penalties], rel=1e-7)


def test_leave_one_out_errors_do_not_cancel_away_at_a_tiny_penalty() -> None:
    source, target = related(20, 30, 6, noise=1)
    squares = []
    for n in range(20):  # with no penalty left: the shortest of all maps through the other rows
        x, y = (np.delete(side.numpy(), n, 0) for side in (source, target))
        W = np.linalg.lstsq(x - x.mean(0), y - y.mean(0), rcond=None)[0]
        squares.append((target[n].numpy() - y.mean(0) - (source[n].numpy() - x.mean(0)) @ W) ** 2)
    assert fit_ridge(source, target, [1e-14]).errors == pytest.approx([np.mean(squares)], rel=1e-9)


def test_one_factorisation_serves_several_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    source, one = related(20, 30, 6)
    _, two = related(20, 30, 40, seed=1)
    alone = [fit_ridge(source, target) for target in (one, two)]
    svd = Mock(wraps=torch.linalg.svd)
    monkeypatch.setattr(torch.linalg, "svd", svd)
    shared = RidgeSource(source)
    for target, expected in zip((one, two), alone, strict=True):
        found = shared.fit(target)
        assert torch.equal(found.map.matrix, expected.map.matrix)
        assert (found.penalties, found.errors) == (expected.penalties, expected.errors)
    assert svd.call_count == 1


def test_the_grid_is_relative_to_the_source() -> None:
    source, target = related(20, 30, 6)
    found = fit_ridge(source, target).penalties
    mean = (source - source.mean(0)).square().sum().item() / 19  # trace over rank
    assert found == pytest.approx([mean * 10 ** (-6 + 0.75 * k) for k in range(13)], rel=1e-12)
    assert fit_ridge(1e3 * source, target).penalties == pytest.approx([1e6 * penalty for penalty in found])


def test_a_penalty_at_the_edge_of_the_grid_is_flagged() -> None:
    source, target = related(40, 8, 5, noise=1)
    best = fit_ridge(source, target).penalty
    for penalties, at_edge in (([best, 1e9], True), ([1e9, best], True), ([1e9, best, 1e-9], False)):
        found = fit_ridge(source, target, penalties)
        assert (found.penalty, found.at_edge) == (best, at_edge)


@pytest.mark.parametrize("penalties", [[], [1.0, 0.0], [-1.0], [float("nan")], [float("inf")]])
def test_penalties_are_positive_numbers(penalties: list[float]) -> None:
    with pytest.raises(InputError, match="penalties: expected one or more, finite and above 0"):
        fit_ridge(*related(9, 4, 5), penalties)
