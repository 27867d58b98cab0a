"""Random nulls keep spectrum or norm, and depend on seed and module alone."""

import pytest
import torch

from tiltmeter.updates.delta import Dense, LowRank
from tiltmeter.updates.nulls import dense_same_norm, haar, same_spectrum
from tiltmeter.updates.update import Update


def observed() -> Update:
    generator = torch.Generator().manual_seed(0)
    return Update.from_tensors(
        {
            "low": (torch.randn(12, 3, generator=generator), torch.randn(3, 7, generator=generator)),
            "rank above the width": (torch.randn(4, 6, generator=generator), torch.randn(6, 9, generator=generator)),
            "tall": torch.randn(9, 5, generator=generator),
            "wide": torch.randn(5, 9, generator=generator),
        }
    )


def test_spectrum_is_kept() -> None:
    update, null = observed(), same_spectrum(observed(), seed=1)
    for name, delta in update.items():
        assert null[name].shape == delta.shape
        assert type(null[name]) is type(delta)
        torch.testing.assert_close(null[name].singular_values(), delta.singular_values(), rtol=1e-5, atol=1e-6)
        assert {tensor.dtype for tensor in null[name].tensors} == {torch.float32}


def test_norm_is_kept() -> None:
    update, null = observed(), dense_same_norm(observed(), seed=1)
    for name, delta in update.items():
        assert null[name].norm() == pytest.approx(delta.norm(), rel=1e-6)
        assert isinstance(null[name], Dense)
        assert null[name].shape == delta.shape


@pytest.mark.parametrize("null", [same_spectrum, dense_same_norm, Update.random_like])
def test_seed_and_name_decide_and_not_the_order(null) -> None:  # type: ignore[no-untyped-def]
    update = observed()
    there, back, other = null(update, 1), null(update, 1), null(update, 2)
    forth = {name: there[name].dense() for name in update}
    for name in reversed(list(update)):
        assert torch.equal(back[name].dense(), forth[name])
        assert not torch.allclose(other[name].dense(), forth[name])
    alone = null(Update({"low": update["low"]}), 1)
    assert torch.equal(alone["low"].dense(), forth["low"])
    twins = null(Update({"a": update["low"], "b": update["low"]}), 1)
    assert not torch.allclose(twins["a"].dense(), twins["b"].dense())


def test_orientation_is_uniform() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([haar(3, 2, generator) for _ in range(4000)])
    torch.testing.assert_close(draws.transpose(1, 2) @ draws, torch.eye(2).expand(4000, 2, 2), rtol=0, atol=1e-5)
    assert draws.mean(0).abs().max() < 0.05
    assert (draws.square().mean(0) - 1 / 3).abs().max() < 0.03


def test_null_of_low_rank_stays_in_factors() -> None:
    null = same_spectrum(observed())["low"]
    assert isinstance(null, LowRank)
    assert null.rank == 3


def test_nulls_list_nothing_as_not_covered() -> None:
    update = Update({"a": Dense(torch.ones(2, 2))}, "adapter", {"norm": 1.0})
    assert same_spectrum(update).not_covered == {}
    assert same_spectrum(update).kind == "null"
