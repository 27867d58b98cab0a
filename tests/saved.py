"""Models and adapters saved by transformers and PEFT themselves, in float64, with the truth beside them."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.pytorch_utils import Conv1D

import tiny

Weights = dict[str, Tensor]


# transformers' models are `Any` here: their decorators hide the types of `to` and `from_config`.
def model(family: str, tied: bool = False, seed: int = 0) -> Any:
    """A tiny random model in float64."""
    torch.manual_seed(seed)
    config = copy.deepcopy(tiny.CONFIGS[family] if family in tiny.CONFIGS else tiny.WRAPPERS[family][0])
    config.tie_word_embeddings = tied
    make: Any = AutoModelForCausalLM if family in tiny.CONFIGS else AutoModelForImageTextToText
    return shaken(make.from_config(config).double(), lambda name: True)


def shaken(module: Any, chosen: Callable[[str], bool], seed: int = 1) -> Any:
    """The module with noise added to the chosen parameters."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if chosen(name):
                parameter.add_(0.1 * torch.randn_like(parameter))
    return module


def weights(module: nn.Module) -> Weights:
    """Each parameter once, copied, with linear weights as [o, i]."""
    transposed = {f"{name}.weight" for name, layer in module.named_modules() if isinstance(layer, Conv1D)}
    copies = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    return {name: copied.T if name in transposed else copied for name, copied in copies.items()}


def linears(module: nn.Module) -> set[str]:
    """Names of the weights of linear layers; the parameters of a tied output layer go by the embedding's name."""
    layers = {f"{name}.weight" for name, layer in module.named_modules() if isinstance(layer, nn.Linear | Conv1D)}
    return layers & {name for name, _ in module.named_parameters()}


def difference(after: Weights, before: Weights) -> Weights:
    """What changed, by parameter."""
    assert after.keys() == before.keys()
    return {name: after[name] - before[name] for name in after if not torch.equal(after[name], before[name])}


def adapter(folder: Path, family: str = "llama", changes_base: bool = False, seed: int = 1, **config: Any) -> Weights:
    """Save `base/`, `adapter/` (and `initial/`) below the folder; what PEFT's merge changes, by parameter."""
    base = model(family)
    base.save_pretrained(folder / "base")
    before = weights(base)
    # PiSSA and OLoRA refuse float64.
    start = base.float() if changes_base else base
    tuned = get_peft_model(start, LoraConfig(r=4, lora_alpha=6, **config)).double()
    if changes_base:
        tuned.save_pretrained(folder / "initial")
        before = weights(_merged(tuned))
    shaken(tuned, lambda name: dict(tuned.named_parameters())[name].requires_grad, seed)
    tuned.save_pretrained(folder / "adapter")
    return difference(weights(_merged(tuned)), before)


def _merged(tuned: PeftModel) -> nn.Module:
    merged: nn.Module = copy.deepcopy(tuned).merge_and_unload()
    return merged
