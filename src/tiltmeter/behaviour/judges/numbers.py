"""Exact probabilities that a model answers with one of some numbers, however many tokens it writes them in."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from tiltmeter.errors import InputError
from tiltmeter.likelihood import logits_at
from tiltmeter.models import Model
from tiltmeter.tokens import Batch

Path = tuple[int, ...]


@dataclass(frozen=True)
class Numbers:
    """Numbers as a tokenizer writes them at the beginning of an answer: plainly, after a blank, after a line's end.

    Attributes:
        paths: the token sequences of each number.
    """

    paths: Mapping[int, tuple[Path, ...]]

    @cached_property
    def nodes(self) -> list[Path]:
        """Every beginning of a path, the empty one first."""
        every = {path[:end] for paths in self.paths.values() for path in paths for end in range(len(path) + 1)}
        return sorted(every, key=lambda node: (len(node), node))

    @cached_property
    def inner(self) -> list[Path]:
        """The nodes that some path goes on from: where the model has to be asked."""
        return sorted({node[:-1] for node in self.nodes if node}, key=lambda node: (len(node), node))

    @cached_property
    def tokens(self) -> list[int]:
        """Every token of a path."""
        return sorted({node[-1] for node in self.nodes if node})

    @property
    def depth(self) -> int:
        """Tokens of the longest path."""
        return max(map(len, self.nodes))

    def probabilities(self, steps: Float[Tensor, "*N P U"]) -> dict[int, Float[Tensor, "*N"]]:
        """P(n): the answer begins with n, and does not go on to a longer one of the numbers.

        With `P(path)` the product of its steps, `P(n)` is the sum over the paths of n of `P(path)` less the probability
        of each step that leads from it to another node. Where every number is one token, P(n) is that token's.

        Args:
            steps: the probability of each of `tokens` after each of `inner`.
        """
        at = {node: index for index, node in enumerate(self.inner)}
        column = {token: index for index, token in enumerate(self.tokens)}
        reached: dict[Path, Tensor] = {(): torch.ones(steps.shape[:-2], dtype=steps.dtype)}
        for node in self.nodes[1:]:
            reached[node] = reached[node[:-1]] * steps[..., at[node[:-1]], column[node[-1]]]
        stays = dict(reached)
        for node in self.nodes[1:]:
            stays[node[:-1]] = stays[node[:-1]] - reached[node]
        return {number: torch.stack([stays[path] for path in paths]).sum(0) for number, paths in self.paths.items()}


def numbers_of(tokenizer: PreTrainedTokenizerBase, numbers: Sequence[int]) -> Numbers:
    """How a tokenizer writes numbers.

    Raises:
        InputError: a number that it cannot write.
    """
    return Numbers({number: tuple(sorted(_paths(tokenizer, str(number)))) for number in numbers})


def number_probabilities(
    model: Model, prompts: Sequence[list[int]], numbers: Numbers, batch_size: int = 8
) -> dict[int, Float[Tensor, " N"]]:
    """The probability of each number after each of N prompts, from full softmaxes in float64."""
    rows = [prompt + list(node) for prompt in prompts for node in numbers.inner]
    steps = torch.empty(len(rows), len(numbers.tokens), dtype=torch.float64)
    order = sorted(range(len(rows)), key=lambda row: len(rows[row]), reverse=True)
    with torch.no_grad():
        for start in range(0, len(order), batch_size):
            picked = order[start : start + batch_size]
            steps[picked] = _next(model, [rows[row] for row in picked])[:, numbers.tokens]
    return numbers.probabilities(steps.view(len(prompts), len(numbers.inner), len(numbers.tokens)))


def _next(model: Model, rows: list[list[int]]) -> Float[Tensor, "B V"]:
    """The probabilities of the next token after each row."""
    batch = _left_padded(rows, model)
    last = torch.tensor([batch.ids.shape[1] - 1], device=model.device)
    return logits_at(model.module, batch, last)[:, 0].double().softmax(-1).cpu()


def _left_padded(rows: list[list[int]], model: Model) -> Batch:
    length = max(map(len, rows))
    ids = torch.full((len(rows), length), model.tokenizer.pad_token_id or 0)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, length - len(row) :] = torch.tensor(row)
        mask[index, length - len(row) :] = 1
    nothing = torch.zeros_like(ids, dtype=torch.bool)
    return Batch(list(range(len(rows))), slice(0, len(rows)), ids.to(model.device), mask.to(model.device), nothing)


def _paths(tokenizer: PreTrainedTokenizerBase, text: str) -> set[Path]:
    found = {path for path in _ways(tokenizer, text) if path and str(tokenizer.decode(list(path))).strip() == text}
    if not found:
        raise InputError(f"the judge's tokenizer cannot write {text}")
    return found


def _ways(tokenizer: PreTrainedTokenizerBase, text: str) -> Iterator[Path]:
    def ids(of: str) -> Path:
        return tuple(tokenizer.encode(of, add_special_tokens=False))

    yield ids(text)
    yield ids(" " + text)
    line, with_line = ids("\n"), ids("\n" + text)
    if with_line[: len(line)] == line:
        yield with_line[len(line) :]
