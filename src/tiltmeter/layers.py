"""Find a model's blocks and linear layers by structure. No model is known by name.

A skeleton (the model built without memory, from its config alone) answers the same questions for files on disk.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.pytorch_utils import Conv1D

from tiltmeter.errors import InputError


def is_transposed(layer: nn.Module) -> bool:
    """True for layers that store their weight as [i, o] (GPT-2's Conv1D)."""
    return isinstance(layer, Conv1D)


def is_linear(layer: nn.Module) -> bool:
    """True for layers that compute `a @ W^T + b` with one weight matrix."""
    return isinstance(layer, nn.Linear | Conv1D)


def weight_of(layer: nn.Module) -> torch.Tensor:
    """The weight matrix of a linear layer as it is stored: [o, i], or [i, o] if it is transposed."""
    weight = layer.weight
    assert isinstance(weight, torch.Tensor)
    return weight


def widths(layer: nn.Module) -> tuple[int, int]:
    """(o, i) of a linear layer."""
    first, second = weight_of(layer).shape
    return (second, first) if is_transposed(layer) else (first, second)


def find_linears(module: nn.Module) -> dict[str, nn.Module]:
    """Every linear layer by the name of `named_modules()`; a layer reached under two names is listed once."""
    return {name: layer for name, layer in module.named_modules() if is_linear(layer)}


def find_text_linears(module: nn.Module) -> dict[str, nn.Module]:
    """The linear layers that text can reach: all of a text model, the text stack's and the head's of a wrapper.

    A wrapper's config has a text config inside. Its text stack is the innermost module that holds the input embedding
    and linear layers; vision towers and projectors stand beside it.
    """
    linears = find_linears(module)
    if not isinstance(module, PreTrainedModel) or module.config.get_text_config() is module.config:
        return linears
    embedding, head = _input_embedding(module), module.get_output_embeddings()
    around = [name for name, part in module.named_modules() if _holds(part, embedding) and find_linears(part)]
    stack = f"{around[-1]}." if around and around[-1] else ""
    return {name: layer for name, layer in linears.items() if name.startswith(stack) or layer is head}


def find_blocks(module: nn.Module) -> dict[str, nn.Module]:
    """The transformer blocks of the text stack, in order: name -> block.

    They are the children of the outermost `ModuleList` of equal classes with linear layers in them whose parent also
    holds the input embedding (so a vision tower's layers are not taken for the text stack's).

    Raises:
        InputError: no such list; the caller can name the blocks (`load_model(..., blocks="path.to.list")`).
    """
    embedding = _input_embedding(module)
    for name, child in module.named_modules():
        if not isinstance(child, nn.ModuleList) or not _is_stack(child):
            continue
        parent = module.get_submodule(name.rpartition(".")[0])
        if _holds(parent, embedding):
            return {f"{name}.{index}": block for index, block in enumerate(child)}
    raise InputError(
        f"{type(module).__name__}: found no list of equal blocks beside the input embedding; name it, as in "
        'load_model(..., blocks="model.layers")'
    )


def block_index(name: str, blocks: dict[str, nn.Module]) -> int | None:
    """The index of the block that holds module `name`, or None outside the blocks."""
    for index, block in enumerate(blocks):
        if name == block or name.startswith(block + "."):
            return index
    return None


def auto_class(config: PretrainedConfig) -> Any:
    """The class of transformers that makes a config's model: for image and text only where there is none for text."""
    only_with_images = (
        type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING and type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING
    )
    return AutoModelForImageTextToText if only_with_images else AutoModelForCausalLM


def skeleton(folder: Path) -> nn.Module:
    """The model of a folder's `config.json` with its weights on the meta device: names, shapes and kinds, no memory.

    Raises:
        InputError: no readable config, an architecture that needs code from elsewhere, or no causal language model.
    """
    file = folder / "config.json"
    if not file.is_file():  # transformers would take the folder's name for a Hub id
        raise InputError(f"{file}: no such file")
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        with torch.device("meta"):
            model: nn.Module = auto_class(config).from_config(config, trust_remote_code=False)
    except Exception as error:  # a config can break any line of transformers; each is the file's fault
        cause = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"{file}: cannot build a causal language model from it: {cause[0]}") from error
    return model


def _input_embedding(module: nn.Module) -> nn.Module | None:
    try:
        embedding: nn.Module | None = module.get_input_embeddings()  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        return None
    return embedding


def _holds(module: nn.Module, part: nn.Module | None) -> bool:
    return any(inside is part for inside in module.modules())


def _is_stack(modules: nn.ModuleList) -> bool:
    kinds = {type(child) for child in modules}
    return len(kinds) == 1 and any(is_linear(part) for part in modules[0].modules())
