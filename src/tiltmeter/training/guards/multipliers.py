"""The smallest change of the weights that brings several skills within their limits: one multiplier a skill."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.optimize import brentq, nnls
from torch import Tensor

SWEEPS = 60
LARGEST = 1e12
TOLERANCE = 1e-9  # of a limit


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
    `q = sum_j lambda_j factor_j (factor_j c + shift_j) / N_j`, hence `z = q - A (1 + K A)^-1 K q`. The dual is concave
    and each ball's size falls with its own multiplier: they are set one after the other until all fit. The shrinking of
    limits by a billionth keeps rounding inside.
    """
    multipliers = [0.0] * len(balls)
    for _ in range(SWEEPS):
        if all(ball.size(drift - gram @ _solution(gram, drift, balls, multipliers)) <= ball.limit for ball in balls):
            break
        for place in range(len(balls)):
            multipliers[place] = _multiplier(gram, drift, balls, multipliers, place)
    return _solution(gram, drift, balls, multipliers)


def _multiplier(gram: Tensor, drift: Tensor, balls: list[Ball], multipliers: list[float], place: int) -> float:
    """The least multiplier of one ball at which it fits, the others' as they are."""
    ball = balls[place]

    def excess(value: float) -> float:
        tried = [*multipliers[:place], value, *multipliers[place + 1 :]]
        return ball.size(drift - gram @ _solution(gram, drift, balls, tried)) / ball.limit - (1 - TOLERANCE)

    if excess(0.0) <= 0:
        return 0.0
    high = max(multipliers[place], 1 / float(gram.diagonal().mean()).__abs__())
    while excess(high) > 0 and high < LARGEST:
        high *= 4
    return float(brentq(excess, 0.0, high, rtol=1e-12)) if excess(high) <= 0 else high


def _solution(gram: Tensor, drift: Tensor, balls: list[Ball], multipliers: list[float]) -> Float[Tensor, " R"]:
    weights, pull = torch.zeros_like(drift), torch.zeros_like(drift)
    for ball, multiplier in zip(balls, multipliers, strict=True):
        share = multiplier * ball.factor / len(ball.shift)
        weights[ball.rows] += share * ball.factor
        pull[ball.rows] += share * (ball.factor * drift[ball.rows] + ball.shift)
    system = torch.eye(len(drift), dtype=drift.dtype) + gram * weights
    held: Tensor = torch.linalg.solve(system, gram @ pull)
    return pull - weights * held
