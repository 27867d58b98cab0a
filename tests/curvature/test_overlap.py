"""Overlap, floor, nulls and projection against dense matrices and closed forms, in float64."""

import pytest
import torch
from torch import Tensor

import tiny
from tiltmeter.curvature.fisher import Fisher
from tiltmeter.curvature.nulls import dense_null, same_rank_null
from tiltmeter.curvature.overlap import overlap_score, overlap_scores
from tiltmeter.curvature.projection import projected_scores
from tiltmeter.errors import InputError
from tiltmeter.layers import widths
from tiltmeter.updates.nulls import dense_same_norm
from tiltmeter.updates.update import Update
from truth import example_gradients, float64_throughout


@pytest.fixture(scope="module")
def fisher() -> Fisher:
    return Fisher(tiny.model("llama", torch.float64), tiny.skill())


@pytest.fixture(scope="module")
def update(fisher: Fisher) -> Update:
    """Rank two, and nothing in one module."""
    generator = torch.Generator().manual_seed(3)
    shapes = {name: widths(fisher.model.linears[name]) for name in fisher.modules[:-1]}
    return Update.from_tensors(
        {
            name: (
                torch.randn(o, 2, generator=generator, dtype=torch.float64) / 9,
                torch.randn(2, i, generator=generator, dtype=torch.float64),
            )
            for name, (o, i) in shapes.items()
        }
    )


def dense_fisher(fisher: Fisher) -> tuple[Tensor, list[slice]]:
    """F over all modules as a matrix, and the place of each module in it."""
    gradients = example_gradients(fisher.model, fisher.encoded)
    flat = torch.stack([torch.cat([g[name].flatten() for name in fisher.modules]) for g in gradients])
    ends = torch.tensor([gradients[0][name].numel() for name in fisher.modules]).cumsum(0).tolist()
    return flat.T @ flat / len(fisher), [slice(a, b) for a, b in zip([0, *ends], ends, strict=False)]


def flatten(fisher: Fisher, update: Update) -> Tensor:
    zero = {name: torch.zeros(widths(fisher.model.linears[name])).double() for name in fisher.modules}
    return torch.cat([(update[n].dense() if n in update else zero[n]).flatten() for n in fisher.modules])


def test_overlap_equals_the_dense_quadratic_form(fisher: Fisher, update: Update) -> None:
    with float64_throughout():
        F, places = dense_fisher(fisher)
        score = overlap_score(fisher, update)
    v = flatten(fisher, update)
    assert score.exact == pytest.approx(float(v @ F @ v), rel=1e-6)
    assert score.normalised == pytest.approx(float(v @ F @ v / (v @ v * F.trace())), rel=1e-6)
    assert score.normalised_by_top == pytest.approx(float(v @ F @ v / (v @ v * torch.linalg.eigvalsh(F)[-1])), rel=1e-6)
    assert score.floor(512) == pytest.approx(float(v @ v * F.trace() / 512), rel=1e-6)
    for m, place in enumerate(places):
        part = v[place]
        exact = float(part @ F[place, place] @ part)
        assert float(score.exact_by_module[m]) == pytest.approx(exact, rel=1e-6, abs=1e-15)
        scale = float(part @ part * F[place, place].trace())
        assert float(score.normalised_by_module[m]) == pytest.approx(exact / scale if scale else 0.0, rel=1e-6)


def test_block_means_are_means_over_the_blocks_modules(fisher: Fisher, update: Update) -> None:
    score = overlap_score(fisher, update)
    assert score.block_means[0] == pytest.approx(float(score.exact_by_module[:7].mean()))
    assert list(score.block_means) == [0, 1]


def test_the_overlap_scales_with_the_square_and_its_normalised_form_not_at_all(fisher: Fisher, update: Update) -> None:
    one, three = overlap_scores(fisher, [update, 3 * update])
    assert three.exact == pytest.approx(9 * one.exact, rel=1e-6)
    assert three.normalised == pytest.approx(one.normalised, rel=1e-6)


def first_eigenvector(fisher: Fisher) -> Update:
    values, vectors = torch.linalg.eigh(fisher.gram().sum(0))
    gradients = example_gradients(fisher.model, fisher.encoded)
    scale = float(len(fisher) * values[-1]) ** 0.5
    return Update.from_tensors(
        {
            name: torch.stack([vectors[n, -1] * g[name] for n, g in enumerate(gradients)]).sum(0) / scale
            for name in fisher.modules
        }
    )


def test_an_eigenvector_has_normalised_by_top_of_one(fisher: Fisher) -> None:
    top = first_eigenvector(fisher)
    assert top.norm() == pytest.approx(1.0, rel=1e-5)
    assert overlap_score(fisher, top).normalised_by_top == pytest.approx(1.0, rel=1e-5)


def test_the_dense_null_is_that_of_sampled_directions(fisher: Fisher, update: Update) -> None:
    score = overlap_score(fisher, update)
    null = dense_null(fisher, score, draws=20_000)
    sizes = [o * i for o, i in (widths(fisher.model.linears[name]) for name in fisher.modules)]
    mean = sum(float(n) ** 2 * float(t) / size for n, t, size in zip(score.norms, score.traces, sizes, strict=True))
    assert null.mean == pytest.approx(mean, rel=0.03)
    sampled = fisher.coordinates([dense_same_norm(update, seed) for seed in range(400)]).sum(1).square().mean(1)
    assert float(sampled.mean()) == pytest.approx(null.mean, rel=0.2)
    assert float(sampled.quantile(0.95)) == pytest.approx(null.p95, rel=0.3)


def test_the_same_rank_null_has_the_dense_nulls_mean(fisher: Fisher, update: Update) -> None:
    null = same_rank_null(fisher, update, draws=400)
    assert null.mean == pytest.approx(dense_null(fisher, overlap_score(fisher, update), 20_000).mean, rel=0.2)


def test_projection_adds_the_noise_floor_and_no_less(fisher: Fisher, update: Update) -> None:
    score = overlap_score(fisher, update)
    k = 16
    scores = torch.stack([projected_scores(fisher, [update], k, seed).total for seed in range(200)])
    expected = score.exact * (1 + 1 / k) + score.floor(k)
    assert float(scores.mean()) == pytest.approx(expected, abs=4 * float(scores.std()) / 200**0.5)


def test_projection_finds_an_overlap_far_above_its_floor(fisher: Fisher) -> None:
    top = first_eigenvector(fisher)
    score = overlap_score(fisher, top)
    assert score.exact > 100 * score.floor(4096)
    projected = projected_scores(fisher, [top, 2 * top], k=4096)
    assert float(projected.total[0]) == pytest.approx(score.exact, rel=0.1)
    assert float(projected.total[1]) == pytest.approx(4 * float(projected.total[0]), rel=1e-6)
    assert float(projected.unnormalised[0]) == pytest.approx(float(projected.total[0]) * 4096**2)


def test_projection_does_not_depend_on_memory_or_batches(fisher: Fisher, update: Update) -> None:
    tight = Fisher(fisher.model, tiny.skill(), batch_size=2, memory=3000)
    a, b = (projected_scores(f, [update], k=8) for f in (fisher, tight))
    torch.testing.assert_close(a.by_module, b.by_module, rtol=1e-5, atol=0)


def test_an_update_that_is_zero_where_it_is_measured_is_an_error(fisher: Fisher) -> None:
    name = fisher.modules[0]
    with pytest.raises(InputError, match="zero in every module"):
        overlap_score(fisher, Update.from_tensors({name: torch.zeros(widths(fisher.model.linears[name]))}))
