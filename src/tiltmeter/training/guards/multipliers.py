"""The smallest change of the weights that brings several skills within their limits: one multiplier a skill."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize, nnls
from torch import Tensor

# Of a multiplier, per mean `|g_n|^2`: a measured drift need not be what any change of the weights can undo, and beyond
# this the least change is made of differences that float32 gradients do not hold.
LARGEST = 1e5
TOLERANCE = 1e-9  # of a limit: roots are sought this far inside, so that rounding stays inside


def least_change(gram: Float[Tensor, "S S"], excess: Float[Tensor, " S"]) -> Float[Tensor, " S"]:
    """Multipliers of the least x = sum_i lambda_i g_i with `<g_i, x> >= excess_i`, given `<g_i, g_j>`.

    The dual `min lambda^T K lambda / 2 - lambda^T e` over `lambda >= 0`, as a least squares problem in `K^(1/2)`.
    """
    values, vectors = torch.linalg.eigh(gram)
    kept = values > 1e-12 * values[-1]
    root = values[kept].sqrt()
    factor = (vectors[:, kept] * root).T
    target = (vectors[:, kept].T @ excess) / root
    return torch.from_numpy(nnls(factor.numpy(), target.numpy())[0])


@dataclass(frozen=True)
class Ball:
    """`mean_n (factor * c_n + shift_n)^2 <= limit`, of the drifts c of the skill in the rows `rows`."""

    rows: slice
    factor: float
    shift: Float[Tensor, " N"]
    limit: float

    def size(self, drift: Float[Tensor, " R"]) -> float:
        """The left side."""
        return float((self.factor * drift[self.rows] + self.shift).square().mean())


def into_balls(gram: Float[Tensor, "R R"], drift: Float[Tensor, " R"], balls: list[Ball]) -> Float[Tensor, " R"]:
    """z of the least x = G^T z whose removal, `c <- c - G x`, brings the drift into every ball, given `G G^T`.

    Stationary for multipliers lambda: `z = q - A G x` with `A = diag(sum_j lambda_j factor_j^2 / N_j)` and
    `q = sum_j lambda_j factor_j (factor_j c + shift_j) / N_j`, hence `z = q - A (1 + K A)^-1 K q`. The dual, concave in
    lambda, is maximised; each ball's size falls with its own multiplier, so what is then left of one is done exactly.
    """
    multipliers = [0.0] * len(balls)
    if len(balls) > 1:
        multipliers = _dual_maximum(gram, drift, balls)
    for place in range(len(balls)):
        multipliers[place] = max(multipliers[place], _multiplier(gram, drift, balls, multipliers, place))
    return _solution(gram, drift, balls, multipliers)


def _dual_maximum(gram: Tensor, drift: Tensor, balls: list[Ball]) -> list[float]:
    """Multipliers as L-BFGS-B finds them, each in units of one over its limit."""
    limits = np.array([ball.limit for ball in balls])

    def negative_dual(units: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        z = _solution(gram, drift, balls, (units / limits).tolist())
        excess = np.array([ball.size(drift - gram @ z) for ball in balls]) / limits - 1
        return -float(z @ gram @ z + units @ excess), -excess

    solve: Any = minimize  # its stubs know no function with a gradient of its own and bounds
    bounds = [(0, _largest(gram, ball) * ball.limit) for ball in balls]
    options = {"maxiter": 500, "maxfun": 1000, "ftol": 1e-15, "gtol": 1e-9}
    found = solve(negative_dual, np.zeros(len(balls)), jac=True, bounds=bounds, method="L-BFGS-B", options=options)
    return [float(value) for value in found.x / limits]


def _multiplier(gram: Tensor, drift: Tensor, balls: list[Ball], multipliers: list[float], place: int) -> float:
    """The least multiplier of one ball at which it fits, the others' as they are."""
    ball = balls[place]

    def excess(value: float) -> float:
        tried = [*multipliers[:place], value, *multipliers[place + 1 :]]
        return ball.size(drift - gram @ _solution(gram, drift, balls, tried)) / ball.limit - (1 - TOLERANCE)

    if excess(0.0) <= 0:
        return 0.0
    largest = _largest(gram, ball)
    high = min(max(multipliers[place], 1 / float(gram.diagonal().mean())), largest)
    while excess(high) > 0 and high < largest:
        high = min(4 * high, largest)
    return float(brentq(excess, 0.0, high, rtol=1e-12)) if excess(high) <= 0 else high


def _largest(gram: Tensor, ball: Ball) -> float:
    return LARGEST * len(ball.shift) / float(gram.diagonal()[ball.rows].mean().clamp(min=1e-300))


def _solution(gram: Tensor, drift: Tensor, balls: list[Ball], multipliers: list[float]) -> Float[Tensor, " R"]:
    weights, pull = torch.zeros_like(drift), torch.zeros_like(drift)
    for ball, multiplier in zip(balls, multipliers, strict=True):
        share = multiplier * ball.factor / len(ball.shift)
        weights[ball.rows] += share * ball.factor
        pull[ball.rows] += share * (ball.factor * drift[ball.rows] + ball.shift)
    system = torch.eye(len(drift), dtype=drift.dtype) + gram * weights
    held: Tensor = torch.linalg.solve(system, gram @ pull)
    return pull - weights * held
