"""How far the leading subspace of one Fisher matrix is turned against that of another."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.linalg import subspace_angles
from torch import Tensor

from tiltmeter.curvature.joint import JointGram

RESOLVED = 1e-6  # of lambda_1: smaller eigenvalues and gaps are rounding of float32 gradients


@dataclass(frozen=True)
class Rotation:
    """The subspaces of the d largest eigenvalues of `F_0` and `F_t`, with projectors `P_0` and `P_t`.

    Source: collapse, appendix B; the bound is Davis-Kahan's in the form of Yu, Wang and Samworth (2015).

    Attributes:
        angles: the d principal angles in radians, descending.
        distance: `||F_t - F_0||`, the largest singular value of the difference.
        gap: `lambda_d - lambda_{d+1}` of `F_0`.
        gap_after: the same of `F_t`.
        top: `lambda_1` of `F_0`.
        trace_ratio: `tr F_t / tr F_0`.
    """

    angles: Float[Tensor, " d"]
    distance: float
    gap: float
    gap_after: float
    top: float
    trace_ratio: float

    @property
    def sine(self) -> float:
        """`||P_0 - P_t|| = sin(theta_max)`."""
        return float(self.angles[0].sin())

    @property
    def overlap(self) -> float:
        """`(1/d) sum_i cos^2 theta_i = tr(P_0 P_t)/d`: 1 for one subspace, d/n for two independent ones."""
        return float(self.angles.cos().square().mean())

    @property
    def bound(self) -> float | None:
        """`2 ||F_t - F_0|| / (lambda_d - lambda_{d+1})`, at least the sine; above 1 it says nothing.

        None without a gap, where `P_0` is not unique.
        """
        return 2 * self.distance / self.gap if self.gap > RESOLVED * self.top else None

    @property
    def is_informative(self) -> bool:
        """A gap, and a bound below 1."""
        return self.bound is not None and self.bound < 1


def rotation(joint: JointGram, index: int, d: int) -> Rotation | None:
    """The rotation at one module or site; None where fewer than d eigenvalues of either Fisher are above 0.

    The symmetric root of the joint Gram, `K = X^T X`, holds all 2N gradients in 2N coordinates with their inner
    products. There, `F_0` and `F_t` are small dense matrices with the same angles, and `||F_t - F_0||` is the largest
    absolute eigenvalue of `K^(1/2) J K^(1/2)`, `J = diag(-1, 1)`.
    """
    values, vectors = torch.linalg.eigh(joint.whole(index))
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    N = len(root) // 2
    if d > N:
        return None
    first, second = root[:, :N] @ root[:, :N].T, root[:, N:] @ root[:, N:].T
    (before, U), (after, V) = torch.linalg.eigh(first), torch.linalg.eigh(second)
    if any(values[-d] <= RESOLVED * values[-1] for values in (before, after)):
        return None
    return Rotation(
        torch.from_numpy(np.array(subspace_angles(U[:, -d:].numpy(), V[:, -d:].numpy()))),
        float(torch.linalg.eigvalsh(second - first).abs().max()),
        float(before[-d] - before[-d - 1]),
        float(after[-d] - after[-d - 1]),
        float(before[-1]),
        float(second.trace() / first.trace()),
    )


def rotations(joint: JointGram, d: int) -> Iterator[Rotation | None]:
    """The rotation at every module or site."""
    return (rotation(joint, index, d) for index in range(len(joint.first)))
