"""Tiny random models of several families, text alone or beside a vision tower, and a tokenizer with a chat template."""

from typing import Any

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    Gemma2Config,
    Gemma3Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    Ministral3Config,
    Mistral3Config,
    PixtralVisionConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
    SiglipVisionConfig,
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

_VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
}
_ROPE: dict[str, Any] = {"rope_type": "default", "rope_theta": 10000.0}
_YARN: dict[str, Any] = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 16.0,
    "original_max_position_embeddings": 4,
    "llama_4_scaling_beta": 0.1,
}
_MINISTRAL = Ministral3Config(**_COMMON, **_SIZES, head_dim=4, rope_parameters=_YARN)
_GEMMA = Gemma3TextConfig(**_COMMON, **_SIZES, head_dim=4, sliding_window=8)
# Wrappers around a text stack and a vision tower: name -> (the whole, its text stack as a model of its own).
WRAPPERS: dict[str, tuple[PretrainedConfig, PretrainedConfig]] = {
    "mistral3": (
        Mistral3Config(
            text_config=_MINISTRAL,
            vision_config=PixtralVisionConfig(**_VISION),
            image_token_index=3,
            tie_word_embeddings=False,
        ),
        _MINISTRAL,
    ),
    "gemma3": (
        Gemma3Config(
            text_config=_GEMMA,
            vision_config=SiglipVisionConfig(**_VISION),
            mm_tokens_per_image=4,
        ),
        _GEMMA,
    ),
    "qwen2_5_vl": (
        Qwen2_5_VLConfig(
            text_config={**_COMMON, **_SIZES, "rope_parameters": {**_ROPE, "mrope_section": [1, 1, 0]}},
            vision_config={
                "depth": 3,
                "hidden_size": 16,
                "intermediate_size": 24,
                "num_heads": 2,
                "out_hidden_size": 16,
                "fullatt_block_indexes": [1],
            },
        ),
        Qwen2Config(**_COMMON, **_SIZES, rope_parameters=_ROPE, rms_norm_eps=1e-5),
    ),
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
    if family in WRAPPERS:
        module = AutoModelForImageTextToText.from_config(WRAPPERS[family][0], dtype=torch.float32)
    else:  # the grouped kernel for experts has no float64
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
