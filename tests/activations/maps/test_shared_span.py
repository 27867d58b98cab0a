"""Spans against dense truths: what they hold, what becomes of them, and what chance would hold."""

from collections.abc import Callable

import numpy as np
import pytest
import scipy.linalg
import torch
from scipy import stats
from torch import Tensor

from paired_activations import rotation
from tiltmeter.activations.maps.linear_map import LinearMap
from tiltmeter.activations.maps.shared_span import captured_share, carry_span, held_out_share, leading_span, random_span
from tiltmeter.activations.steering import ablation
from tiltmeter.errors import InputError

N, WIDTH = 20, 9


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


BASE = 3 * normal(N, WIDTH, seed=1) + 5
TUNED = BASE + normal(WIDTH, seed=2) + normal(N, WIDTH, seed=3) * torch.logspace(0.3, -1, WIDTH, dtype=torch.float64)


def projector(span: Tensor) -> Tensor:
    return span.T @ span


def close(one: Tensor, other: Tensor, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=tolerance)


def orthonormal(span: Tensor) -> None:
    close(span @ span.mT, torch.eye(span.shape[-2], dtype=torch.float64).expand(*span.shape[:-1], -1))


def a_map(matrix: Tensor) -> LinearMap:
    t, s = matrix.shape
    return LinearMap(matrix, torch.zeros(s).double(), torch.ones(t).double(), "given")


@pytest.mark.parametrize("k", [1, 2, 4, WIDTH])
def test_a_leading_span_is_that_of_the_dense_scatter_off_the_mean_difference(k: int) -> None:
    delta = (TUNED - BASE).numpy()
    v = delta.mean(0)
    u = v / np.linalg.norm(v)
    off = np.eye(WIDTH) - np.outer(u, u)
    vectors = np.linalg.eigh(off @ np.cov(delta, rowvar=False) @ off)[1][:, ::-1]
    expected = np.concatenate([u[None], vectors[:, : k - 1].T])
    found = leading_span(BASE, TUNED, k)
    orthonormal(found)
    close(found[0], torch.from_numpy(u))
    close((found * torch.from_numpy(expected)).sum(1).abs(), torch.ones(k, dtype=torch.float64), 1e-10)
    assert (found[1:].gather(1, found[1:].abs().argmax(1, keepdim=True)) > 0).all()
    close(found, leading_span(BASE, TUNED, WIDTH)[:k])


def test_no_span_with_the_mean_difference_holds_more() -> None:
    found, delta = leading_span(BASE, TUNED, 3), (TUNED - BASE).numpy()
    off = delta - delta @ projector(found[:1]).numpy()
    most = float((delta @ found[0].numpy()) @ (delta @ found[0].numpy())) + np.linalg.eigvalsh(off.T @ off)[-2:].sum()
    held = captured_share(found, BASE, TUNED)
    assert held == pytest.approx(most / (delta**2).sum(), rel=1e-12)
    for seed in range(50):
        other = torch.linalg.qr(torch.cat([found[:1], found[1:] + 0.3 * normal(2, WIDTH, seed=seed)]).T).Q.T
        assert captured_share(other, BASE, TUNED) < held


def test_a_span_depends_on_the_differences_alone_and_turns_with_them() -> None:
    span, order, Q = leading_span(BASE, TUNED, 3), torch.randperm(N), rotation(WIDTH, 0)
    shared = 10 * normal(N, WIDTH, seed=7)
    for base, tuned in ((BASE[order], TUNED[order]), (BASE + shared, TUNED + shared), (4 * BASE, 4 * TUNED)):
        close(leading_span(base, tuned, 3), span, 1e-11)
    close(projector(leading_span(BASE @ Q, TUNED @ Q, 3)), Q.T @ projector(span) @ Q, 1e-11)


