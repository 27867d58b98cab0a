"""Sum, scale, inner product, norm and singular values: in factors as in dense matrices."""

import math

import pytest
import torch
from torch import Tensor

from tiltmeter.errors import InputError
from tiltmeter.updates.delta import Dense, LowRank
from tiltmeter.updates.update import Update

SHAPES = {"wide": (5, 9), "tall": (8, 4), "other": (3, 3)}


def factors(seed: int, rank: int = 2, dtype: torch.dtype = torch.float64) -> dict[str, tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    return {name: (normal(o, rank), normal(rank, i)) for name, (o, i) in SHAPES.items()}


def dense(update: Update) -> Update:
    return Update.from_tensors({name: delta.dense() for name, delta in update.items()})


ONE, TWO = Update.from_tensors(factors(1)), Update.from_tensors(factors(2, rank=3))


@pytest.mark.parametrize("other", [TWO, dense(TWO)], ids=["factored", "dense"])
def test_factored_equals_dense(other: Update) -> None:
    assert ONE.inner(other) == pytest.approx(dense(ONE).inner(dense(other)), rel=1e-12)
    assert other.inner(ONE) == pytest.approx(ONE.inner(other), rel=1e-12)
    assert ONE.norm() == pytest.approx(dense(ONE).norm(), rel=1e-12)
    assert ONE.norm() == pytest.approx(math.sqrt(ONE.inner(ONE)), rel=1e-12)
    combined, truth = 2.0 * ONE - other * 0.5, 2.0 * dense(ONE) - dense(other) * 0.5
    for name in SHAPES:
        assert torch.allclose(combined[name].dense(), truth[name].dense(), rtol=0, atol=1e-12)


def test_sums_of_factors_stay_factored() -> None:
    combined = (ONE + TWO)["wide"]
    assert isinstance(combined, LowRank)
    assert combined.rank == 5
    assert isinstance((ONE + dense(TWO))["wide"], Dense)


@pytest.mark.parametrize("update", [ONE, ONE + TWO, dense(TWO)], ids=["low rank", "rank above the width", "dense"])
def test_singular_values_are_those_of_the_matrix(update: Update) -> None:
    for delta in update.values():
        truth = torch.linalg.svdvals(delta.dense())
        found = delta.singular_values()
        torch.testing.assert_close(found, truth[: len(found)], rtol=1e-12, atol=1e-12)
        assert truth[len(found) :].sum() < 1e-12


def test_gauge_of_the_factors_does_not_matter() -> None:
    G = torch.randn(2, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    turned = Update.from_tensors(
        {name: (left @ torch.linalg.inv(G), G @ right) for name, (left, right) in factors(1).items()}
    )
    assert turned.inner(TWO) == pytest.approx(ONE.inner(TWO), rel=1e-10)
    assert turned.norm() == pytest.approx(ONE.norm(), rel=1e-12)
    assert (turned - ONE).norm() < 1e-12 * ONE.norm()


def test_norm_keeps_its_digits_where_the_columns_cancel() -> None:
    left, right = factors(1)["wide"]
    step = 1e-9 * torch.ones_like(right)
    small = LowRank(torch.cat([left, -left], dim=1), torch.cat([right + step, right]))
    assert small.norm() == pytest.approx(float(torch.linalg.norm(left @ step)), rel=1e-5)


def test_half_precision_is_accumulated_in_float64() -> None:
    half = Update.from_tensors(factors(1, dtype=torch.bfloat16))
    exact = half.map(lambda _, delta: delta.map(torch.Tensor.double))
    assert half.inner(half) == pytest.approx(exact.inner(exact), rel=1e-12)


def test_modules_on_one_side_only() -> None:
    part = Update.from_tensors({"wide": factors(1)["wide"]})
    assert (ONE - part).norm() == pytest.approx(math.hypot(ONE["tall"].norm(), ONE["other"].norm()))
    assert (part - ONE).keys() == SHAPES.keys()
    assert part.inner(ONE) == pytest.approx(part.norm() ** 2)


def test_what_is_not_covered_is_bounded_in_sums() -> None:
    one, two = Update({}, not_covered={"norm": 3.0}), Update({}, not_covered={"norm": 1.0, "bias": 2.0})
    assert (one - 2.0 * two).not_covered == {"norm": 5.0, "bias": 4.0}


def test_deltas_are_made_when_asked_for() -> None:
    made: list[str] = []

    def make() -> Dense:
        made.append("once")
        return Dense(torch.ones(2, 2))

    update = 3.0 * Update({"a": make})
    assert not made
    assert update.norm() == 6.0
    loaded = update.loaded()
    count = len(made)
    assert loaded.norm() == loaded.norm() == 6.0
    assert len(made) == count


BAD = {
    "vector": (torch.ones(3), "module a: expected a matrix"),
    "factors that do not fit": ((torch.ones(3, 2), torch.ones(3, 3)), r"module a: expected factors .*\(3, 2\)"),
    "NaN": (torch.full((2, 2), torch.nan), "module a: .*NaN or Inf"),
    "Inf in a factor": ((torch.ones(3, 2), torch.full((2, 3), torch.inf)), "module a: .*NaN or Inf"),
}


@pytest.mark.parametrize(("tensor", "message"), BAD.values(), ids=BAD.keys())
def test_bad_tensors_are_named(tensor: Tensor | tuple[Tensor, Tensor], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Update.from_tensors({"a": tensor})


@pytest.mark.parametrize("combine", [lambda a, b: (a + b)["a"], lambda a, b: a.inner(b)], ids=["sum", "inner product"])
def test_shapes_that_differ_are_named(combine) -> None:  # type: ignore[no-untyped-def]
    one = Update.from_tensors({"a": torch.ones(2, 3)})
    with pytest.raises(InputError, match=r"module a: .*\(2, 3\) and \(3, 2\)"):
        combine(one, Update.from_tensors({"a": torch.ones(3, 2)}))
