"""Adapters of every kind are measured as their merged weights would be."""

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

import saved
import tiny
from tiltmeter.before.spectrum_measure import merge_variants
from tiltmeter.curvature.fisher import Fisher
from tiltmeter.errors import InputError
from tiltmeter.models import assemble
from truth import float64_throughout


@pytest.mark.parametrize("options", [{}, {"use_dora": True}, {"use_rslora": True}])
def test_gradients_under_an_adapter_are_those_of_the_merged_weights(options: dict[str, Any]) -> None:
    model = tiny.model("llama", torch.float64)
    fisher = Fisher(model, tiny.skill())
    tuned = assemble(copy.deepcopy(model.module), model.tokenizer)
    adapted = get_peft_model(tuned.module, LoraConfig(r=2, target_modules=["q_proj", "down_proj"], **options))
    saved.shaken(adapted, lambda name: "lora_" in name)
    merged = assemble(copy.deepcopy(adapted).merge_and_unload(), model.tokenizer)
    merge_variants(tuned)
    with float64_throughout():
        found, expected = fisher.at(tuned).gram(), fisher.at(merged).gram()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10 * float(expected.abs().max()))


def test_layers_that_an_adapter_replaces_are_refused_by_name() -> None:
    model = tiny.model("llama")
    fisher = Fisher(model, tiny.skill())
    tuned = assemble(copy.deepcopy(model.module), model.tokenizer)
    get_peft_model(tuned.module, LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["down_proj"]))
    with pytest.raises(InputError, match=r"mlp\.down_proj: measured in the base, .*not called"):
        fisher.at(tuned)
