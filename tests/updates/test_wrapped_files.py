"""Updates of vision-language wrappers: files name modules as the authors do, and the vision tower is no text."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import saved
import tiny
from tiltmeter.errors import InputError
from tiltmeter.updates.update import Update

ADAPTER = "adapter_model.safetensors"
TEXT = ("model.language_model.", "lm_head.")


def text_weights(module: nn.Module) -> set[str]:
    return {name for name in saved.linears(module) if name.startswith(TEXT)}


def assert_equal(update: Update, truth: saved.Weights, covered: set[str]) -> None:
    """The changes of exactly the covered weights, and the norms of all others."""
    assert {f"{name}.weight" for name in update} == covered
    for name in covered:
        found = update[name.removesuffix(".weight")].dense()
        change = truth.get(name, torch.zeros_like(found))
        assert torch.linalg.norm(found - change) <= 1e-12 * torch.linalg.norm(change), name
    others = {name: float(torch.linalg.norm(change)) for name, change in truth.items() if name not in covered}
    assert update.not_covered == pytest.approx(others, rel=1e-12)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", sorted(tiny.WRAPPERS))
def test_difference_of_checkpoints_equals_the_models(family: str, tied: bool, tmp_path: Path) -> None:
    base = saved.model(family, tied)
    tuned = saved.shaken(saved.model(family, tied), lambda name: "0" in name or "embed" in name)
    base.save_pretrained(tmp_path / "base")
    tuned.save_pretrained(tmp_path / "tuned", max_shard_size="20KB")
    with safe_open(tmp_path / "base" / "model.safetensors", "pt") as file:
        assert not set(file.keys()) & text_weights(base) - {"lm_head.weight"}
    truth = saved.difference(saved.weights(tuned), saved.weights(base))
    update = Update.between(tmp_path / "base", tmp_path / "tuned")
    assert_equal(update, truth, text_weights(base))
    assert any("vis" in name for name in update.not_covered)


@pytest.mark.parametrize("family", sorted(tiny.WRAPPERS))
def test_an_adapter_on_both_towers_equals_pefts_merge(family: str, tmp_path: Path) -> None:
    truth = saved.adapter(tmp_path, family, target_modules="all-linear")
    update = Update.from_adapter(tmp_path / "adapter", tmp_path / "base")
    covered = {name for name in truth if name.startswith(TEXT)}
    assert_equal(update, truth, covered)
    assert len(truth) > len(covered) == 14
    whole = Update.from_adapter(tmp_path / "adapter")  # nothing says which of its modules are text's
    assert {f"{name}.weight" for name in whole} == truth.keys()


def test_dora_and_saved_modules_of_both_towers(tmp_path: Path) -> None:
    saves = ["down_proj", "linear_1"]
    truth = saved.adapter(tmp_path, "mistral3", target_modules=["q_proj"], modules_to_save=saves, use_dora=True)
    update = Update.from_adapter(tmp_path / "adapter", tmp_path / "base")
    covered = {name for name in truth if name.startswith(TEXT)}
    assert_equal(update, truth, covered)


def test_an_adapter_by_older_names_is_read_as_peft_reads_it(tmp_path: Path) -> None:
    saved.adapter(tmp_path, "mistral3", target_modules=["q_proj", "v_proj"])
    expected = Update.from_adapter(tmp_path / "adapter", tmp_path / "base")
    file = tmp_path / "adapter" / ADAPTER
    old, new = "base_model.model.language_model.model.", "base_model.model.model.language_model."
    tensors = {key.replace(new, old): tensor for key, tensor in load_file(file).items()}
    assert any(key.startswith(old) for key in tensors)
    save_file(tensors, file, metadata={"format": "pt"})

    merged: Any = PeftModel.from_pretrained(saved.model("mistral3"), str(tmp_path / "adapter")).merge_and_unload()
    truth = saved.difference(saved.weights(merged), saved.weights(saved.model("mistral3")))
    update = Update.from_adapter(tmp_path / "adapter", tmp_path / "base")
    assert list(update) == list(expected)
    covered = {name for name in truth if name.startswith(TEXT)}
    assert len(covered) == 4
    assert_equal(update, truth, covered)


def test_an_update_of_text_is_saved_as_an_adapter_of_the_wrapper(tmp_path: Path) -> None:
    truth = saved.adapter(tmp_path, "mistral3", target_modules=r".*language_model.*(q|down)_proj")
    update = Update.from_adapter(tmp_path / "adapter", tmp_path / "base")
    update.save_adapter(tmp_path / "saved", tmp_path / "base")
    merged: Any = PeftModel.from_pretrained(saved.model("mistral3"), str(tmp_path / "saved")).merge_and_unload()
    found = saved.difference(saved.weights(merged), saved.weights(saved.model("mistral3")))
    assert found.keys() == truth.keys()
    for name, change in found.items():
        torch.testing.assert_close(change, truth[name], rtol=1e-6, atol=1e-7)


def test_a_change_of_the_vision_tower_alone_is_said(tmp_path: Path) -> None:
    saved.model("mistral3").save_pretrained(tmp_path / "base")
    saved.shaken(saved.model("mistral3"), lambda name: "vision" in name).save_pretrained(tmp_path / "tuned")
    with pytest.raises(InputError, match=r"no linear layer's .* other parameters differ, such as model\.vision_tower"):
        Update.between(tmp_path / "base", tmp_path / "tuned")
