"""The instability condition of collapse: where a flow starts in a skill's subspace, and where curvature bends it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.curvature.spectrum import Spectrum
from tiltmeter.intervals import Interval, percentile_interval

RESAMPLES = 200  # each is an eigendecomposition
RANK_TOLERANCE = 1e-10  # eigenvalues below this share of the largest are rounding

Regime = Literal["first order", "second order"]


@dataclass(frozen=True)
class Subspace:
    """The top-d eigenvectors of a Fisher matrix, known through its Gram matrix alone.

    With `Gram = U diag(lambda) U^T` and the coordinates c of an update V,
    `<v_j, V> = (U^T c)_j / sqrt(N lambda_j)` and `lambda_j <v_j, V>^2 = (U^T c)_j^2 / N`.

    Attributes:
        gram: `<g_n, g_m> / N`.
        dims: d; no more than the rank of the Gram count.
    """

    gram: Float[Tensor, "N N"]
    dims: int

    @cached_property
    def _eigen(self) -> tuple[Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(self.gram)
        return values.flip(0).clamp(min=0), vectors.flip(1)

    @property
    def spectrum(self) -> Spectrum:
        """All eigenvalues."""
        return Spectrum(self._eigen[0])

    @property
    def kept(self) -> int:
        """d, or the rank where that is less."""
        values = self._eigen[0]
        return min(self.dims, int((values > RANK_TOLERANCE * values[0]).sum()))

    def projection(self, coordinates: Float[Tensor, " N"]) -> float:
        """`||P V||`."""
        values, vectors = self._eigen
        parts = vectors[:, : self.kept].T @ coordinates
        return float((parts.square() / (len(self.gram) * values[: self.kept])).sum().sqrt())

    def weighted(self, coordinates: Float[Tensor, " N"]) -> float:
        """`||F^{1/2} P V||`."""
        parts = self._eigen[1][:, : self.kept].T @ coordinates
        return float((parts.square().sum() / len(self.gram)).sqrt())


@dataclass(frozen=True)
class Instability:
    """How a flow `theta(t) - theta* = -t p + t^2/2 a + O(t^3)` meets the subspace of a skill.

    p = P_opt grad l and a = P_opt H p with the flow's preconditioner P_opt (1 for gradient flow, where p = g and
    a = H g). Source: collapse, the alignment instability condition; gamma already holds F^{1/2}, so lambda does not
    enter it a second time.

    Attributes:
        subspace: of the skill.
        velocity, acceleration: coordinates of p and of a.
        speed: `||p||`.
        size: n, the number of weights that are measured.
    """

    subspace: Subspace
    velocity: Float[Tensor, " N"]
    acceleration: Float[Tensor, " N"]
    speed: float
    size: int

    @property
    def epsilon(self) -> float:
        """`||P p||`."""
        return self.subspace.projection(self.velocity)

    @property
    def epsilon_relative(self) -> float:
        """`||P p|| / ||p||`, between 0 and 1."""
        return self.epsilon / self.speed if self.speed else 0.0

    @property
    def epsilon_random(self) -> float:
        """`sqrt(d / n)`: what `epsilon_relative` is for a random direction."""
        return float((self.subspace.kept / self.size) ** 0.5)

    @property
    def first_order(self) -> float:
        """`mean_n c_n(p)`: the rate at which the utility loss starts, positive for harm."""
        return float(self.velocity.mean())

    @property
    def weighted_epsilon(self) -> float:
        """`||F^{1/2} P p||`: the rate at which the drift starts."""
        return self.subspace.weighted(self.velocity)

    @property
    def gamma(self) -> float:
        """`||F^{1/2} P a||`."""
        return self.subspace.weighted(self.acceleration)

    @property
    def gamma_unweighted(self) -> float:
        """`||P a||`."""
        return self.subspace.projection(self.acceleration)

    @property
    def crossing_time(self) -> float | None:
        """`2 ||F^{1/2} P p|| / gamma`: from here on the quadratic term of the drift leads; None where it never does."""
        return 2 * self.weighted_epsilon / self.gamma if self.gamma else None

    def regime(self, time: float) -> Regime:
        """Which term of the drift leads at a time."""
        crossing = self.crossing_time
        return "first order" if crossing is None or time < crossing else "second order"

    def quartic_constant(self, second: Float[Tensor, " N"]) -> float:
        """`E[(s_a + q_pp)^2] / 8`: `du(t) / t^4` for small t, if the score along p is zero for every example.

        s_a is the score along a, q_pp (`second`) the second derivative of the log-likelihood along p: together the
        second time derivative of log pi along the flow. The study's `gamma^2 / 8` is one part of it.
        """
        return float((self.acceleration + second).square().mean() / 8)


def instabilities(
    gram: Float[Tensor, "N N"],
    velocity: Float[Tensor, " N"],
    acceleration: Float[Tensor, " N"],
    speed: float,
    size: int,
    dims: Sequence[int],
) -> dict[int, Instability]:
    """The condition at several numbers of dimensions."""
    return {d: Instability(Subspace(gram, d), velocity, acceleration, speed, size) for d in dims}


@dataclass(frozen=True)
class Resampled:
    """Bootstrap intervals of the condition, over skill examples and groups of fine-tuning examples."""

    epsilon: Interval
    gamma: Interval
    first_order: Interval


def resampled(
    found: Instability, groups: Float[Tensor, "G N"] | None, shares: Float[Tensor, " G"] | None, seed: int = 0
) -> Resampled:
    """Resamples the N skill examples, and the groups of fine-tuning examples that the velocity is the mean of.

    Args:
        found: the condition on all of them.
        groups: coordinates of the velocity of each group alone; None leaves the fine-tuning examples as they are.
        shares: the share of each group in the velocity.
        seed: of the resampling.
    """
    rng = np.random.default_rng(seed)
    count = len(found.velocity)
    drawn: list[tuple[float, float, float]] = []
    for _ in range(RESAMPLES):
        rows = torch.from_numpy(rng.integers(count, size=count))
        velocity = found.velocity if groups is None or shares is None else _regrouped(groups, shares, rng)
        subspace = Subspace(found.subspace.gram[rows][:, rows], found.subspace.dims)
        one = replace(found, subspace=subspace, velocity=velocity[rows], acceleration=found.acceleration[rows])
        drawn.append((one.epsilon, one.gamma, one.first_order))
    epsilon, gamma, first_order = zip(*drawn, strict=True)
    return Resampled(
        percentile_interval(found.epsilon, epsilon),
        percentile_interval(found.gamma, gamma),
        percentile_interval(found.first_order, first_order),
    )


def _regrouped(
    groups: Float[Tensor, "G N"], shares: Float[Tensor, " G"], rng: np.random.Generator
) -> Float[Tensor, " N"]:
    picks = torch.from_numpy(rng.integers(len(groups), size=len(groups)))
    return (shares[picks] @ groups[picks]) / shares[picks].sum()