def test_planted_directions_are_found() -> None:
    planted = torch.linalg.qr(normal(40, 3)).Q.T
    weights = normal(30, 3, seed=1) * torch.tensor([0.0, 3.0, 2.0]) + torch.tensor([4.0, 0.0, 0.0])
    base = normal(30, 40, seed=2)
    found = leading_span(base, base + weights @ planted + 1e-6 * normal(30, 40, seed=3), 3)
    close(projector(found), projector(planted), 1e-5)


def test_more_directions_than_the_differences_span_are_refused() -> None:
    few, more = BASE[:4], BASE[:4] + normal(4, WIDTH)
    orthonormal(leading_span(few, more, 4))
    with pytest.raises(InputError, match=r"here: expected 1 to 4 directions, which the pairs' differences span, got 5"):
        leading_span(few, more, 5, "here")
    one = BASE + normal(WIDTH)
    assert leading_span(BASE, one, 1).shape == (1, WIDTH)
    for k in (0, 2):
        with pytest.raises(InputError, match=f"expected 1 to 1 directions.*got {k}"):
            leading_span(BASE, one, k)
    no_mean = normal(N, WIDTH)
    with pytest.raises(InputError, match="expected 1 to 0 directions"):
        leading_span(BASE, BASE + no_mean - no_mean.mean(0), 1)


def test_a_carried_span_is_the_nearest_orthonormal_one_to_the_images() -> None:
    W, span = normal(7, WIDTH), random_span(3, WIDTH, 1)[0]
    expected = scipy.linalg.polar((span @ W.T).numpy())[0]
    close(carry_span(a_map(W), span), torch.from_numpy(expected))
    single = carry_span(a_map(W), span[:1])
    close(single[0], W @ span[0] / (W @ span[0]).norm())


def test_a_carried_span_does_not_depend_on_the_basis_and_a_rotation_carries_its_rows() -> None:
    W, span, Q = normal(7, WIDTH), random_span(3, WIDTH, 1)[0], rotation(3, 0)
    close(Q @ carry_span(a_map(W), span), carry_span(a_map(W), Q @ span))
    turn = rotation(WIDTH, 1)
    close(carry_span(a_map(5 * turn), span), span @ turn.T)


def test_a_span_that_the_map_flattens_is_refused() -> None:
    span = random_span(3, WIDTH, 1)[0]
    with pytest.raises(InputError, match="the given map sends 3 directions to a span of 2: carry fewer"):
        carry_span(a_map(normal(7, 2) @ normal(2, WIDTH)), span)
    blind = normal(7, WIDTH) @ (torch.eye(WIDTH, dtype=torch.float64) - projector(span))
    with pytest.raises(InputError, match="to a span of 0"):
        carry_span(a_map(blind), span)
    with pytest.raises(InputError, match="expected rows of width 9, the map's source, got 8"):
        carry_span(a_map(normal(7, WIDTH)), span[:, 1:])


def test_random_spans_are_uniform() -> None:
    k, draws = 3, 20000
    spans, v = random_span(k, WIDTH, draws), normal(WIDTH)
    orthonormal(spans)
    held = (spans @ (v / v.norm())).square()
    assert stats.kstest(held.sum(1).numpy(), stats.beta(k / 2, (WIDTH - k) / 2).cdf).pvalue > 0.01
    for row in range(k):
        assert stats.kstest(held[:, row].numpy(), stats.beta(0.5, (WIDTH - 1) / 2).cdf).pvalue > 0.01
    assert spans.mean(0).abs().max() < 5 / draws**0.5 / WIDTH**0.5
    full = random_span(2, 2, draws)
    assert abs(float((torch.linalg.det(full) > 0).double().mean()) - 0.5) < 0.02


def test_random_spans_depend_on_the_seed_alone() -> None:
    assert torch.equal(random_span(2, 5, 4, 3), random_span(2, 5, 4, 3))
    assert not torch.allclose(random_span(2, 5, 4, 3), random_span(2, 5, 4, 4))


