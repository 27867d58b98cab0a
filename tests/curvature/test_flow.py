"""Krylov propagation against the closed form of a quadratic."""

import numpy as np
import pytest
import torch
from torch import Tensor

from tiltmeter.curvature.flow import Flow, krylov, phi
from tiltmeter.curvature.forecast import disagreement, quadratic_change
from tiltmeter.errors import InputError, NothingMeasuredError

DISTINCT = (-0.5, 0.0, 0.3, 2.0)  # each twice, negative curvature and none among them


def quadratic(size: int = 8, scale: Tensor | None = None) -> tuple[Flow, Tensor]:
    """`l = g . x + x K x / 2` whose (scaled) Hessian has four distinct eigenvalues."""
    generator = torch.Generator().manual_seed(0)
    Q, _ = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
    H = Q @ torch.diag(torch.tensor(DISTINCT * (size // len(DISTINCT)), dtype=torch.float64)) @ Q.T
    if scale is not None:
        H = H / scale[:, None] / scale[None]
    g = torch.randn(size, generator=generator, dtype=torch.float64)
    return Flow(g, lambda v: H @ v, scale), H


def exact(flow: Flow, H: Tensor, time: float) -> Tensor:
    """`-P^{1/2} phi(K) P^{1/2} g` by a dense eigendecomposition."""
    scale = torch.ones_like(flow.gradient) if flow.scale is None else flow.scale
    values, vectors = torch.linalg.eigh(scale[:, None] * H * scale[None])
    propagated = torch.from_numpy(phi(values.numpy(), time))
    found: Tensor = -scale * (vectors @ (propagated * (vectors.T @ (scale * flow.gradient))))
    return found


@pytest.mark.parametrize("time", [1e-3, 0.5, 4.0, 30.0])
@pytest.mark.parametrize("preconditioned", [False, True])
def test_as_many_products_as_distinct_eigenvalues_are_exact(time: float, preconditioned: bool) -> None:
    flow, H = quadratic(scale=torch.linspace(0.3, 2, 8, dtype=torch.float64) if preconditioned else None)
    model = krylov(flow, products=4)
    expected = exact(flow, H, time)
    assert (model.change(model.coefficients(time)) - expected).norm() <= 1e-9 * expected.norm()
    assert np.allclose(model.eigenvalues, DISTINCT, atol=1e-10)
    change = flow.gradient @ expected + expected @ H @ expected / 2
    assert quadratic_change(model, time) == pytest.approx(float(change), rel=1e-9)


def test_fewer_products_are_not_exact_and_say_so() -> None:
    flow, H = quadratic()
    model, expected = krylov(flow, products=2), exact(flow, H, 4.0)
    assert (model.change(model.coefficients(4.0)) - expected).norm() > 1e-2 * expected.norm()
    assert disagreement(model, 4.0) > 0.1
    assert disagreement(model, 1e-3) < 1e-3


def test_an_exhausted_space_stops_and_agrees_with_itself() -> None:
    flow, H = quadratic()
    model = krylov(flow, products=8)
    assert model.products == 4
    assert disagreement(model, 4.0) < 1e-6
    assert (model.change(model.coefficients(4.0)) - exact(flow, H, 4.0)).norm() < 1e-9


@pytest.mark.parametrize("preconditioned", [False, True])
def test_acceleration_is_the_hessian_times_the_velocity(preconditioned: bool) -> None:
    scale = torch.linspace(0.3, 2, 8, dtype=torch.float64) if preconditioned else None
    flow, H = quadratic(scale=scale)
    P = torch.ones(8, dtype=torch.float64) if scale is None else scale.square()
    for products in (1, 3, 4):
        model = krylov(flow, products)
        found = model.change(model.acceleration)
        expected = P * (H @ (P * flow.gradient))
        assert (found - expected).norm() <= 1e-9 * expected.norm()


def test_one_dimension_follows_the_scalar_formula() -> None:
    flow = Flow(torch.tensor([2.0], dtype=torch.float64), lambda v: 3 * v)
    model = krylov(flow)
    assert model.change(model.coefficients(0.7)).item() == pytest.approx(-2 * (1 - np.exp(-2.1)) / 3)


def test_a_flow_that_stands_still_measures_nothing() -> None:
    with pytest.raises(NothingMeasuredError, match="does not move"):
        krylov(Flow(torch.zeros(3), lambda v: v))
    with pytest.raises(InputError, match="at least one"):
        krylov(Flow(torch.ones(3), lambda v: v), 0)


def test_without_vectors_everything_but_changes_remains() -> None:
    flow, _ = quadratic(scale=torch.linspace(0.3, 2, 8, dtype=torch.float64))
    model = krylov(flow, 3)
    small = model.without_vectors()
    assert small.basis.numel() == 0
    assert np.array_equal(small.coefficients(0.7), model.coefficients(0.7))
    assert np.array_equal(small.acceleration, model.acceleration)
    assert disagreement(small, 0.7) == disagreement(model, 0.7)
