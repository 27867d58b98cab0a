"""What coordinates and Gram cost, as ratios to one plain forward+backward over the same examples, in one run.

python benchmarks/coordinates.py --out benchmarks/coordinates.json
"""

import gc
import time
from collections.abc import Callable

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from tiltmeter.curvature.fisher import Fisher
from tiltmeter.layers import widths
from tiltmeter.likelihood import batch_log_likelihoods
from tiltmeter.models import Model, assemble
from tiltmeter.skills import Example, Skill
from tiltmeter.tokens import batches
from tiltmeter.updates.update import Update

Task = Callable[[], object]


def random_model(width: int = 256, blocks: int = 4, words: int = 1000) -> Model:
    """A random Llama, and a tokenizer that knows the words w0, w1, ..."""
    core = Tokenizer(models.WordLevel({f"w{i}": i for i in range(words)}, unk_token="w0"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="w0")
    config = LlamaConfig(
        vocab_size=words,
        hidden_size=width,
        intermediate_size=width * 11 // 4,
        num_hidden_layers=blocks,
        num_attention_heads=width // 64,
    )
    torch.manual_seed(0)
    return assemble(AutoModelForCausalLM.from_config(config), tokenizer)


def random_skill(examples: int = 32, tokens: int = 128, words: int = 1000) -> Skill:
    """Random words, half of each example prompt and half completion."""
    ids = torch.randint(words, (examples, tokens), generator=torch.Generator().manual_seed(1))
    texts = [[f"w{i}" for i in row] for row in ids.tolist()]
    half = tokens // 2
    return Skill(
        "random",
        tuple(
            Example(({"role": "user", "content": " ".join(text[:half]) + " "},), " ".join(text[half:]), f"row {row}")
            for row, text in enumerate(texts)
        ),
    )


def random_updates(model: Model, modules: list[str], count: int, rank: int | None) -> list[Update]:
    """Gaussian updates, dense or in factors."""
    shapes = {name: widths(model.linears[name]) for name in modules}
    return [
        Update.from_tensors(
            {
                n: torch.randn(o, i) if rank is None else (torch.randn(o, rank), torch.randn(rank, i))
                for n, (o, i) in shapes.items()
            }
        )
        for _ in range(count)
    ]


def tasks(model: Model, skill: Skill) -> dict[str, Task]:
    """Everything that is timed; the first is the measure of the rest."""
    fisher = Fisher(model, skill)
    encoded = fisher.encoded

    def plain() -> None:
        for batch in batches(encoded, 8, model.tokenizer):
            batch_log_likelihoods(model.module, batch).sum().backward()
        model.module.zero_grad(set_to_none=True)

    def inputs_only() -> None:
        for parameter in model.module.parameters():
            parameter.requires_grad_(False)
        handle = model.module.get_input_embeddings().register_forward_hook(lambda m, i, o: o.requires_grad_())
        plain()
        handle.remove()
        for parameter in model.module.parameters():
            parameter.requires_grad_(True)

    adapter = random_updates(model, fisher.modules, 1, rank=8)
    dense = random_updates(model, fisher.modules, 8, rank=None)
    return {
        "plain forward+backward": plain,
        "backward for inputs only (the limit)": inputs_only,
        "coordinates of one adapter (rank 8)": lambda: fisher.coordinates(adapter),
        "coordinates of one dense update": lambda: fisher.coordinates(dense[:1]),
        "coordinates of eight dense updates": lambda: fisher.coordinates(dense),
        "Gram of every module": lambda: Fisher(model, skill).gram(),
    }


def seconds(task: Task) -> float:
    """Wall time of one run."""
    gc.collect()
    start = time.perf_counter()
    task()
    return time.perf_counter() - start
