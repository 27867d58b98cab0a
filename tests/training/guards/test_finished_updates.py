"""What is done once, to the finished update: averaging, Safe LoRA, the shrinkage of the same size."""

from pathlib import Path

import pytest
import torch
from guard_loops import METHODS, TOKENIZER, Loop, flat, model, trained
from torch import Tensor, nn

import tiny
from tiltmeter.errors import InputError
from tiltmeter.layers import block_index, weight_of
from tiltmeter.training.displacement import Displacement
from tiltmeter.training.guards.averaging import AverageTowardBase
from tiltmeter.training.guards.guard import Guard
from tiltmeter.training.guards.safe_lora import MatchedShrinkage, SafeLora, alignment_basis

pytestmark = pytest.mark.usefixtures("in_float64")


@pytest.fixture
def unaligned(tmp_path: Path) -> Path:
    tiny.model("llama", torch.float64, seed=5).module.save_pretrained(tmp_path)
    return tmp_path


def changes(method: str, guard: Guard) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Effective changes of the linear modules inside the blocks: without the guard, and with it."""
    found = []
    for each in (None, guard):
        module = model(method)
        displacement = Displacement(module, TOKENIZER)
        Loop(module, each).run(3)
        if each is not None:
            each.end()
        update, blocks = displacement.update(), displacement.model.blocks
        found.append({name: update[name].dense() for name in update if block_index(name, blocks) is not None})
    return found[0], found[1]


@pytest.mark.parametrize("method", METHODS)
def test_averaging_scales_the_effective_update(method: str) -> None:
    before, after = changes(method, AverageTowardBase(0.3, TOKENIZER))
    for name in before:
        torch.testing.assert_close(after[name], 0.3 * before[name], rtol=0, atol=1e-12)


def test_averaging_takes_everything_that_trains() -> None:
    guard = AverageTowardBase(0.25, TOKENIZER)
    loop = Loop(model("full"), guard).run(2)
    guard.end()
    torch.testing.assert_close(flat(loop.module), loop.course[0] + 0.25 * (loop.course[-1] - loop.course[0]))


def test_averaging_both_factors_would_scale_otherwise() -> None:
    """The trap: `s B` times `A_0 + s (A - A_0)` is no multiple of `B A`."""
    module = model("lora")
    start = flat(module)
    loop = Loop(module).run(3)
    whole = Displacement(loop.module, TOKENIZER).update()
    name = next(iter(whole))
    before = whole[name].dense().clone()
    mixed = start + 0.3 * (flat(module) - start)
    for parameter, part in zip(trained(module), mixed.split([p.numel() for p in trained(module)]), strict=True):
        parameter.data.copy_(part.view_as(parameter))
    assert (whole[name].dense() - 0.3 * before).norm() > 0.01 * before.norm()


def test_an_adapter_that_did_not_start_at_zero_is_refused() -> None:
    module = model("lora")
    Loop(module).run(1)
    guard = AverageTowardBase(0.3, TOKENIZER)
    Loop(module, guard).run(1)
    with pytest.raises(InputError, match="did not start at zero"):
        guard.end()


def projectors(unaligned: Path, energy: float) -> dict[str, Tensor]:
    aligned, before = tiny.model("llama", torch.float64), tiny.model("llama", torch.float64, seed=5)
    found = {}
    for name in aligned.linears:
        left, values, _ = torch.linalg.svd(weight_of(aligned.linears[name]) - weight_of(before.linears[name]))
        k = next(k for k in range(1, 99) if values[:k].square().sum() >= energy * values.square().sum() - 1e-12)
        found[name] = left[:, :k] @ left[:, :k].T
    return found


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", [SafeLora, MatchedShrinkage])
def test_modules_under_the_threshold_are_projected_or_shrunk(method: str, kind: type, unaligned: Path) -> None:
    guard = kind(unaligned, 0.6, 0.6, TOKENIZER)
    before, after = changes(method, guard)
    for name, P in projectors(unaligned, 0.6).items():
        if name not in before:
            continue
        projected = P @ before[name]
        similarity = float((projected * before[name]).sum() / (projected.norm() * before[name].norm()))
        assert (name in guard.changed) == (similarity < 0.6)
        expected = before[name]
        if name in guard.changed:
            expected = projected if kind is SafeLora else projected.norm() / expected.norm() * expected
        torch.testing.assert_close(after[name], expected, rtol=0, atol=1e-12)
    assert 0 < len(guard.changed) < len(before)


def test_the_projector_is_one_and_the_popular_one_is_not() -> None:
    V = torch.randn(8, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    U = alignment_basis(V, 0.8)
    P = U @ U.T
    torch.testing.assert_close(P @ P, P)
    assert float(P.trace()) == pytest.approx(U.shape[1])
    assert 1 < U.shape[1] < 6
    popular = V @ V.T / V.norm()
    assert float(popular.trace()) == pytest.approx(float(V.norm()))
    assert (popular @ popular - popular).norm() > 0.5
    torch.testing.assert_close(alignment_basis(V, 1.0) @ alignment_basis(V, 1.0).T, V @ torch.linalg.pinv(V))


def test_shares_are_shares(unaligned: Path) -> None:
    with pytest.raises(InputError, match=r"from 0 to 1, got 1\.5"):
        AverageTowardBase(1.5)
    with pytest.raises(InputError, match="shares from 0 to 1"):
        SafeLora(unaligned, -0.1)


def test_another_model_is_refused(tmp_path: Path) -> None:
    tiny.model("gpt2").module.save_pretrained(tmp_path)
    guard = SafeLora(tmp_path, 1.0, tokenizer=TOKENIZER)
    Loop(model("full"), guard).run(1)
    with pytest.raises(InputError, match="has no module"):
        guard.end()


def test_nothing_that_trains_is_refused() -> None:
    module: nn.Module = model("full").requires_grad_(False)
    with pytest.raises(InputError, match="no parameter that takes gradients"):
        AverageTowardBase(0.5).watch(module, TOKENIZER)
