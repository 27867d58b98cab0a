"""Spectra against dense Fisher matrices and closed forms, in float64."""

import numpy as np
import pytest
import torch
from torch import Tensor

import tiny
from tiltmeter.curvature.fisher import Fisher
from tiltmeter.curvature.nulls import flat_energy, flat_loss
from tiltmeter.curvature.sites import pooled, sites
from tiltmeter.curvature.spectrum import Spectrum, against_size, equalised, halvings, jackknife, spectrum
from truth import example_gradients, float64_throughout


@pytest.fixture(scope="module")
def fisher() -> Fisher:
    return Fisher(tiny.model("llama", torch.float64), tiny.skill())


@pytest.fixture(scope="module")
def gradients(fisher: Fisher) -> dict[str, Tensor]:
    """[N, o i] per module."""
    with float64_throughout():
        fisher.gram()
        found = example_gradients(fisher.model, fisher.encoded)
    return {name: torch.stack([g[name].flatten() for g in found]) for name in fisher.modules}


def gaussian_gram(examples: int, scales: Tensor, seed: int = 0) -> Tensor:
    """Of gradients with independent coordinates of these standard deviations."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(examples, len(scales), generator=generator, dtype=torch.float64) * scales
    return rows @ rows.T / examples


def test_spectra_of_sites_are_those_of_the_dense_fisher(fisher: Fisher, gradients: dict[str, Tensor]) -> None:
    places = sites(fisher)
    assert [site.scope for site in places] == ["all", "block", "block"] + ["module"] * 14
    for site, gram in zip(places, pooled(fisher.gram(), places), strict=True):
        G = torch.cat([gradients[fisher.modules[m]] for m in site.members], dim=1)
        assert G.shape[1] == site.size
        dense = torch.from_numpy(np.linalg.svd(G.numpy() / len(fisher) ** 0.5, compute_uv=False)).square()
        found = spectrum(gram)
        torch.testing.assert_close(found.eigenvalues, dense, rtol=1e-8, atol=1e-12 * float(dense[0]))
        assert found.trace == pytest.approx(float(G.square().sum()) / len(fisher))
        assert found.participation_ratio == pytest.approx(float(dense.sum() ** 2 / dense.square().sum()))
    assert [site.block for site in places[:3]] == [None, 0, 1]
    assert places[3].name == fisher.modules[0]


def test_figures_of_a_known_spectrum() -> None:
    known = Spectrum(torch.tensor([8.0, 4.0, 4.0, 0.0], dtype=torch.float64))
    assert (known.at(1), known.at(2), known.at(4), known.at(9)) == (8, 4, 0, 0)
    assert (known.tail(1), known.tail(3), known.tail(9)) == (8, 0, 0)
    assert (known.tail_share(1), known.top_share(1), known.top_share(3)) == (0.5, 0.5, 1.0)
    assert known.participation_ratio == pytest.approx(256 / 96)
    nothing = Spectrum(torch.zeros(3, dtype=torch.float64))
    assert (nothing.participation_ratio, nothing.top_share(1), nothing.tail_share(1)) == (0, 0, 0)


def test_equalised_is_the_matrix_of_cosines(gradients: dict[str, Tensor]) -> None:
    G = next(iter(gradients.values())).clone()
    G[2] = 0
    found = equalised(G @ G.T / len(G))
    expected = torch.nn.functional.normalize(G, dim=1)
    torch.testing.assert_close(found, expected @ expected.T, rtol=1e-10, atol=1e-12)
    assert spectrum(found).trace == pytest.approx(len(G) - 1)


def test_lengths_alone_do_not_look_sharp_once_they_are_equalised() -> None:
    gram = gaussian_gram(20, torch.ones(5000))
    lengths = torch.logspace(0, 3, 20, dtype=torch.float64)
    scaled = gram * lengths[:, None] * lengths[None]
    assert spectrum(scaled).participation_ratio < 4
    assert spectrum(equalised(scaled)).participation_ratio == pytest.approx(20, rel=0.02)


def test_against_size_equals_sub_samples_of_the_gradients(gradients: dict[str, Tensor]) -> None:
    G = next(iter(gradients.values()))
    gram = G @ G.T / len(G)
    whole, small = against_size(gram, [5, 2], 1, draws=200, seed=3)
    assert whole.participation_ratios.tolist() == pytest.approx([spectrum(gram).participation_ratio] * 200)
    possible = [spectrum(G[[a, b]] @ G[[a, b]].T / 2) for a in range(5) for b in range(a)]
    for found, figures in (
        (small.participation_ratios, [each.participation_ratio for each in possible]),
        (small.top_shares, [each.top_share(1) for each in possible]),
    ):
        distances = (found[:, None] - torch.tensor(figures, dtype=torch.float64)[None]).abs().min(dim=1).values
        assert distances.max() < 1e-10
        assert len({round(float(value), 9) for value in found}) == 10  # every pair was drawn
    again = against_size(gram, [2], 1, draws=200, seed=4)[0]
    assert again.participation_ratios.tolist() != small.participation_ratios.tolist()


def test_a_flat_model_grows_with_n_and_a_low_rank_one_does_not() -> None:
    flat = against_size(gaussian_gram(64, torch.ones(20_000)), [16, 64], 4)
    low = against_size(gaussian_gram(64, torch.ones(2)), [16, 64], 4)
    assert float(flat[1].participation_ratios.mean() / flat[0].participation_ratios.mean()) == pytest.approx(
        4, rel=0.05
    )
    assert float(low[1].participation_ratios.mean()) == pytest.approx(2, rel=0.1)


def test_halvings_end_at_the_count() -> None:
    assert halvings(96, 8) == [12, 24, 48, 96]
    assert halvings(5, 1) == [2, 5]
    assert halvings(3, 3) == [3]


def test_the_jackknife_interval_has_the_spread_of_new_samples() -> None:
    scales = torch.linspace(0.1, 1, 30, dtype=torch.float64)
    grams = [gaussian_gram(100, scales, seed) for seed in range(200)]

    def ratio(each: Spectrum) -> float:
        return each.participation_ratio

    spread = float(np.std([ratio(spectrum(gram)) for gram in grams]))
    intervals = [jackknife(gram, ratio, (1.0, 100.0)) for gram in grams[:50]]
    widths = [(interval.high - interval.low) / (2 * 1.96) for interval in intervals]
    assert float(np.mean(widths)) == pytest.approx(spread, rel=0.25)
    assert intervals[0].mean == ratio(spectrum(grams[0]))
    cut = jackknife(grams[0], ratio, (intervals[0].mean - 0.01, 100.0))
    assert (cut.low, cut.high) == (intervals[0].mean - 0.01, intervals[0].high)


def test_the_flat_null_is_what_random_directions_do() -> None:
    generator = torch.Generator().manual_seed(0)
    G = torch.randn(6, 40, generator=generator, dtype=torch.float64)
    F = G.T @ G / 6
    directions = torch.randn(200_000, 40, generator=generator, dtype=torch.float64)
    directions *= 0.3 / directions.norm(dim=1, keepdim=True)
    losses = ((directions @ F) * directions).sum(1) / 2
    error = float(losses.std()) / len(losses) ** 0.5
    assert flat_loss(float(F.trace()), 40, 0.3) == pytest.approx(float(losses.mean()), abs=4 * error)
    top = torch.linalg.eigh(F).eigenvectors[:, -3:]
    shares = (directions @ top).square().sum(1) / 0.3**2
    error = float(shares.std()) / len(shares) ** 0.5
    assert flat_energy(3, 40) == pytest.approx(float(shares.mean()), abs=4 * error)