def test_the_share_is_that_of_the_dense_projector_and_what_ablation_takes_away() -> None:
    span, delta = random_span(4, WIDTH, 1)[0], TUNED - BASE
    expected = float(torch.trace(delta @ projector(span) @ delta.T) / torch.trace(delta @ delta.T))
    assert captured_share(span, BASE, TUNED) == pytest.approx(expected, rel=1e-12)
    left = ablation(span)(delta).square().sum() / delta.square().sum()
    assert captured_share(span, BASE, TUNED) == pytest.approx(1 - float(left), rel=1e-12)
    assert captured_share(rotation(WIDTH, 0), BASE, TUNED) == pytest.approx(1, rel=1e-12)
    drawn = [captured_share(each, BASE, TUNED) for each in random_span(4, WIDTH, 500)]
    assert np.mean(drawn) == pytest.approx(4 / WIDTH, abs=5 * np.std(drawn) / len(drawn) ** 0.5)


def test_held_out_shares_are_those_of_spans_of_the_other_prompts() -> None:
    found = held_out_share(BASE, TUNED, 3, folds=N, seed=5)  # each prompt on its own: the folds are known
    delta, held = TUNED - BASE, np.zeros(3)
    for row in range(N):
        others = torch.arange(N) != row
        span = leading_span(BASE[others], TUNED[others], 3)
        held += [float((projector(span[:j]) @ delta[row]).square().sum()) for j in (1, 2, 3)]
    shares = held / float(delta.square().sum())
    assert found.shares == pytest.approx(shares, rel=1e-12)
    assert found.gains == pytest.approx([shares[0], shares[1] - shares[0], shares[2] - shares[1]], rel=1e-9)
    chance = [1 / WIDTH, (1 - shares[0]) / (WIDTH - 1), (1 - shares[1]) / (WIDTH - 2)]
    assert found.chance == pytest.approx(chance, rel=1e-12)


def test_directions_of_pure_noise_add_what_chance_adds_and_planted_ones_more() -> None:
    """Width 50, 40 prompts: in sample, noise always looks as if it had leading directions."""
    noise, planted, in_sample = [], [], []
    shift, way = 4 * rotation(50, 1)[0], rotation(50, 1)[1]
    for seed in range(40):
        base = normal(40, 50, seed=seed)
        tuned = base + shift + normal(40, 50, seed=1000 + seed)
        found = held_out_share(base, tuned, 3)
        noise.append(np.array(found.gains)[1:] / np.array(found.chance)[1:])
        more = held_out_share(base, tuned + 5 * torch.outer(normal(40, seed=2000 + seed), way), 3)
        planted.append(more.gains[1] / more.chance[1])
        shares = [captured_share(leading_span(base, tuned, k), base, tuned) for k in (1, 2)]
        in_sample.append((shares[1] - shares[0]) / found.chance[1])
    assert np.mean(noise, axis=0) == pytest.approx(1, abs=5 * np.std(noise) / len(noise) ** 0.5)
    assert min(in_sample) > 3
    assert min(planted) > 3 > np.max(noise)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: leading_span(BASE, TUNED[1:], 2), "expected the same prompts"),
        (lambda: leading_span(BASE, BASE, 2), "the adapter did nothing"),
        (lambda: held_out_share(BASE, TUNED, 0), "without fold 1: expected 1 to 9 directions.*got 0"),
        (lambda: held_out_share(BASE, TUNED, 2, folds=1), "expected 2 folds or more"),
        (lambda: held_out_share(BASE[:4], TUNED[:4], 4, folds=4), "without fold 1: expected 1 to 3 directions"),
        (lambda: captured_share(torch.eye(WIDTH)[:2, 1:], BASE, TUNED), "expected rows of width 9.*got 8"),
        (lambda: captured_share(2 * torch.eye(WIDTH)[:2], BASE, TUNED), "expected orthonormal rows"),
        (lambda: random_span(4, 3, 2), "draws of 1 to 3 directions in 3 dimensions, got 2 draws of 4"),
        (lambda: random_span(1, 3, 0), "got 0 draws of 1"),
        (lambda: random_span(0, 3, 2), "got 2 draws of 0"),
    ],
)
def test_what_cannot_be_used_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
