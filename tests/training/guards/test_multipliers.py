"""The least change, against a general solver."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from tiltmeter.training.guards.multipliers import Ball, into_balls, least_change

SOLVE: Any = minimize


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def least_by_scipy(G: Tensor, drift: Tensor, balls: list[Ball]) -> Tensor:
    """min ||x||^2 subject to every ball, by SLSQP."""
    rows, c = G.numpy(), drift.numpy()

    def room(x: np.ndarray, ball: Ball) -> float:
        return ball.limit - float(np.square(ball.factor * (c - rows @ x)[ball.rows] + ball.shift.numpy()).mean())

    constraints = [{"type": "ineq", "fun": room, "args": (ball,)} for ball in balls]
    start = np.linalg.lstsq(rows, c, rcond=None)[0]
    found = SOLVE(
        lambda x: float(x @ x), start, jac=lambda x: 2 * x, constraints=constraints, method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-12},
    )  # fmt: skip
    assert found.success
    return torch.from_numpy(found.x)


@pytest.mark.parametrize("seed", range(4))
def test_two_skills_and_a_forecast_are_met_by_the_least_change(seed: int) -> None:
    G, drift = draw(7, 9, seed=seed), draw(7, seed=10 + seed)
    zero = torch.zeros(4, dtype=torch.float64)
    balls = [
        Ball(slice(0, 4), 1.0, zero, 0.05),
        Ball(slice(4, 7), 1.0, zero[:3], 0.2),
        Ball(slice(0, 4), 3.0, 0.5 * draw(4, seed=20 + seed), 0.1),
    ]
    x = G.T @ into_balls(G @ G.T, drift, balls)
    for ball in balls:
        assert ball.size(drift - G @ x) <= ball.limit * (1 + 1e-12)
    expected = least_by_scipy(G, drift, balls)
    assert float(x.norm()) == pytest.approx(float(expected.norm()), rel=1e-5)
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-4)


def test_one_skill_against_the_secular_equation() -> None:
    """On one eigenvector of F: v shrinks to the length at which `lambda v^2 = limit`."""
    G = torch.tensor([[2.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    drift = G @ torch.tensor([3.0, 0.0], dtype=torch.float64)
    x = G.T @ into_balls(G @ G.T, drift, [Ball(slice(0, 2), 1.0, torch.zeros(2, dtype=torch.float64), 0.5)])
    torch.testing.assert_close(x, torch.tensor([3.0 - 0.5, 0.0], dtype=torch.float64))


def test_gradients_that_repeat_do_no_harm() -> None:
    G = draw(3, 9)
    G = torch.cat([G, G])
    drift = G @ draw(9, seed=1)
    ball = Ball(slice(0, 6), 1.0, torch.zeros(6, dtype=torch.float64), 0.01)
    x = G.T @ into_balls(G @ G.T, drift, [ball])
    assert ball.size(drift - G @ x) == pytest.approx(0.01, rel=1e-6)


def test_the_least_change_of_linear_losses() -> None:
    one = least_change(torch.tensor([[4.0]], dtype=torch.float64), torch.tensor([2.0], dtype=torch.float64))
    torch.testing.assert_close(one, torch.tensor([0.5], dtype=torch.float64))
    g = draw(3, 5)
    excess = torch.tensor([0.3, 0.1, 0.7], dtype=torch.float64)
    x = least_change(g @ g.T, excess) @ g
    assert bool((g @ x >= excess - 1e-9).all())
    found = SOLVE(
        lambda v: float(v @ v), np.ones(5), jac=lambda v: 2 * v, method="SLSQP",
        constraints={"type": "ineq", "fun": lambda v: g.numpy() @ v - excess.numpy()}, options={"ftol": 1e-14},
    )  # fmt: skip
    torch.testing.assert_close(x, torch.from_numpy(found.x), rtol=0, atol=1e-5)


def test_a_skill_that_another_correction_already_helps_has_no_multiplier() -> None:
    g = torch.tensor([[1.0, 0.0], [1.0, 0.1]], dtype=torch.float64)
    multipliers = least_change(g @ g.T, torch.tensor([1.0, 0.5], dtype=torch.float64))
    assert multipliers.tolist() == pytest.approx([1.0, 0.0])
