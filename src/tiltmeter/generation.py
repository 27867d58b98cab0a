"""Answers of a model: batched generation with left padding, sampled with a seed of each example's own."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated, TypeAlias

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
from transformers.generation.logits_process import MinPLogitsWarper, TopPLogitsWarper

from tiltmeter.errors import InputError
from tiltmeter.models import Model, context_length
from tiltmeter.tokens import Encoded, encode_prompt


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn. The defaults are the collapse study's; temperature 0 is greedy.

    `min_p` leaves out tokens less likely than that share of the likeliest one's probability.
    """

    temperature: NonNegativeFloat = 0.7
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.8
    top_k: NonNegativeInt = 20
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    max_new_tokens: PositiveInt = 128
    seed: int = 0


GREEDY = Sampling(temperature=0.0)
MODEL_ITSELF = Sampling(temperature=1.0, top_p=1.0, top_k=0)

Draw: TypeAlias = tuple[int, int]  # the row of a prompt in its set, and the number of the sample; seeds come from both


@dataclass(frozen=True)
class Answer:
    """One answer: its text, and whether the model ended it ("end") or the limit of tokens did ("length")."""

    prompt: str
    text: str
    stop: str


def generate_answers(model: Model, prompts: Sequence[str], sampling: Sampling, batch_size: int = 32) -> list[Answer]:
    """Answers to prompts, each put as one user turn. They do not depend on the batch size beyond rounding."""
    encoded = encode_prompts(model, prompts)
    return [
        read_answer(model, prompt, ids)
        for prompt, ids in zip(prompts, generate_ids(model, encoded, sampling, batch_size), strict=True)
    ]


def encode_prompts(model: Model, prompts: Sequence[str]) -> list[list[int]]:
    """The ids of each prompt put as one user turn, up to the place where the answer begins."""
    return [encode_prompt([{"role": "user", "content": prompt}], model.tokenizer) for prompt in prompts]


def read_answer(model: Model, prompt: str, ids: list[int]) -> Answer:
    """The answer that new ids make."""
    stop = "end" if ids and ids[-1] in _end_ids(model) else "length"
    return Answer(prompt, str(model.tokenizer.decode(ids, skip_special_tokens=True)).strip(), stop)


def generate_ids(
    model: Model, prompts: Sequence[list[int]], sampling: Sampling, batch_size: int = 32
) -> list[list[int]]:
    """New ids for each prompt, up to and including the end-of-turn token; no more than fit behind the longest prompt.

    Raises:
        InputError: a prompt that leaves no room for an answer.
    """
    result: list[list[int]] = [[] for _ in prompts]
    for draws in plan_batches(prompts, batch_size):
        for (row, _), ids in zip(draws, generate_batch(model, prompts, draws, sampling), strict=True):
            result[row] = ids
    return result


def plan_batches(prompts: Sequence[Sequence[int]], batch_size: int, samples: int = 1) -> list[list[Draw]]:
    """Every sample of every prompt, those of similar length together; the same batches whatever is done already."""
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    draws = [(row, sample) for row in order for sample in range(samples)]
    return [draws[start : start + batch_size] for start in range(0, len(draws), batch_size)]


def generate_batch(
    model: Model, prompts: Sequence[list[int]], draws: Sequence[Draw], sampling: Sampling
) -> list[list[int]]:
    """New ids for some draws from a whole set of prompts, as `generate_ids` makes them."""
    limit = min(sampling.max_new_tokens, _room(model, prompts))
    chosen = [prompts[row] for row, _ in draws]
    return list(_generate(model, chosen, draws, replace(sampling, max_new_tokens=limit)))


def resample(model: Model, encoded: Sequence[Encoded], seed: int = 0) -> list[Encoded]:
    """The same prompts with completions drawn from the model itself, at most twice as long as the longest given one."""
    prompts = [example.ids[: example.is_completion.index(True)] for example in encoded]
    limit = 2 * max(sum(example.is_completion) for example in encoded)
    sampling = replace(MODEL_ITSELF, max_new_tokens=limit, seed=seed)
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


def _generate(model: Model, prompts: list[list[int]], draws: Sequence[Draw], sampling: Sampling) -> Iterator[list[int]]:
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
            logits_processor=_processors(sampling, draws),
            max_new_tokens=sampling.max_new_tokens,
            pad_token_id=model.tokenizer.pad_token_id,
            eos_token_id=sorted(end_ids) or None,
        )
    for new in output[:, length:].tolist():
        ends = [index for index, token in enumerate(new) if token in end_ids]
        yield new[: ends[0] + 1] if ends else new


def _processors(sampling: Sampling, draws: Sequence[Draw]) -> LogitsProcessorList:
    if sampling.temperature == 0:
        return LogitsProcessorList([RefuseNaN()])
    steps: list[LogitsProcessor] = [RefuseNaN(), TemperatureLogitsWarper(sampling.temperature)]
    if sampling.top_k:
        steps.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        steps.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        steps.append(MinPLogitsWarper(sampling.min_p))
    return LogitsProcessorList([*steps, GumbelNoise(draws, sampling.seed)])


class RefuseNaN(LogitsProcessor):
    """Ends a generation that would go on with arbitrary tokens.

    transformers computes NaN for padded rows with sliding windows and eager attention in float64 (Gemma 2).

    Raises:
        InputError: a score is NaN.
    """

    def __call__(self, input_ids: Int[Tensor, "B T"], scores: Float[Tensor, "B V"]) -> Float[Tensor, "B V"]:
        if scores.isnan().any():
            raise InputError("the model gives NaN for the next token; load it in float32")
        return scores


class GumbelNoise(LogitsProcessor):
    """Adds Gumbel noise, so that the most likely token is a draw from the softmax, with one generator an example.

    Batched generation draws from one stream for the whole batch, so that an answer would depend on its neighbours.
    """

    def __init__(self, draws: Sequence[Draw], seed: int) -> None:
        self._generators = [torch.Generator().manual_seed(_draw_seed(seed, *draw)) for draw in draws]

    def __call__(self, input_ids: Int[Tensor, "B T"], scores: Float[Tensor, "B V"]) -> Float[Tensor, "B V"]:
        size, wide = scores.shape[1], torch.float64  # in float32 the noise ends at 17, too early for rare tokens
        uniform = torch.stack([torch.rand(size, generator=each, dtype=wide) for each in self._generators])
        return scores - torch.log(-torch.log(uniform)).to(scores.device)


def _draw_seed(seed: int, row: int, sample: int) -> int:
    """A seed for each triple of numbers, the same in every process and release of Python."""
    further = f" {sample}" if sample else ""
    return int.from_bytes(hashlib.sha256(f"{seed} {row}{further}".encode()).digest()[:7])


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
