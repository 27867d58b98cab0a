"""Answers of a model: batched generation with left padding, sampled with a seed of each example's own."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from jaxtyping import Float, Int
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
)
from transformers.generation.logits_process import TopPLogitsWarper

from tiltmeter.errors import InputError
from tiltmeter.models import Model, context_length
from tiltmeter.tokens import Encoded, encode_prompt


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn. The defaults are the collapse study's (min-p 0); temperature 0 is greedy."""

    temperature: NonNegativeFloat = 0.7
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.8
    top_k: NonNegativeInt = 20
    max_new_tokens: PositiveInt = 128
    seed: int = 0


GREEDY = Sampling(temperature=0.0)
MODEL_ITSELF = Sampling(temperature=1.0, top_p=1.0, top_k=0)


@dataclass(frozen=True)
class Answer:
    """One answer: its text, and whether the model ended it ("end") or the limit of tokens did ("length")."""

    prompt: str
    text: str
    stop: str


def generate_answers(model: Model, prompts: Sequence[str], sampling: Sampling, batch_size: int = 32) -> list[Answer]:
    """Answers to prompts, each put as one user turn. They do not depend on the batch size beyond rounding."""
    encoded = [encode_prompt([{"role": "user", "content": prompt}], model.tokenizer) for prompt in prompts]
    answers = []
    for prompt, ids in zip(prompts, generate_ids(model, encoded, sampling, batch_size), strict=True):
        stop = "end" if ids and ids[-1] in _end_ids(model) else "length"
        text = str(model.tokenizer.decode(ids, skip_special_tokens=True))
        answers.append(Answer(prompt, text.strip(), stop))
    return answers


def generate_ids(
    model: Model, prompts: Sequence[list[int]], sampling: Sampling, batch_size: int = 32
) -> list[list[int]]:
    """New ids for each prompt, up to and including the end-of-turn token; no more than fit behind the longest prompt.

    Raises:
        InputError: a prompt that leaves no room for an answer.
    """
    result: list[list[int]] = [[] for _ in prompts]
    sampling = replace(sampling, max_new_tokens=min(sampling.max_new_tokens, _room(model, prompts)))
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        for row, ids in zip(rows, _generate(model, [prompts[row] for row in rows], rows, sampling), strict=True):
            result[row] = ids
    return result


def resample(model: Model, encoded: Sequence[Encoded], seed: int = 0) -> list[Encoded]:
    """The same prompts with completions drawn from the model itself, at most twice as long as the longest given one."""
    prompts = [example.ids[: example.is_completion.index(True)] for example in encoded]
    limit = 2 * max(sum(example.is_completion) for example in encoded)
    sampling = Sampling(1.0, 1.0, 0, max_new_tokens=limit, seed=seed)
    drawn = generate_ids(model, prompts, sampling)
    return [
        Encoded(prompt + new, [False] * len(prompt) + [True] * len(new))
        for prompt, new in zip(prompts, drawn, strict=True)
    ]


def _room(model: Model, prompts: Sequence[list[int]]) -> int:
    """Positions of the model that no prompt takes."""
    longest, positions = max(map(len, prompts), default=0), context_length(model)
    if longest >= positions:
        raise InputError(f"a prompt has {longest} tokens: no room for an answer, the model takes {positions}")
    return positions - longest


def _generate(model: Model, prompts: list[list[int]], rows: list[int], sampling: Sampling) -> Iterator[list[int]]:
    length, end_ids = max(len(prompt) for prompt in prompts), _end_ids(model)
    ids = torch.full((len(prompts), length), model.tokenizer.pad_token_id or 0)
    mask = torch.zeros_like(ids)
    for index, prompt in enumerate(prompts):
        ids[index, length - len(prompt) :] = torch.tensor(prompt)
        mask[index, length - len(prompt) :] = 1
    with torch.no_grad(), _plain_settings(model):
        output: Tensor = model.module.generate(  # type: ignore[operator]
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            do_sample=False,
            logits_processor=_processors(sampling, rows),
            max_new_tokens=sampling.max_new_tokens,
            pad_token_id=model.tokenizer.pad_token_id,
            eos_token_id=sorted(end_ids) or None,
        )
    for new in output[:, length:].tolist():
        ends = [index for index, token in enumerate(new) if token in end_ids]
        yield new[: ends[0] + 1] if ends else new


def _processors(sampling: Sampling, rows: Sequence[int]) -> LogitsProcessorList:
    if sampling.temperature == 0:
        return LogitsProcessorList()
    steps: list[LogitsProcessor] = [TemperatureLogitsWarper(sampling.temperature)]
    if sampling.top_k:
        steps.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        steps.append(TopPLogitsWarper(sampling.top_p))
    return LogitsProcessorList([*steps, GumbelNoise(rows, sampling.seed)])


class GumbelNoise(LogitsProcessor):
    """Adds Gumbel noise, so that the most likely token is a draw from the softmax, with one generator an example.

    Batched generation draws from one stream for the whole batch, so that an answer would depend on its neighbours.
    """

    def __init__(self, rows: Sequence[int], seed: int) -> None:
        self._generators = [torch.Generator().manual_seed(_row_seed(seed, row)) for row in rows]

    def __call__(self, input_ids: Int[Tensor, "B T"], scores: Float[Tensor, "B V"]) -> Float[Tensor, "B V"]:
        size, wide = scores.shape[1], torch.float64  # in float32 the noise ends at 17, too early for rare tokens
        uniform = torch.stack([torch.rand(size, generator=each, dtype=wide) for each in self._generators])
        return scores - torch.log(-torch.log(uniform)).to(scores.device)


def _row_seed(seed: int, row: int) -> int:
    """A seed for each pair of numbers, the same in every process and release of Python."""
    return int.from_bytes(hashlib.sha256(f"{seed} {row}".encode()).digest()[:7])


@contextmanager
def _plain_settings(model: Model) -> Iterator[None]:
    """A checkpoint's own settings (repetition penalty, beams, ...) must not change what is measured."""
    own = model.module.generation_config
    model.module.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.module.generation_config = own


def _end_ids(model: Model) -> set[int]:
    """End-of-sequence ids of the tokenizer and of the model's generation settings."""
    configured = getattr(model.module.generation_config, "eos_token_id", None)
    listed = configured if isinstance(configured, list) else [configured]
    return {token for token in [model.tokenizer.eos_token_id, *listed] if token is not None}
