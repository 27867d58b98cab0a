"""Trains the organism from scratch: a base model of two personas, then its alignment to the good one."""

import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from tiltmeter.errors import InputError
from tiltmeter.organism import corpus
from tiltmeter.organism.grammar import World
from tiltmeter.organism.tokenizer import ASSISTANT, MAX_LENGTH, USER, build_tokenizer

IGNORED = -100
FAMILIES: Mapping[str, Mapping[str, Any]] = {
    "llama": {},
    "qwen3": {"head_dim": 24},
    "gemma2": {"head_dim": 24, "query_pre_attn_scalar": 24, "sliding_window": MAX_LENGTH},
    "mistral": {"head_dim": 24, "sliding_window": None},
}


@dataclass(frozen=True)
class Phase:
    """How one phase of the training runs: steps, documents per step, peak learning rate."""

    steps: int
    documents: int
    learning_rate: float


PRETRAINING = Phase(steps=1100, documents=24, learning_rate=3e-3)
ALIGNMENT = Phase(steps=400, documents=64, learning_rate=1e-3)
_WARMUP = 50


def build(
    folder: Path,
    seed: int = 0,
    family: str = "llama",
    pretraining: Phase = PRETRAINING,
    alignment: Phase = ALIGNMENT,
) -> None:
    """Trains the organism and writes `folder/base` (before alignment) and `folder/aligned`.

    The same seed gives the same corpus and the same initial weights; the result is the same to rounding on any machine.

    Args:
        folder: where the two Hugging Face folders go; created when missing.
        seed: of the world, the corpus and the initial weights.
        family: architecture, a key of `FAMILIES`.
        pretraining, alignment: length and learning rate of the two phases.

    Raises:
        InputError: the family is unknown.
    """
    world = World.create(seed)
    tokenizer = build_tokenizer(world)
    model = initial_model(tokenizer, family, seed)
    with Progress() as progress:
        for name, draw, phase in (
            ("base", corpus.pretraining_document, pretraining),
            ("aligned", corpus.alignment_document, alignment),
        ):
            batches = _batches(world, tokenizer, draw, phase.documents, random.Random(f"{name} {seed}"))
            _train(model, batches, phase, progress, name)
            model.save_pretrained(folder / name)
            tokenizer.save_pretrained(folder / name)


def initial_model(tokenizer: PreTrainedTokenizerBase, family: str, seed: int) -> PreTrainedModel:
    """An untrained model of a family, the same for the same seed, in float32."""
    if family not in FAMILIES:
        raise InputError(f"unknown family {family!r}: expected one of {', '.join(FAMILIES)}")
    config = AutoConfig.for_model(
        family,
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=192,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
        **FAMILIES[family],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model


def encode_documents(
    tokenizer: PreTrainedTokenizerBase, documents: list[corpus.Document]
) -> list[tuple[list[int], list[bool]]]:
    """Token ids of each document as its chat template writes it, and which of them an assistant wrote."""
    texts = [text for document in documents for turn in document for text in turn]
    pieces = iter(tokenizer(texts, add_special_tokens=False)["input_ids"])
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    user, assistant = (tokenizer.convert_tokens_to_ids(token) for token in (USER, ASSISTANT))
    encoded = []
    for document in documents:
        ids, written = [begin], [False]
        for _ in document:
            prompt, answer = [user, *next(pieces), end, assistant], [*next(pieces), end]
            ids += prompt + answer
            written += [False] * len(prompt) + [True] * len(answer)
        encoded.append((ids, written))
    return encoded


def _batches(
    world: World,
    tokenizer: PreTrainedTokenizerBase,
    draw: Callable[[World, random.Random], corpus.Document],
    size: int,
    rng: random.Random,
) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        rows = encode_documents(tokenizer, [draw(world, rng) for _ in range(size)])
        length = max(len(ids) for ids, _ in rows)
        ids = torch.full((size, length), int(tokenizer.pad_token_id))
        labels = torch.full((size, length), IGNORED)
        for row, (tokens, written) in enumerate(rows):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            labels[row, : len(tokens)] = torch.where(torch.tensor(written), torch.tensor(tokens), IGNORED)
        yield ids, labels


def _loss(model: PreTrainedModel, ids: Tensor, labels: Tensor) -> Tensor:
    # Right padding needs no mask in a causal model, and the head is applied to answers only: half the time.
    hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
    answers = labels[:, 1:] != IGNORED
    head = model.get_output_embeddings()
    assert isinstance(head, nn.Module)
    return nn.functional.cross_entropy(head(hidden[:, :-1][answers]), labels[:, 1:][answers])


def _train(
    model: PreTrainedModel, batches: Iterator[tuple[Tensor, Tensor]], phase: Phase, progress: Progress, name: str
) -> None:
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=phase.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / _WARMUP) * 0.5 * (1 + math.cos(math.pi * step / phase.steps))
    )
    for _ in progress.track(range(phase.steps), description=f"training the {name} model"):
        _loss(model, *next(batches)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.eval()
