"""The effective update of each variant equals PEFT's own merge minus the base."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

import saved
from tiltmeter.errors import InputError
from tiltmeter.updates.delta import LowRank
from tiltmeter.updates.update import Update

GPT2 = {"family": "gpt2", "fan_in_fan_out": True, "target_modules": ["c_attn", "c_proj", "c_fc"]}
QV = ["q_proj", "v_proj"]


class Case(NamedTuple):
    """An adapter, and whether it can be read without its base."""

    config: dict[str, Any]
    alone: bool = True


CASES = {
    "plain": Case({"target_modules": QV}),
    "every linear layer": Case({"family": "qwen3", "target_modules": "all-linear"}),
    "some layers": Case({"family": "qwen3", "target_modules": QV, "layers_to_transform": [1]}),
    "rsLoRA": Case({"target_modules": QV, "use_rslora": True}),
    "patterns, the first match counts": Case(
        {
            "target_modules": QV,
            "rank_pattern": {r".*\.0\..*q_proj": 2, "q_proj": 6},
            "alpha_pattern": {"model.layers.1.self_attn.v_proj": 9, "v_proj": 5},
        }
    ),
    "patterns with rsLoRA": Case({"target_modules": QV, "use_rslora": True, "rank_pattern": {r"(q|k)_proj": 3}}),
    "Conv1D": Case(GPT2),
    "DoRA": Case({"target_modules": QV, "use_dora": True}, alone=False),
    "DoRA of Conv1D": Case({**GPT2, "use_dora": True}, alone=False),
    "DoRA of an embedding": Case({"target_modules": ["q_proj", "embed_tokens"], "use_dora": True}, alone=False),
    "output layer saved": Case({"target_modules": QV, "modules_to_save": ["lm_head"]}, alone=False),
    "linear layers saved": Case({"target_modules": QV, "modules_to_save": ["down_proj"]}, alone=False),
    "norm saved": Case({"target_modules": QV, "modules_to_save": ["norm"]}, alone=False),
    "embedding saved": Case({"target_modules": QV, "modules_to_save": ["embed_tokens"]}, alone=False),
    "embedding": Case({"target_modules": ["q_proj", "embed_tokens"]}, alone=False),
    "trained tokens": Case({"target_modules": QV, "trainable_token_indices": [1, 5]}, alone=False),
    "trained tokens by name": Case(
        {"target_modules": QV, "trainable_token_indices": {"embed_tokens": [4]}}, alone=False
    ),
    "bias of the factor": Case({**GPT2, "lora_bias": True}),
    "bias of adapted layers": Case({**GPT2, "bias": "lora_only"}, alone=False),
    "every bias": Case({**GPT2, "bias": "all", "lora_bias": True}, alone=False),
    "PiSSA": Case({"target_modules": QV, "init_lora_weights": "pissa", "changes_base": True}),
    "PiSSA of Conv1D": Case({**GPT2, "init_lora_weights": "pissa", "changes_base": True}),
    "OLoRA": Case({"target_modules": QV, "init_lora_weights": "olora", "use_rslora": True, "changes_base": True}),
    "orthogonal": Case({"target_modules": QV, "init_lora_weights": "orthogonal"}),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_effective_update_equals_peft_merge_minus_base(case: Case, tmp_path: Path) -> None:
    truth = saved.adapter(tmp_path, **case.config)
    initial = tmp_path / "initial" if "changes_base" in case.config else None
    update = Update.from_adapter(tmp_path / "adapter", tmp_path / "base", initial)
    covered = {name: change for name, change in truth.items() if name in saved.linears(saved.model(_family(case)))}

    assert {f"{name}.weight" for name in update} == covered.keys()
    for name in update:
        error = torch.linalg.norm(update[name].dense() - covered[f"{name}.weight"])
        assert error <= 1e-12 * torch.linalg.norm(covered[f"{name}.weight"]), name
    others = {name: float(torch.linalg.norm(change)) for name, change in truth.items() if name not in covered}
    assert update.not_covered == pytest.approx(others, rel=1e-12)

    if case.alone:
        alone = Update.from_adapter(tmp_path / "adapter", initial=initial)
        assert all(torch.equal(alone[name].dense(), update[name].dense()) for name in update)
        assert alone.not_covered == update.not_covered
        assert all(isinstance(delta, LowRank) for delta in alone.values())
    else:
        with pytest.raises(InputError, match=r"adapter_model\.safetensors: .*base"):
            Update.from_adapter(tmp_path / "adapter", initial=initial)


def _family(case: Case) -> str:
    return str(case.config.get("family", "llama"))


def test_half_precision_factors_are_multiplied_in_float32(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import load_file

    tuned = get_peft_model(saved.model("llama"), LoraConfig(r=3, lora_alpha=7, target_modules=QV))
    saved.shaken(tuned, lambda name: "lora_" in name)
    tuned.to(torch.bfloat16).save_pretrained(tmp_path)
    factors = load_file(tmp_path / "adapter_model.safetensors")
    assert {factor.dtype for factor in factors.values()} == {torch.bfloat16}
    for name, delta in Update.from_adapter(tmp_path).items():
        A, B = (factors[f"base_model.model.{name}.lora_{side}.weight"].float() for side in "AB")
        assert {tensor.dtype for tensor in delta.tensors} == {torch.float32}
        assert torch.equal(delta.dense(), (B * (7 / 3)) @ A)


def test_pissa_without_the_initial_adapter_says_how_to_get_it(tmp_path: Path) -> None:
    saved.adapter(tmp_path, target_modules=QV, init_lora_weights="pissa", changes_base=True)
    with pytest.raises(
        InputError, match=r"adapter_config\.json: init_lora_weights='pissa'.*initial=.*merge_and_unload"
    ):
        Update.from_adapter(tmp_path / "adapter", tmp_path / "base")


def test_untrained_pissa_adapter_did_nothing(tmp_path: Path) -> None:
    saved.adapter(tmp_path, target_modules=QV, init_lora_weights="pissa", changes_base=True)
    with pytest.raises(InputError, match="did nothing"):
        Update.from_adapter(tmp_path / "initial", initial=tmp_path / "initial")


def test_base_may_lack_or_carry_the_prefix(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    truth = saved.adapter(tmp_path, target_modules=QV, use_dora=True)
    file = tmp_path / "base" / "model.safetensors"
    save_file({name.removeprefix("model."): tensor for name, tensor in load_file(file).items()}, file)
    update = Update.from_adapter(tmp_path / "adapter", tmp_path / "base")
    assert update.norm() == pytest.approx(sum(float(change.norm()) ** 2 for change in truth.values()) ** 0.5)
