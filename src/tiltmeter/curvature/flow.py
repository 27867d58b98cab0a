"""Training as a flow `d theta / d tau = -P grad l`, and its quadratic model for all times by Krylov propagation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.linalg import eigh_tridiagonal
from torch import Tensor

from tiltmeter.errors import InputError, NothingMeasuredError


@dataclass(frozen=True)
class Flow:
    """`d theta / d tau = -P grad l` with a fixed diagonal P, from where the parameters stand.

    tau is learning rate times steps. P = 1 is plain gradient flow; an adaptive optimiser's is `planned.Plan.flow`.

    Attributes:
        gradient: `g = grad l`.
        hessian: `v -> H v`, of the fine-tuning loss l.
        scale: the square root of P's diagonal; None where P = 1.
        is_bounded: the optimiser's step does not grow with the gradient (AdamW divides by it), so that along negative
            curvature the flow goes on at the speed with which it starts, in place of growing exponentially.
    """

    gradient: Float[Tensor, " P"]
    hessian: Callable[[Tensor], Tensor]
    scale: Float[Tensor, " P"] | None = None
    is_bounded: bool = False

    def scaled(self, vector: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
        """`sqrt(P) v`."""
        return vector if self.scale is None else self.scale * vector

    def product(self, vector: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
        """`sqrt(P) H sqrt(P) v`: the Hessian in the coordinates in which the flow is a gradient flow."""
        return self.scaled(self.hessian(self.scaled(vector)))


@dataclass(frozen=True)
class Krylov:
    """The flow's quadratic model on the Krylov space of m products: `K = Q T Q^T` there, `K = sqrt(P) H sqrt(P)`.

    `theta(t) - theta* ~ -sqrt(P) ||b|| Q phi(T, t) e_1` with `b = sqrt(P) g` and `phi(s, t) = (1 - exp(-s t)) / s`, for
    all t, exact where m reaches the number of distinct eigenvalues of K that b has parts of.
    Source: Lanczos' method with full reorthogonalisation; in place of the Taylor series of collapse, which holds for
    `t << 1 / lambda_max` only.

    Attributes:
        flow: what is propagated.
        basis: Q^T, m + 1 orthonormal rows; the last is not part of the model (fewer where the space is exhausted).
        alphas: the diagonal of T.
        betas: below the diagonal; the last links the model to the last row of the basis.
        size: `||b||`.
    """

    flow: Flow
    basis: Float[Tensor, "m1 P"]
    alphas: Float[np.ndarray, " m"]
    betas: Float[np.ndarray, " m"]
    size: float

    @property
    def products(self) -> int:
        """m, the Hessian-vector products that the model rests on."""
        return len(self.alphas)

    @property
    def eigenvalues(self) -> Float[np.ndarray, " m"]:
        """Ritz values: the curvatures that the flow meets, ascending."""
        return _eigen(self.alphas, self.betas)[0]

    def coefficients(self, time: float, products: int | None = None) -> Float[np.ndarray, " m"]:
        """`-||b|| phi(T, t) e_1`: the displacement on the first m rows of the basis, or with fewer products."""
        m = self.products if products is None else products
        values, vectors = _eigen(self.alphas[:m], self.betas)
        if self.flow.is_bounded:
            values = values.clip(min=0)
        found: NDArray[np.float64] = -self.size * (vectors @ (phi(values, time) * vectors[0]))
        return np.pad(found, (0, self.products - m))

    @property
    def acceleration(self) -> Float[np.ndarray, " m1"]:
        """`K b = ||b|| (alpha_1 q_1 + beta_1 q_2)` on the rows of the basis: the flow's second derivative."""
        found = np.zeros(len(self.basis))
        found[:2] = (self.size * np.array([self.alphas[0], self.betas[0]]))[: len(found)]
        return found

    def change(self, coefficients: Float[np.ndarray, " m"]) -> Float[Tensor, " P"]:
        """The change of the parameters `sqrt(P) Q c`."""
        weights = torch.tensor(coefficients, dtype=self.basis.dtype, device=self.basis.device)
        return self.flow.scaled(weights @ self.basis[: len(weights)])

    def without_vectors(self) -> "Krylov":
        """The same with vectors of length 0: coefficients, eigenvalues and acceleration remain, memory does not."""
        scale = None if self.flow.scale is None else self.flow.scale[:0]
        flow = replace(self.flow, gradient=self.flow.gradient[:0], scale=scale)
        return replace(self, flow=flow, basis=self.basis[:, :0].clone())

    def rows(self) -> Sequence[Float[Tensor, " P"]]:
        """Each row of the basis as a change of the parameters, `sqrt(P) q_j`."""
        return [self.flow.scaled(row) for row in self.basis]


def krylov(flow: Flow, products: int = 4) -> Krylov:
    """The quadratic model of a flow from m Hessian-vector products.

    Raises:
        NothingMeasuredError: the gradient is zero: the flow stands still.
    """
    if products < 1:
        raise InputError(f"expected at least one Hessian-vector product, got {products}")
    start = flow.scaled(flow.gradient)
    size = float(start.norm())
    if size == 0:
        raise NothingMeasuredError("the gradient of the fine-tuning loss is zero: training does not move the model")
    basis, alphas, betas = [start / size], [], []
    for _ in range(min(products, len(start))):
        row = flow.product(basis[-1])
        alphas.append(float(row @ basis[-1]))
        for _ in range(2):  # once is not enough in float32
            known = torch.stack(basis)
            row = row - (known @ row) @ known
        betas.append(float(row.norm()))
        if betas[-1] <= 1e-6 * max(abs(alpha) for alpha in alphas):
            break
        basis.append(row / betas[-1])
    return Krylov(flow, torch.stack(basis), np.array(alphas), np.array(betas), size)


def _eigen(
    alphas: Float[np.ndarray, " m"], betas: Float[np.ndarray, " k"]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    values, vectors = eigh_tridiagonal(alphas, betas[: len(alphas) - 1])
    return np.asarray(values, dtype=np.float64), np.asarray(vectors, dtype=np.float64)


def phi(s: Float[np.ndarray, " m"], time: float) -> Float[np.ndarray, " m"]:
    """`(1 - exp(-s t)) / s`, and t where s = 0."""
    safe = np.where(s == 0, 1.0, s)
    with np.errstate(over="ignore"):
        return np.where(s == 0, time, -np.expm1(-safe * time) / safe)
