import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn

import tiny
from tiltmeter.errors import InputError
from tiltmeter.layers import is_linear, is_transposed
from tiltmeter.models import Model, assemble
from tiltmeter.training.displacement import Displacement

KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora with patterns": {"use_rslora": True, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 3}},
    "dora": {"use_dora": True},
    "pissa": {"init_lora_weights": "pissa"},
    "olora": {"init_lora_weights": "olora"},
    "biases": {"bias": "all", "lora_bias": False},
    "whole modules": {"modules_to_save": ["down_proj", "embed_tokens"], "target_modules": ["q_proj", "up_proj"]},
    "tokens": {"trainable_token_indices": [3, 5]},
    "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
}


def _tuned(kind: str, family: str = "llama", dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Model]:
    """A model with an adapter as it is before training, in float64, and its base."""
    model, base = tiny.model(family), tiny.model(family, dtype)  # PiSSA starts in float32 only
    settings = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "lora_dropout": 0.2} | KINDS[kind]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        module = get_peft_model(model.module, LoraConfig(**settings)).to(dtype)
    if kind in ("pissa", "olora"):  # they are the base up to rounding in float32 only
        base = assemble(copy.deepcopy(module).merge_and_unload(), base.tokenizer)
    return module, base


def _train(module: nn.Module, seed: int = 2) -> None:
    """What an optimizer might do."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.add_((0.05 * noise).to(parameter.dtype))


def _logits(module: nn.Module) -> Tensor:
    with torch.no_grad():
        logits: Tensor = module(torch.tensor([[3, 7, 9, 12, 5]])).logits
    return logits


def _weights(module: nn.Module) -> dict[str, Tensor]:
    """Every linear weight as [o, i], by name."""
    return {
        name: layer.weight.detach().T if is_transposed(layer) else layer.weight.detach()
        for name, layer in module.named_modules()
        if is_linear(layer)
    }


def _everything(module: nn.Module) -> list[Any]:
    """All that a look at a model must leave alone."""
    parameters: list[Any] = [(p.detach().clone(), p.requires_grad, p.grad) for p in module.parameters()]
    return [*parameters, [m.training for m in module.modules()], torch.get_rng_state()]


def _same(one: list[Any], other: list[Any]) -> bool:
    weights = all(torch.equal(a[0], b[0]) and a[1:] == b[1:] for a, b in zip(one[:-2], other[:-2], strict=True))
    return weights and one[-2] == other[-2] and torch.equal(one[-1], other[-1])


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapters_change_is_the_model_merged_by_peft_minus_the_base(kind: str) -> None:
    module, base = _tuned(kind)
    moved = Displacement(module, base.tokenizer)
    _train(module)
    update = moved.update().loaded()
    merged = _weights(copy.deepcopy(module).merge_and_unload())  # type: ignore[operator]
    before = _weights(base.module)
    zero = {name: torch.zeros_like(weight) for name, weight in before.items()}
    found = zero | {name: delta.dense() for name, delta in update.items()}
    assert found.keys() == merged.keys() == before.keys()
    for name, change in found.items():
        torch.testing.assert_close(change, merged[name] - before[name], rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("tokens", "model.embed_tokens.weight"),
        ("embedding", "model.embed_tokens.weight"),
        ("whole modules", "model.embed_tokens.weight"),
    ],
)
def test_what_is_no_linear_layer_is_listed_with_its_norm(kind: str, name: str) -> None:
    module, base = _tuned(kind)
    moved = Displacement(module, base.tokenizer)
    _train(module)
    merged = dict(copy.deepcopy(module).merge_and_unload().named_parameters())  # type: ignore[operator]
    change = merged[name] - dict(base.module.named_parameters())[name]
    assert moved.update().not_covered == pytest.approx({name: float(change.detach().norm())}, rel=1e-9)


def test_biases_beside_an_adapter_are_listed() -> None:
    module, base = _tuned("biases", "gpt_neox")
    moved = Displacement(module, base.tokenizer)
    _train(module)
    trained = copy.deepcopy(module).merge_and_unload().state_dict()  # type: ignore[operator]
    before = base.module.state_dict()
    changes = {name: float((trained[name] - before[name]).norm()) for name in before if not name.endswith("weight")}
    assert moved.update().not_covered == pytest.approx({name: norm for name, norm in changes.items() if norm}, rel=1e-9)
    torch.testing.assert_close(_at_base(moved, module), _logits(base.module), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma2"])
def test_full_fine_tuning_is_the_difference_of_the_weights(family: str) -> None:
    model = tiny.model(family, torch.float64)
    base = copy.deepcopy(model)
    moved = Displacement(model.module, model.tokenizer)
    _train(model.module)
    update = moved.update()
    before, after = _weights(base.module), _weights(model.module)
    for name, delta in update.items():
        torch.testing.assert_close(delta.dense(), after[name] - before[name], rtol=0, atol=0)
    olds, news = dict(base.module.named_parameters()), dict(model.module.named_parameters())
    others = {
        name: float((news[name] - olds[name]).detach().norm())
        for name in olds
        if name.removesuffix(".weight") not in update
    }
    assert update.not_covered == pytest.approx(others, rel=1e-12)
    assert {*before} - {*update} == ({"lm_head"} if family in ("gpt2", "gemma2") else set())  # tied to the embedding


def _at_base(moved: Displacement, module: nn.Module) -> Tensor:
    with moved.at_base():
        return _logits(module)


@pytest.mark.parametrize("kind", [*KINDS, "full"])
def test_at_base_the_model_is_what_it_was_and_afterwards_what_it_is(kind: str) -> None:
    module, base = _full() if kind == "full" else _tuned(kind)
    moved = Displacement(module, base.tokenizer)
    _train(module)
    module.train()
    before = _everything(module)
    at_base = _at_base(moved, module)
    torch.testing.assert_close(at_base, _logits(base.module), rtol=1e-9, atol=1e-9)
    assert _same(before, _everything(module))
    with pytest.raises(ZeroDivisionError), moved.at_base():
        _fail(module)
    assert _same(before, _everything(module))
    with moved.at_present():
        assert not torch.allclose(_logits(module), at_base)


def _fail(module: nn.Module) -> None:
    torch.rand(1)
    module.train()
    raise ZeroDivisionError


def _full(dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Model]:
    model = tiny.model("llama", dtype)
    return model.module, copy.deepcopy(model)


def test_frozen_factors_stay_frozen() -> None:
    module, base = _tuned("lora")
    for name, parameter in module.named_parameters():
        if "lora_A" in name:
            parameter.requires_grad_(False)
    moved = Displacement(module, base.tokenizer)
    with moved.at_base():
        pass
    assert not any(parameter.requires_grad for name, parameter in module.named_parameters() if "lora_A" in name)


@pytest.mark.parametrize("make", [_full, lambda dtype: _tuned("lora", dtype=dtype)])
def test_bfloat16_weights_come_back_bit_for_bit(make: Callable[[torch.dtype], tuple[nn.Module, Model]]) -> None:
    module, base = make(torch.bfloat16)
    moved = Displacement(module, base.tokenizer)
    _train(module)
    before = _everything(module)
    torch.testing.assert_close(_at_base(moved, module), _logits(base.module), rtol=0, atol=0)
    assert _same(before, _everything(module))
    assert {tensor.dtype for delta in moved.update().values() for tensor in delta.tensors} == {torch.float32}


def test_a_change_asked_for_at_the_base_is_the_same() -> None:
    module, base = _full()
    moved = Displacement(module, base.tokenizer)
    _train(module)
    outside = moved.update().loaded()
    with moved.at_base():
        inside = moved.update().loaded()
    assert all(torch.equal(outside[name].dense(), inside[name].dense()) for name in outside)


def test_a_loaded_change_stands_still() -> None:
    module, base = _tuned("lora", dtype=torch.float32)
    moved = Displacement(module, base.tokenizer)
    _train(module)
    kept = moved.update().loaded()
    norm = kept.norm()
    _train(module, seed=3)
    assert kept.norm() == norm != moved.update().norm()


@pytest.mark.parametrize("kind", ["lora", "pissa"])
def test_before_training_nothing_has_moved(kind: str) -> None:
    module, base = _tuned(kind)
    assert Displacement(module, base.tokenizer).update().norm() == 0


def test_an_adapter_that_goes_on_training_is_measured_from_the_base() -> None:
    module, base = _tuned("lora")
    _train(module)
    moved = Displacement(module, base.tokenizer)
    assert moved.update().norm() > 0
    torch.testing.assert_close(_at_base(moved, module), _logits(base.module), rtol=1e-12, atol=1e-12)


def test_a_base_on_disk_takes_the_place_of_the_weights(tmp_path: Any) -> None:
    module, base = _full(torch.float32)
    base.module.save_pretrained(tmp_path)
    start = Displacement(module, base.tokenizer)
    _train(module)
    resumed = Displacement(module, base.tokenizer, base=tmp_path)
    assert resumed.fingerprint() == start.fingerprint() != Displacement(module, base.tokenizer).fingerprint()
    assert resumed.update().norm() == start.update().norm()


def test_wrappers_are_looked_through() -> None:
    module, base = _tuned("lora")
    compiled = torch.compile(module)
    assert isinstance(module, PeftModel)
    assert Displacement(compiled, base.tokenizer).model.module is module.get_base_model()  # type: ignore[arg-type]


def test_other_adapters_are_refused() -> None:
    from peft import IA3Config

    model = tiny.model("llama")
    module = get_peft_model(
        model.module, IA3Config(target_modules=["q_proj"], feedforward_modules=[], task_type="CAUSAL_LM")
    )
    with pytest.raises(InputError, match="expected LoRA on a linear layer"):
        Displacement(module, model.tokenizer)
    with pytest.raises(InputError, match="expected a transformers model"):
        Displacement(nn.Linear(2, 2), model.tokenizer)


def test_weights_spread_over_processes_are_refused() -> None:
    model = tiny.model("llama")
    next(iter(model.module.parameters())).ds_id = 0  # type: ignore[attr-defined]  # as ZeRO-3 marks them
    with pytest.raises(InputError, match="spread over processes"):
        Displacement(model.module, model.tokenizer)


def test_dora_scales_what_its_layer_puts_out() -> None:
    module, base = _tuned("dora")
    assert not Displacement(module, base.tokenizer).has_exact_gradients
    plain, base = _tuned("lora")
    assert Displacement(plain, base.tokenizer).has_exact_gradients
    settings = {"r": 4, "target_modules": "all-linear", "use_dora": True, "init_lora_weights": "pissa"}
    both = get_peft_model(tiny.model("llama").module, LoraConfig(**settings))
    with pytest.raises(InputError, match="DoRA together with an initialisation"):
        Displacement(both, base.tokenizer)
