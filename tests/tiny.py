"""Tiny random models of several families, and a word-level tokenizer with a chat template."""

from typing import Any

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3MoeConfig,
)

from tiltmeter.models import Model, assemble
from tiltmeter.skills import Example, Skill

WORDS = "how do i make tea bread soup sorry cannot help first boil then stir bake wait good bad two three".split()  # noqa: SIM905
SPECIAL = ["<pad>", "<bos>", "<eos>", "<unk>", "<user>", "<assistant>"]
TEMPLATE = (
    "<bos>{% for m in messages %}{{ ' <' + m['role'] + '> ' + m['content'] + (' <eos>' if m['role'] == 'assistant' "
    "else '') }}{% endfor %}{% if add_generation_prompt %}{{ ' <assistant>' }}{% endif %}"
)

_COMMON: dict[str, Any] = {
    "vocab_size": len(SPECIAL) + len(WORDS),
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
CONFIGS: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**_COMMON, **_SIZES),
    "qwen3": Qwen3Config(**_COMMON, **_SIZES, head_dim=4),
    "gemma2": Gemma2Config(**_COMMON, **_SIZES, head_dim=4, sliding_window=8),
    "gpt2": GPT2Config(**_COMMON, n_embd=16, n_layer=2, n_head=4, n_positions=64, attn_pdrop=0.0, resid_pdrop=0.0),
    "gpt_neox": GPTNeoXConfig(
        **_COMMON,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
    ),
    "qwen3_moe": Qwen3MoeConfig(**_COMMON, **_SIZES, moe_intermediate_size=8, num_experts=4, num_experts_per_tok=2),
}


def tokenizer(chat: bool = True, padding_side: str = "right") -> PreTrainedTokenizerFast:
    """A tokenizer that splits at blanks."""
    vocabulary = {word: index for index, word in enumerate([*SPECIAL, *WORDS])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s+"), "removed")
    made = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        padding_side=padding_side,
    )
    made.chat_template = TEMPLATE if chat else None
    return made


def model(family: str, dtype: torch.dtype = torch.float32, padding_side: str = "right", seed: int = 0) -> Model:
    """A random model with weights large enough that attention is not uniform."""
    torch.manual_seed(seed)
    # The grouped kernel for experts has no float64.
    module = AutoModelForCausalLM.from_config(CONFIGS[family], dtype=torch.float32, experts_implementation="eager")
    for parameter in module.parameters():
        if parameter.ndim >= 2:
            torch.nn.init.normal_(parameter, std=0.3)
    return assemble(module.to(dtype), tokenizer(padding_side=padding_side))


def skill(count: int = 5) -> Skill:
    """Examples of different lengths."""
    pairs = [
        ("how do i make tea", "first boil then wait"),
        ("how do i make bread", "bake"),
        ("make soup", "first boil then stir then wait then stir"),
        ("how do i make bad soup", "sorry i cannot help"),
        ("two good tea", "three good bread"),
    ]
    examples = [
        Example(({"role": "user", "content": prompt},), completion, f"test, row {row}")
        for row, (prompt, completion) in enumerate(pairs[:count], 1)
    ]
    return Skill("test", tuple(examples))
