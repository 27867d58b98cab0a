"""Perplexity on texts: how surprised a model is by what it should still know."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.errors import InputError
from tiltmeter.intervals import Interval, ratio_interval
from tiltmeter.likelihood import log_likelihoods
from tiltmeter.models import Model, context_length
from tiltmeter.tokens import Encoded

WINDOW = 1024


@dataclass(frozen=True)
class Perplexity:
    """Losses on N texts.

    Attributes:
        losses: `-sum_t log pi(y_t | y_<t)` of each text, in nats.
        tokens: predicted tokens of each text.
    """

    losses: Float[Tensor, " N"]
    tokens: Float[Tensor, " N"]

    @property
    def value(self) -> Interval:
        """`exp(sum losses / sum tokens)`; the interval resamples texts."""
        mean = ratio_interval(self.losses.numpy(), self.tokens.numpy())
        return Interval(*(math.exp(bound) for bound in (mean.mean, mean.low, mean.high)))


def perplexity(model: Model, texts: Sequence[str], window: int = WINDOW, batch_size: int = 4) -> Perplexity:
    """The loss on plain texts, without a chat template, special tokens added as the tokenizer does.

    A text longer than `window` (at most the model's positions) is read by windows that slide by half their length: each
    token is predicted once, from everything before it in the text, or from at least half a window. The first token of
    the text is not predicted. Longer windows make smaller perplexities: compare models by the same one and tokenizer.

    Raises:
        InputError: no text, a text of fewer than two tokens, a window of fewer than two.
    """
    size = min(window, context_length(model))
    if size < 2:
        raise InputError(f"expected a window of two or more tokens, got {size}")
    if not texts:
        raise InputError("expected at least one text")
    pieces = [(row, piece) for row, text in enumerate(texts) for piece in _windows(_ids(model, text, row), size)]
    rows = torch.tensor([row for row, _ in pieces])
    found = log_likelihoods(model, [piece for _, piece in pieces], batch_size)
    counts = torch.tensor([sum(piece.is_completion) for _, piece in pieces], dtype=torch.float64)
    zeros = torch.zeros(len(texts), dtype=torch.float64)
    return Perplexity(zeros.index_add(0, rows, -found), zeros.index_add(0, rows, counts))


def _ids(model: Model, text: str, row: int) -> list[int]:
    ids: list[int] = model.tokenizer(text)["input_ids"]
    if len(ids) < 2:
        raise InputError(f"text {row + 1}: expected two or more tokens, got {len(ids)}")
    return ids


def _windows(ids: list[int], size: int) -> Iterator[Encoded]:
    """Each window with the tokens that no window before it has predicted."""
    done = 1
    while done < len(ids):
        end = min(size if done == 1 else done + size // 2, len(ids))
        start = max(0, end - size)
        yield Encoded(ids[start:end], [place >= done for place in range(start, end)])
        done = end
