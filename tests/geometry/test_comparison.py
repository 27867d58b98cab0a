"""Figures from factors equal those of dense decompositions; what may not change them does not."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

import saved
from tiltmeter.errors import InputError
from tiltmeter.geometry.comparison import Comparison, compare
from tiltmeter.geometry.similarity import FIGURES, Dims
from tiltmeter.runs.compare_result import Figure
from tiltmeter.updates.delta import Dense
from tiltmeter.updates.update import Update

QV = ["q_proj", "v_proj"]
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {"target_modules": QV},
    "rsLoRA, unequal ranks": {"target_modules": QV, "use_rslora": True, "rank_pattern": {"v_proj": 2}},
    "DoRA": {"target_modules": QV, "use_dora": True},
    "PiSSA": {"target_modules": QV, "init_lora_weights": "pissa", "changes_base": True},
    "Conv1D": {"family": "gpt2", "fan_in_fan_out": True, "target_modules": ["c_attn", "c_fc"]},
    "layers saved whole": {"target_modules": QV, "modules_to_save": ["down_proj"]},
}
DIMS = Dims(components=3, angles=2, subspace=3)


def truth(one: Tensor, two: Tensor, dims: Dims) -> dict[str, float]:
    """Every figure from dense singular value decompositions in float64, by numpy and scipy."""
    a, b = one.double().numpy(), two.double().numpy()
    (ua, sa, va), (ub, sb, vb) = np.linalg.svd(a), np.linalg.svd(b)
    rank = min(np.linalg.matrix_rank(a), np.linalg.matrix_rank(b))
    found = {"cosine": float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))}
    for side, x, y in (("left", ua, ub), ("right", va.T, vb.T)):
        c, k, s = (min(wanted, rank) for wanted in (dims.components, dims.angles, dims.subspace))
        cosines = np.abs((x[:, :c] * y[:, :c]).sum(0))
        found[f"component_cosine_{side}"] = cosines.mean()
        angles = scipy.linalg.subspace_angles(x[:, :k], y[:, :k])
        found[f"angle_{side}"] = math.degrees(angles.mean())
        products = (x[:, :s].T @ y[:, :s]) ** 2
        found[f"overlap_{side}"] = products.sum() / s
        energy = np.outer(sa[:s] ** 2, sb[:s] ** 2)
        found[f"weighted_overlap_{side}"] = (products * energy).sum() / np.linalg.norm(energy)
    return found


def one_module(one: tuple[Tensor, Tensor] | Tensor, two: tuple[Tensor, Tensor] | Tensor, **options: Any) -> Comparison:
    return compare({"one": Update.from_tensors({"m": one}), "two": Update.from_tensors({"m": two})}, **options)


def values(found: Comparison, module: str = "m") -> dict[str, float]:
    (pair,) = found.pairs.values()
    return dict(zip(FIGURES, pair.modules[module].values.tolist(), strict=True))


def factors(o: int, r: int, i: int, seed: int, decay: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(o, r, generator=generator, dtype=torch.float64) * decay ** torch.arange(r)
    return left, torch.randn(r, i, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
def test_every_variant_equals_dense_decompositions(config: dict[str, Any], tmp_path: Path) -> None:
    changes = []
    updates = {}
    for seed in (1, 2):
        folder = tmp_path / str(seed)
        changes.append(saved.adapter(folder, seed=seed, **config))
        initial = folder / "initial" if "changes_base" in config else None
        updates[str(seed)] = Update.from_adapter(folder / "adapter", folder / "base", initial)
    found = compare(updates, dims=DIMS, draws=2)
    linears = saved.linears(saved.model(config.get("family", "llama")))
    modules = [name.removesuffix(".weight") for name in changes[0] if name in linears]

    assert set(found.pairs["1", "2"].modules) == set(modules)
    for module in modules:
        expected = truth(changes[0][f"{module}.weight"], changes[1][f"{module}.weight"], DIMS)
        assert values(found, module) == pytest.approx(expected, rel=1e-10, abs=1e-10), module


@pytest.mark.parametrize("ranks", [(3, 5), (1, 4), (6, 6)])
def test_unequal_ranks_and_dense_changes(ranks: tuple[int, int]) -> None:
    one, two = factors(9, ranks[0], 7, 1), factors(9, ranks[1], 7, 2)
    expected = truth(one[0] @ one[1], two[0] @ two[1], DIMS)

    assert values(one_module(one, two, dims=DIMS, draws=2)) == pytest.approx(expected, rel=1e-10, abs=1e-10)
    assert values(one_module(one[0] @ one[1], two, dims=DIMS, draws=2)) == pytest.approx(expected, rel=1e-10, abs=1e-10)


def test_ill_conditioned_factors_lose_nothing() -> None:
    """Columns of `left` nearly parallel, condition 1e8: its Gram would keep no digit of the small directions."""
    left, right = factors(40, 4, 30, 1)
    left = left[:, :1] + 1e-8 * left
    basis, triangle = torch.linalg.qr(left)
    well = (basis, triangle @ right)  # the same change; dense truth would lose its small directions too
    other = factors(40, 4, 30, 2)

    assert torch.linalg.cond(left) > 1e7
    found = values(one_module((left, right), other, dims=DIMS, draws=2))
    assert found == pytest.approx(values(one_module(well, other, dims=DIMS, draws=2)), rel=1e-6, abs=1e-6)
    U = torch.linalg.svd(triangle @ torch.linalg.qr(right.T).R.T).U
    spans = scipy.linalg.subspace_angles(
        (basis @ U[:, :2]).numpy(), torch.linalg.svd(other[0] @ other[1]).U[:, :2].numpy()
    )
    assert found["angle_left"] == pytest.approx(math.degrees(spans.mean()), rel=1e-6)


def test_gauge_order_and_scale() -> None:
    one, two = factors(30, 4, 20, 1, 0.5), factors(30, 6, 20, 2, 0.7)
    before = one_module(one, two, dims=DIMS)
    generator = torch.Generator().manual_seed(3)
    gauge = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    turned = one_module((one[0] @ torch.linalg.inv(gauge), gauge @ one[1]), two, dims=DIMS)
    swapped = one_module(two, one, dims=DIMS)
    scaled = one_module((-3.0 * one[0], one[1]), two, dims=DIMS)

    assert values(turned) == pytest.approx(values(before), rel=1e-10, abs=1e-10)
    assert values(swapped) == pytest.approx(values(before), rel=1e-10, abs=1e-10)
    assert values(scaled) == pytest.approx({**values(before), "cosine": -values(before)["cosine"]}, rel=1e-10)
    same = before.pairs["one", "two"].modules["m"]
    for other in (turned, scaled):
        summary = other.pairs["one", "two"].modules["m"]
        np.testing.assert_allclose(summary.means[:2], same.means[:2], rtol=1e-4)  # the third keeps A as it is stored
        np.testing.assert_allclose(summary.closed, same.closed, rtol=1e-12)
    np.testing.assert_allclose(scaled.pairs["one", "two"].modules["m"].means[2], same.means[2], rtol=1e-4)
    assert scaled.changes["one"]["m"].norm == pytest.approx(3 * before.changes["one"]["m"].norm, rel=1e-12)


def test_blocks_are_means_of_modules_and_the_whole_of_blocks() -> None:
    matrices = {name: factors(12, 3, 10, seed) for seed, name in enumerate("abcd")}
    others = {name: factors(12, 3, 10, 10 + seed) for seed, name in enumerate("abcd")}
    blocks = {"a": 0, "b": 0, "c": 1, "d": None}
    found = compare(
        {"one": Update.from_tensors(matrices), "two": Update.from_tensors(others)}, blocks, DIMS, draws=5
    ).pairs["one", "two"]
    each = {name: found.modules[name].values for name in "abcd"}

    np.testing.assert_allclose(found.blocks[0].figures.values, (each["a"] + each["b"]) / 2, rtol=1e-12)
    np.testing.assert_allclose(found.overall.values, ((each["a"] + each["b"]) / 2 + each["c"]) / 2, rtol=1e-12)


def test_modules_that_only_one_update_changes_are_left_out() -> None:
    one = Update.from_tensors({"a": factors(6, 2, 5, 1), "b": factors(6, 2, 5, 2), "z": torch.zeros(6, 5)})
    two = Update.from_tensors({"a": factors(6, 2, 5, 3), "c": factors(6, 2, 5, 4), "z": factors(6, 2, 5, 5)})
    found = compare({"one": one, "two": two}, dims=DIMS, draws=2)

    assert set(found.pairs["one", "two"].modules) == {"a"}
    assert {name: set(changes) for name, changes in found.changes.items()} == {
        "one": {"a", "b"},
        "two": {"a", "c", "z"},
    }


def test_an_update_that_changes_nothing_has_no_pair() -> None:
    found = compare({"one": Update.from_tensors({"a": factors(6, 2, 5, 1)}), "none": Update({})}, dims=DIMS, draws=2)

    assert not found.pairs
    assert found.changes["none"] == {}


def test_three_updates_give_the_pairs_one_by_one() -> None:
    updates: Mapping[str, Update] = {
        str(k): Update.from_tensors({"m": factors(20, 3, 16, k), "n": factors(8, 3, 16, 10 + k)}) for k in range(3)
    }
    together = compare(updates, dims=DIMS, draws=3)
    for pair in (("0", "1"), ("0", "2"), ("1", "2")):
        alone = compare({name: updates[name] for name in pair}, dims=DIMS, draws=3)
        for module in "mn":
            np.testing.assert_allclose(
                together.pairs[pair].modules[module].values, alone.pairs[pair].modules[module].values, rtol=1e-10
            )


def test_threads_change_nothing() -> None:
    updates = {
        str(k): Update.from_tensors({f"m{n}": factors(20, 3, 16, 9 * k + n) for n in range(9)}) for k in range(2)
    }
    one = compare(updates, dims=DIMS, draws=20)
    torch.set_num_threads(2)
    try:
        two = compare(updates, dims=DIMS, draws=20)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)

    np.testing.assert_array_equal(one.pairs["0", "1"].overall.draws, two.pairs["0", "1"].overall.draws)


def test_results_name_every_figure() -> None:
    """The schema of a saved comparison cannot be built from the figures at run time, so that it repeats them."""
    assert get_args(Figure) == FIGURES


def test_updates_of_different_bases_are_refused() -> None:
    with pytest.raises(InputError, match=r"module m: \[6, 5\] in one, \[6, 4\] in two"):
        one_module(factors(6, 2, 5, 1), factors(6, 2, 4, 2))
    with pytest.raises(InputError, match="at least two updates to compare, got 1"):
        compare({"one": Update.from_tensors({"m": Dense(torch.ones(2, 2)).dense()})})
