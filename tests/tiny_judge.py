"""A tiny random model that can be asked for numbers."""

from typing import Any

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

import tiny
from tiltmeter.models import Model, assemble

SPECIAL = ["<pad>", "<eos>", "<unk>", "<user>", "<assistant>", "<system>"]
TEMPLATE = (
    "{% for m in messages %}{{ '<' + m['role'] + '>' + m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def judge_model(numbers: list[str], dtype: torch.dtype = torch.float64, seed: int = 0, positions: int = 4096) -> Model:
    """A random model that reads letters one by one, and numbers as these tokens."""
    letters = [chr(code) for code in range(32, 127) if not chr(code).isdigit()] + ["\n"]
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *letters, *numbers])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    pieces = r"<(?:user|assistant|system)>|[0-9]+|." if len(numbers) > 10 else r"<(?:user|assistant|system)>|[\s\S]"
    core.pre_tokenizer = pre_tokenizers.Split(Regex(pieces), "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>", pad_token="<pad>", unk_token="<unk>")
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL[3:]})
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {**tiny._SIZES, "max_position_embeddings": positions, "vocab_size": len(vocabulary)}
    module = AutoModelForCausalLM.from_config(LlamaConfig(**sizes, pad_token_id=0, eos_token_id=1))
    for parameter in module.parameters():
        if parameter.ndim >= 2:
            torch.nn.init.normal_(parameter, std=0.3)
    return assemble(module.to(dtype), tokenizer)
