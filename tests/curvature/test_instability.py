"""The instability condition against dense matrices, and the quartic law on a soft-max model of five dimensions."""

import numpy as np
import pytest
import torch
from torch import Tensor

from tiltmeter.curvature.instability import Instability, Subspace, instabilities

F64 = torch.float64


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


@pytest.mark.parametrize("dims", [1, 3, 7, 20])
def test_everything_equals_its_dense_definition(dims: int) -> None:
    G, p, a = normal(7, 12), normal(12, seed=1), normal(12, seed=2)  # seven examples: rank 7
    F = G.T @ G / 7
    values, vectors = torch.linalg.eigh(F)
    values, top = values.flip(0), vectors.flip(1)[:, : min(dims, 7)]
    P = top @ top.T
    root = (vectors * torch.linalg.eigvalsh(F).clamp(min=0).sqrt()) @ vectors.T
    found = instabilities(G @ G.T / 7, G @ p, G @ a, float(p.norm()), 12, [dims])[dims]
    assert found.epsilon == pytest.approx(float((P @ p).norm()), rel=1e-9)
    assert found.epsilon_relative == pytest.approx(float((P @ p).norm() / p.norm()), rel=1e-9)
    assert found.epsilon_random == pytest.approx((min(dims, 7) / 12) ** 0.5)
    assert found.gamma == pytest.approx(float((root @ P @ a).norm()), rel=1e-9)
    assert found.gamma_unweighted == pytest.approx(float((P @ a).norm()), rel=1e-9)
    assert found.weighted_epsilon == pytest.approx(float((root @ P @ p).norm()), rel=1e-9)
    assert found.first_order == pytest.approx(float((G @ p).mean()))
    assert found.subspace.spectrum.tail(dims) == pytest.approx(float(values[dims:].sum()), abs=1e-12)
    assert found.subspace.spectrum.at(dims) == pytest.approx(float(values[dims - 1]) if dims <= 7 else 0.0, abs=1e-12)
    assert found.subspace.spectrum.participation_ratio == pytest.approx(
        float(values.sum() ** 2 / values.square().sum())
    )


def test_the_crossing_time_is_where_both_terms_of_the_drift_are_equal() -> None:
    found = instabilities(torch.eye(2, dtype=F64), torch.tensor([3.0, 0.0], dtype=F64), normal(2), 3.0, 9, [2])[2]
    t = found.crossing_time
    assert t is not None
    assert found.weighted_epsilon * t == pytest.approx(found.gamma * t**2 / 2)
    assert found.regime(t * 0.99) == "first order"
    assert found.regime(t * 1.01) == "second order"


def test_without_curvature_the_first_order_always_leads() -> None:
    found = Instability(Subspace(torch.eye(2, dtype=F64), 1), torch.ones(2, dtype=F64), torch.zeros(2, dtype=F64), 1, 4)
    assert found.crossing_time is None
    assert found.regime(1e9) == "first order"


class SoftMax:
    """`log pi(y; theta) = log softmax(A theta + theta B theta)_y` over six answers, uniform at 0, and a quadratic
    fine-tuning loss `g . theta + theta H theta / 2`.
    """

    def __init__(self, null: bool) -> None:
        self.A, self.B = normal(6, 5), normal(6, 5, 5, seed=1)
        H = normal(5, 5, seed=2)
        self.H, self.g = H + H.T, normal(5, seed=3)
        if null:  # every score along g is zero
            self.A -= torch.outer(self.A @ self.g, self.g) / self.g.square().sum()

    def log_probabilities(self, theta: Tensor) -> Tensor:
        return (self.A @ theta + torch.einsum("yij,i,j->y", self.B, theta, theta)).log_softmax(0)

    def utility_loss(self, time: float) -> float:
        """Exact gradient flow from 0: `theta(t) = -phi(H, t) g`; each answer once, as often as the model gives it."""
        values, vectors = torch.linalg.eigh(self.H)
        theta = -vectors @ (-torch.expm1(-values * time) / values * (vectors.T @ self.g))
        return float((self.log_probabilities(torch.zeros(5, dtype=F64)) - self.log_probabilities(theta)).mean())

    def condition(self) -> tuple[Instability, Tensor]:
        zero = torch.zeros(5, dtype=F64)
        scores = torch.func.jacrev(self.log_probabilities)(zero)
        second = torch.einsum("yij,i,j->y", torch.func.hessian(self.log_probabilities)(zero), self.g, self.g)
        gram = scores @ scores.T / 6
        velocity, acceleration = scores @ self.g, scores @ (self.H @ self.g)
        return Instability(Subspace(gram, 5), velocity, acceleration, float(self.g.norm()), 5), second


def slope(model: SoftMax) -> float:
    times = np.array([1e-3, 2e-3])
    losses = [model.utility_loss(t) for t in times]
    return float(np.diff(np.log(losses))[0] / np.diff(np.log(times))[0])


def test_a_fisher_null_gradient_gives_the_repaired_quartic_law() -> None:
    model = SoftMax(null=True)
    found, second = model.condition()
    assert slope(model) == pytest.approx(4, abs=0.01)
    measured = model.utility_loss(1e-3) / 1e-12
    assert measured == pytest.approx(found.quartic_constant(second), rel=0.02)
    assert abs(found.gamma**2 / 8 / measured - 1) > 0.2  # the study's constant is one part of it


def test_a_first_order_overlap_makes_it_quadratic() -> None:
    model = SoftMax(null=False)
    found, _ = model.condition()
    assert slope(model) == pytest.approx(2, abs=0.02)
    assert model.utility_loss(1e-4) / 1e-8 == pytest.approx(found.velocity.square().mean().item() / 2, rel=0.02)
