"""The Procrustes map equals scipy's, and leaves at zero what the prompts do not determine."""

import pytest
import scipy.linalg
import torch
from torch import Tensor

from paired_activations import related, rotation
from tiltmeter.activations.maps.procrustes import fit_procrustes
from tiltmeter.errors import InputError

WIDTHS = {"equal": (7, 7), "wider target": (5, 8), "wider source": (8, 5)}
every_width = pytest.mark.parametrize(("s", "t"), WIDTHS.values(), ids=WIDTHS)


def scipys(source: Tensor, target: Tensor) -> Tensor:
    """Q [s, t] of the narrower side padded with zeros."""
    X, Y = source - source.mean(0), target - target.mean(0)
    s, t = X.shape[1], Y.shape[1]
    X, Y = (torch.nn.functional.pad(side, (0, max(s, t) - side.shape[1])) for side in (X, Y))
    return torch.from_numpy(scipy.linalg.orthogonal_procrustes(X.numpy(), Y.numpy())[0])[:s, :t]


@every_width
def test_a_scaled_rotation_is_recovered(s: int, t: int) -> None:
    source, _ = related(40, s, t)
    if s > t:  # exact for a white source only: what the target lacks must not pull at the rotation
        source = torch.linalg.qr(source - source.mean(0)).Q
    Q = rotation(max(s, t), 3)[:s, :t]
    found = fit_procrustes(source, 2.5 * source @ Q + 1)
    assert found.scale == pytest.approx(2.5, rel=1e-12)
    assert found.rank == min(s, t)
    assert (found.map.matrix - 2.5 * Q.T).abs().max() < 1e-12
    assert (found.map(source) - (2.5 * source @ Q + 1)).abs().max() < 1e-12


@every_width
def test_equals_scipy(s: int, t: int) -> None:
    source, target = related(40, s, t, noise=1)
    found = fit_procrustes(source, target)
    Q = scipys(source, target)
    assert (found.map.matrix - found.scale * Q.T).abs().max() < 1e-10
    turned, wanted = (side - side.mean(0) for side in (source @ Q, target))
    least_squares = scipy.linalg.lstsq(turned.reshape(-1, 1).numpy(), wanted.flatten().numpy())[0]
    assert found.scale == pytest.approx(float(least_squares[0]), rel=1e-12)


@every_width
def test_all_lengths_are_scaled_alike(s: int, t: int) -> None:
    found = fit_procrustes(*related(40, s, t, noise=1))
    W = found.map.matrix
    product = W @ W.T if t <= s else W.T @ W
    assert (product - found.scale**2 * torch.eye(min(s, t), dtype=torch.float64)).abs().max() < 1e-12
    assert found.map.effective_rank == pytest.approx(min(s, t), rel=1e-12)


def test_what_no_prompt_shows_goes_to_zero() -> None:
    source, target = related(6, 20, 15, noise=1)
    found = fit_procrustes(source, target)
    assert found.rank == 5
    seen = torch.linalg.svd(source - source.mean(0)).Vh
    assert found.map.carry(seen[5:]).abs().max() < 1e-12
    expected = seen[:5].T @ (seen[:5] @ scipys(source, target))
    assert (found.map.matrix.T / found.scale - expected).abs().max() < 1e-10


def test_what_is_not_correlated_goes_to_zero() -> None:
    _, one, two, three = torch.from_numpy(scipy.linalg.hadamard(4)).double().T
    found = fit_procrustes(torch.stack([one, two], 1), torch.stack([one, three], 1))
    assert found.rank == 1
    assert (found.map.matrix - torch.tensor([[1, 0], [0, 0]])).abs().max() < 1e-12
    with pytest.raises(InputError, match="do not vary together"):
        fit_procrustes(one[:, None], two[:, None])
