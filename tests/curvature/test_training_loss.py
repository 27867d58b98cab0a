"""Gradient and Hessian-vector products against a dense Hessian by autograd."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

import tiny
from tiltmeter.curvature.training_loss import TrainingLoss, central_difference
from tiltmeter.curvature.training_space import AdapterSpace, WeightSpace, adapter_space, weight_space
from tiltmeter.errors import InputError
from tiltmeter.tokens import encode
from truth import float64_throughout

FAMILIES = ["llama", "qwen3", "gemma2", "gpt2", "gpt_neox"]


@pytest.fixture(autouse=True)
def exact() -> Iterator[None]:
    with float64_throughout():
        yield


def dense(loss: TrainingLoss) -> tuple[Tensor, Tensor]:
    """Gradient and Hessian [P, P] of the mean negative log-likelihood a completion token, example by example."""
    space = loss.space

    def value(vector: Tensor) -> Tensor:
        parameters = {
            id(p): part for p, part in zip(space.parameters.values(), space.split(vector).values(), strict=True)
        }
        named = {name: parameters[id(p)] for name, p in space.model.module.named_parameters() if id(p) in parameters}
        total = vector.new_zeros(())
        for example in loss.encoded:
            ids = torch.tensor([example.ids])
            logits = torch.func.functional_call(space.model.module, named, (ids,), {"use_cache": False}).logits
            picked = logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
            total = total - picked[torch.tensor(example.is_completion[1:])].sum()
        return total / sum(sum(example.is_completion) for example in loss.encoded)

    start = space.join(space.parameters)
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernel has no second derivative
        return torch.func.grad(value)(start), torch.autograd.functional.hessian(value, start, vectorize=True)


def small_space(family: str, keep: int = 2) -> Iterator[WeightSpace]:
    model = tiny.model(family, torch.float64)
    with weight_space(model) as space:
        some = dict(list(space.parameters.items())[:keep])
        yield WeightSpace(model, some)


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_and_products_equal_the_dense_hessian(family: str, batch_size: int) -> None:
    for space in small_space(family):
        loss = TrainingLoss(space, encode(tiny.skill(3), space.model.tokenizer), batch_size)
        gradient, hessian = dense(loss)
        vector = torch.randn(len(space), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        assert torch.allclose(loss.gradient(), gradient, rtol=1e-9, atol=1e-12)
        expected = hessian @ vector
        assert (loss.product(vector) - expected).norm() <= 1e-9 * expected.norm()
        assert expected.norm() > 0


def test_a_central_difference_agrees_whatever_the_vectors_size_and_tells_its_error() -> None:
    for space in small_space("llama"):
        loss = TrainingLoss(space, encode(tiny.skill(3), space.model.tokenizer))
        vector = torch.randn(len(space), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        expected = loss.product(vector)
        for size in (1.0, 1e6):
            found = central_difference(loss, size * vector)
            off = float((found.product / size - expected).norm() / expected.norm())
            assert 0 < off < 3 * found.error < 1e-8


def test_a_central_difference_agrees_in_float32() -> None:
    model = tiny.model("llama", torch.float32)
    with weight_space(model) as space:
        loss = TrainingLoss(space, encode(tiny.skill(), model.tokenizer))
        vector = loss.gradient()
        exact_product, found = loss.product(vector), central_difference(loss, vector)
        assert float((found.product - exact_product).norm() / exact_product.norm()) < 5e-3
        assert found.error < 5e-2


def test_half_precision_differences_are_refused() -> None:
    model = tiny.model("llama", torch.bfloat16)
    with weight_space(model) as space, pytest.raises(InputError, match="float32"):
        central_difference(TrainingLoss(space, encode(tiny.skill(), model.tokenizer)), torch.ones(len(space)))


@pytest.fixture
def adapted() -> Iterator[AdapterSpace]:
    model = tiny.model("llama", torch.float64)
    config = LoraConfig(r=2, lora_alpha=6, target_modules=["q_proj", "down_proj"], use_rslora=True)
    with adapter_space(model, config, seed=3) as space:
        yield space


def test_an_adapters_products_equal_its_dense_hessian(adapted: AdapterSpace) -> None:
    loss = TrainingLoss(adapted, encode(tiny.skill(3), adapted.model.tokenizer), 2)
    gradient, hessian = dense(loss)
    vector = torch.randn(len(adapted), dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(loss.gradient(), gradient, rtol=1e-9, atol=1e-12)
    expected = hessian @ vector
    assert (loss.product(vector) - expected).norm() <= 1e-9 * expected.norm()


def test_an_adapters_displacement_is_pefts_own(adapted: AdapterSpace) -> None:
    change = torch.randn(len(adapted), dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    first, second = adapted.displacement(change), None
    with adapted.moved(change):
        for name, layer in adapted._layers.items():
            merged = layer.get_delta_weight(adapted._adapter)
            assert torch.allclose(first[name].dense(), merged, rtol=1e-12, atol=1e-14)
        second = adapted.displacement(-change)  # back to the start, from a point where B is not zero
        for name in second:
            assert torch.allclose(second[name].dense(), -first[name].dense(), rtol=1e-12, atol=1e-14)


def test_an_adapters_tangent_is_the_limit_of_its_displacement(adapted: AdapterSpace) -> None:
    change = torch.randn(len(adapted), dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    with adapted.moved(0.3 * change.flip(0)):
        difference = 1e6 * adapted.displacement(1e-6 * change) - adapted.tangent(change)
        assert difference.norm() < 1e-5 * adapted.tangent(change).norm()


def test_the_model_is_as_before_once_the_adapter_is_gone() -> None:
    model = tiny.model("llama")
    before = {name: parameter.clone() for name, parameter in model.module.named_parameters()}
    with adapter_space(model, LoraConfig(r=2, target_modules="all-linear")) as space:
        with space.moved(torch.ones(len(space))):
            assert encode(tiny.skill(1), model.tokenizer)
        assert len(space.parameters) == 2 * 14
    after = dict(model.module.named_parameters())
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) and after[name].requires_grad for name in before)


@pytest.mark.parametrize("kind", [{"use_dora": True}, {"init_lora_weights": "pissa"}, {"bias": "all"}])
def test_other_adapters_are_refused_by_name(kind: dict[str, object]) -> None:
    config = LoraConfig(r=2, target_modules=["q_proj"], **kind)
    with pytest.raises(InputError, match=next(iter(kind))), adapter_space(tiny.model("llama"), config):
        pass


def test_a_loss_without_examples_is_refused() -> None:
    with weight_space(tiny.model("llama")) as space, pytest.raises(InputError, match="at least one example"):
        TrainingLoss(space, [])


class _OnceOnly(torch.autograd.Function):
    """The identity, with a first derivative and no second one, as fused kernels are."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, *grads: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            raise RuntimeError("derivative for aten::fused_backward is not implemented")
        return grads[0]


def test_where_nothing_can_be_differentiated_twice_the_way_out_is_named() -> None:
    model = tiny.model("llama", torch.float64)
    once_only: Any = _OnceOnly.apply
    handle = model.linears["model.layers.0.mlp.up_proj"].register_forward_hook(lambda m, i, o: once_only(o))
    with weight_space(model) as space:
        loss = TrainingLoss(space, encode(tiny.skill(), model.tokenizer))
        vector = loss.gradient()
        with pytest.raises(InputError, match=r"fused_backward.*--hessian"):
            loss.product(vector)
        found = replace(loss, method="central-difference").product(vector)
    handle.remove()
    with weight_space(model) as space:
        expected = TrainingLoss(space, encode(tiny.skill(), model.tokenizer)).product(vector)
    assert (found - expected).norm() < 1e-8 * expected.norm()
