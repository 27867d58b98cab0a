"""Which layers write into the residual stream, and the share of their change along a direction, by dense SVD."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from transformers import AutoModelForCausalLM, OPTConfig

import tiny
from tiltmeter.activations.writing import residual_writers, written_share, written_shares
from tiltmeter.errors import InputError
from tiltmeter.layers import weight_of
from tiltmeter.models import Model, assemble
from tiltmeter.updates.update import Update

WRITERS = {
    "llama": ["self_attn.o_proj", "mlp.down_proj"],
    "qwen3": ["self_attn.o_proj", "mlp.down_proj"],
    "gemma2": ["self_attn.o_proj", "mlp.down_proj"],
    "gpt2": ["attn.c_proj", "mlp.c_proj"],
    "gpt_neox": ["attention.dense", "mlp.dense_4h_to_h"],
    "qwen3_moe": ["self_attn.o_proj"],
}


@pytest.mark.parametrize("family", tiny.CONFIGS)
def test_writers_are_found_by_structure(family: str) -> None:
    model = tiny.model(family)
    expected = {block: [f"{block}.{name}" for name in WRITERS[family]] for block in model.blocks}
    assert residual_writers(model) == expected
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in model.module.modules())


def flat_model() -> Model:
    """A model whose blocks hold the two layers of the MLP themselves."""
    config = OPTConfig(
        vocab_size=28, hidden_size=16, word_embed_proj_dim=16, ffn_dim=24, num_hidden_layers=2, num_attention_heads=4
    )
    return assemble(AutoModelForCausalLM.from_config(config), tiny.tokenizer())


def test_linear_layers_directly_below_a_block_are_one_part_of_it() -> None:
    model = flat_model()
    assert residual_writers(model) == {block: [f"{block}.self_attn.out_proj", f"{block}.fc2"] for block in model.blocks}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


CHANGES: dict[str, Tensor | tuple[Tensor, Tensor]] = {
    "dense": normal(40, 60),
    "dense, wide": normal(200, 700) * torch.logspace(0, -3, 700, dtype=torch.float64),
    "low rank": (normal(40, 5) * torch.tensor([9.0, 4, 2, 1, 1]), normal(5, 60, seed=1)),
    "rank below its factors": (normal(40, 3).repeat(1, 4), normal(12, 60, seed=1)),
    "columns that cancel": (
        torch.cat([normal(40, 2), -normal(40, 2) * (1 + 1e-6)], 1),
        torch.cat([normal(2, 60, seed=1)] * 2),
    ),
}


def dense(change: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    return change if isinstance(change, Tensor) else change[0] @ change[1]


def truth(change: Tensor | tuple[Tensor, Tensor], direction: Tensor, k: int = 8) -> tuple[float, float, float, int]:
    """(share, first cosine, span cosine, k)"""
    U, values, _ = torch.linalg.svd(dense(change))
    k = min(k, int((values > 1e-9 * values[0]).sum()))
    cosines = (U.T @ direction / direction.norm())[: len(values)]
    share = (values.square() * cosines.square()).sum() / values.square().sum()
    return float(share), float(cosines[0].abs()), float(cosines[:k].norm()), k


@pytest.mark.parametrize("case", CHANGES)
def test_shares_and_cosines_equal_those_of_a_dense_svd(case: str) -> None:
    change = CHANGES[case]
    direction = 7 * dense(change)[:, 0] + normal(len(dense(change)), seed=5)
    found = written_share(Update.from_tensors({"a": change}), "a", direction)
    share, first, span, k = truth(change, direction)
    # The leading directions of a large dense change are found to 1e-3, see `thin`.
    tolerance = 2e-3 if case == "dense, wide" else 1e-7
    assert found.components == k
    assert found.share == pytest.approx(share, rel=1e-8)
    assert found.first_cosine == pytest.approx(first, abs=tolerance)
    assert found.span_cosine == pytest.approx(span, abs=tolerance)
    assert found.chance == 1 / len(direction)


def test_a_direction_that_the_update_writes_alone_has_the_whole_share() -> None:
    v = normal(40)
    found = written_share(Update.from_tensors({"a": (v[:, None] * 2, normal(1, 60))}), "a", -3 * v)
    for figure in (found.share, found.first_cosine, found.span_cosine):
        assert figure == pytest.approx(1, abs=1e-12)
    across = normal(40, seed=1)
    across -= (across @ v) / (v @ v) * v
    beside = written_share(Update.from_tensors({"a": (v[:, None], normal(1, 60))}), "a", across)
    assert max(beside.share, beside.first_cosine, beside.span_cosine) < 1e-12


def test_shares_over_an_orthonormal_basis_add_up_to_one() -> None:
    update = Update.from_tensors({"a": CHANGES["low rank"]})
    basis = torch.linalg.qr(normal(40, 40, seed=2)).Q
    assert sum(written_share(update, "a", basis[:, column]).share for column in range(40)) == pytest.approx(
        1, rel=1e-12
    )


def test_chance_of_rank_one_is_a_beta_distribution() -> None:
    found = written_share(Update.from_tensors({"a": (normal(40, 1), normal(1, 60))}), "a", normal(40, seed=1))
    exact = float(stats.beta.ppf(0.95, 0.5, 39 / 2))
    below = stats.beta.cdf(found.chance_high, 0.5, 39 / 2)
    assert below == pytest.approx(0.95, abs=0.02)  # three standard errors of 1,000 draws
    assert found.first_cosine_high == pytest.approx(exact**0.5, rel=1e-12)


def test_chance_is_that_of_the_same_spectrum_with_random_left_directions() -> None:
    change = CHANGES["low rank"]
    found = written_share(Update.from_tensors({"a": change}), "a", normal(40, seed=1))
    values = torch.linalg.svdvals(dense(change)).numpy()
    rng = np.random.default_rng(0)
    shares, spans = [], []
    for _ in range(4000):  # left frames drawn anew, the direction kept
        U = np.linalg.qr(rng.standard_normal((40, 5)))[0]
        shares.append((values[:5] ** 2 * U[0] ** 2).sum() / (values**2).sum())
        spans.append(np.linalg.norm(U[0]))
    assert np.mean(shares) == pytest.approx(found.chance, rel=0.05)
    assert np.mean(np.array(shares) < found.chance_high) == pytest.approx(0.95, abs=0.025)
    assert np.mean(np.array(spans) < found.span_cosine_high) == pytest.approx(0.95, abs=0.012)
    assert found.components == 5


def test_factors_give_what_their_product_gives() -> None:
    change, direction = CHANGES["low rank"], normal(40, seed=1)
    one = written_share(Update.from_tensors({"a": change}), "a", direction)
    other = written_share(Update.from_tensors({"a": dense(change)}), "a", direction)
    assert vars(one) == pytest.approx(vars(other), rel=1e-9)


def test_half_precision_is_measured_as_it_stands() -> None:
    change = normal(40, 60).bfloat16()
    found = written_share(Update.from_tensors({"a": change}), "a", normal(40, seed=1).bfloat16())
    share, *_ = truth(change.double(), normal(40, seed=1).bfloat16().double())
    assert found.share == pytest.approx(share, rel=1e-12)


def test_every_block_has_its_own_direction() -> None:
    model = tiny.model("llama")
    writers = residual_writers(model)
    names = [writers["model.layers.0"][0], *writers["model.layers.1"]]
    update = Update.from_tensors({n: normal(*weight_of(model.linears[n]).shape, seed=s) for s, n in enumerate(names)})
    directions = {block: normal(16, seed=seed) for seed, block in enumerate(model.blocks, 7)}
    found = written_shares(update, writers, directions)
    assert {block: list(shares) for block, shares in found.items()} == {
        "model.layers.0": names[:1],
        "model.layers.1": names[1:],
    }
    assert found["model.layers.1"][names[2]] == written_share(update, names[2], directions["model.layers.1"])
    with pytest.raises(InputError, match="no layer that writes"):
        written_shares(Update.from_tensors({"elsewhere": torch.ones(2, 2)}), writers, directions)


def test_what_is_refused() -> None:
    update = Update.from_tensors({"a": torch.ones(3, 2), "still": torch.zeros(3, 2)})
    with pytest.raises(InputError, match="module b: the update does not change it"):
        written_share(update, "b", torch.ones(3))
    with pytest.raises(InputError, match="module a: writes 3 numbers, the direction has 4"):
        written_share(update, "a", torch.ones(4))
    with pytest.raises(InputError, match="module still: its change is zero"):
        written_share(update, "still", torch.ones(3))
    for direction, norm in ((torch.zeros(3), "0.0"), (torch.tensor([1.0, torch.nan, 0]), "nan")):
        with pytest.raises(InputError, match=f"the direction has norm {norm}"):
            written_share(update, "a", direction)
