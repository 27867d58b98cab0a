"""Exact probabilities that a model answers with one of some numbers, however many tokens it writes them in."""

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from tiltmeter.errors import InputError
from tiltmeter.models import Model

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
    """The probability of each number after each of N prompts, from full softmaxes in float64.

    A prompt is read once; what follows each beginning of a number is asked of the cached prompt.
    """
    steps = torch.empty(len(prompts), len(numbers.inner), len(numbers.tokens), dtype=torch.float64)
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]), reverse=True)
    with torch.no_grad():
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            steps[rows] = _steps(model, [prompts[row] for row in rows], numbers)
    return numbers.probabilities(steps)


def _steps(model: Model, prompts: list[list[int]], numbers: Numbers) -> Float[Tensor, "B P U"]:
    """The probability of each token of a number after each beginning of one."""
    mask = _padded([[1] * len(prompt) for prompt in prompts], 0, "left")
    read = _forward(model, _padded(prompts, model.tokenizer.pad_token_id or 0, "left"), mask)
    rest = numbers.inner[1:]
    if not rest:
        return _chosen(read.logits[:, -1:], numbers)
    after = [_after(model, read.past_key_values, mask, row, rest) for row in range(len(prompts))]
    return torch.cat([_chosen(read.logits[:, -1:], numbers), _chosen(torch.stack(after), numbers)], 1)


def _after(model: Model, cache: Any, mask: Int[Tensor, "B T"], row: int, nodes: Sequence[Path]) -> Float[Tensor, "P V"]:
    """The logits after each node that follows one row's prompt; padding stands behind the nodes, where it is unseen."""
    branch = copy.deepcopy(cache)
    branch.batch_select_indices(torch.full((len(nodes),), row, device=model.device))
    ids = _padded([list(node) for node in nodes], 0, "right")
    longer = torch.cat([mask[[row] * len(nodes)], torch.ones_like(ids)], 1)
    logits: Tensor = _forward(model, ids, longer, branch).logits
    return logits[range(len(nodes)), [len(node) - 1 for node in nodes]]


def _forward(model: Model, ids: Int[Tensor, "B T"], mask: Int[Tensor, "B S"], cache: Any = None) -> Any:
    inputs = {"input_ids": ids, "attention_mask": mask, "past_key_values": cache}
    accepted = inspect.signature(model.module.forward).parameters
    if "position_ids" in accepted:
        inputs["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    if "logits_to_keep" in accepted and cache is None:
        inputs["logits_to_keep"] = 1
    on_device = {name: value.to(model.device) if isinstance(value, Tensor) else value for name, value in inputs.items()}
    return model.module(**on_device, use_cache=True)


def _chosen(logits: Float[Tensor, "B P V"], numbers: Numbers) -> Float[Tensor, "B P U"]:
    return logits.double().softmax(-1)[..., numbers.tokens].cpu()


def _padded(rows: Sequence[list[int]], value: int, side: Literal["left", "right"]) -> Int[Tensor, "B T"]:
    return pad_sequence([torch.tensor(row) for row in rows], True, value, side)


def _paths(tokenizer: PreTrainedTokenizerBase, text: str) -> set[Path]:
    # Some tokenizers put blanks between tokens as they decode.
    found = {path for path in _ways(tokenizer, text) if "".join(str(tokenizer.decode(list(path))).split()) == text}
    if not found:
        raise InputError(f"the judge's tokenizer cannot write the score {text}")
    return found


def _ways(tokenizer: PreTrainedTokenizerBase, text: str) -> Iterator[Path]:
    def ids(of: str) -> Path:
        return tuple(tokenizer.encode(of, add_special_tokens=False))

    yield ids(text)
    yield ids(" " + text)
    line, with_line = ids("\n"), ids("\n" + text)
    if with_line[: len(line)] == line:
        yield with_line[len(line) :]
