"""From skills to token ids: the chat template, which tokens are the completion's, and padded batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from tiltmeter.errors import InputError
from tiltmeter.models import Model, context_length
from tiltmeter.skills import Example, Message, Skill


@dataclass(frozen=True)
class Encoded:
    """One example as token ids, and which of them belong to the completion."""

    ids: list[int]
    is_completion: list[bool]


@dataclass(frozen=True)
class Batch:
    """Padded examples: `rows` are their indices in the sequence that was batched, `place` their place in batch order.

    `is_completion[b, t]` says that token t of example b is to be predicted (from the tokens before it).
    """

    rows: list[int]
    place: slice
    ids: Int[Tensor, "B T"]
    attention_mask: Int[Tensor, "B T"]
    is_completion: Bool[Tensor, "B T"]

    @property
    def position_ids(self) -> Int[Tensor, "B T"]:
        """Positions that count real tokens only, so that left padding changes nothing."""
        return (self.attention_mask.cumsum(1) - 1).clamp(min=0)


def encode(skill: Skill, tokenizer: PreTrainedTokenizerBase, max_length: int | None = None) -> list[Encoded]:
    """Each example with the chat template applied, cut on the right to `max_length` tokens.

    The completion is everything that the template adds after the generation prompt, the end-of-turn token included;
    without a template, the completion and the end-of-sequence token.

    Raises:
        InputError: a completion that is empty after the cut, a template that rewrites the prompt; it names the row.
    """
    return [_encode(example, tokenizer, max_length) for example in skill.examples]


def encode_within(model: Model, skill: Skill, max_length: int | None = None) -> list[Encoded]:
    """`encode` by a model's tokenizer, for passes through that model.

    Raises:
        InputError: as `encode`; an example longer than the model's positions; it names the row.
    """
    encoded = encode(skill, model.tokenizer, max_length)
    for example, ids in zip(skill.examples, encoded, strict=True):
        if len(ids.ids) > context_length(model):
            raise InputError(
                f"{example.where}: {len(ids.ids)} tokens, the model takes {context_length(model)}: give max_length"
            )
    return encoded


def encode_prompt(messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase, where: str = "prompt") -> list[int]:
    """The ids of a conversation up to the place where the answer begins."""
    text, is_rendered = _prompt_text(messages, tokenizer, where)
    ids: list[int] = tokenizer(text, add_special_tokens=not is_rendered)["input_ids"]
    return ids


def batches(
    encoded: Sequence[Encoded], size: int, tokenizer: PreTrainedTokenizerBase, device: torch.device | str = "cpu"
) -> Iterator[Batch]:
    """Batches of examples of similar length, padded on the tokenizer's padding side."""
    order = sorted(range(len(encoded)), key=lambda row: len(encoded[row].ids), reverse=True)
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        ids, mask, is_completion = _pad([encoded[row] for row in rows], tokenizer)
        yield Batch(rows, slice(start, start + len(rows)), ids.to(device), mask.to(device), is_completion.to(device))


def _pad(group: Sequence[Encoded], tokenizer: PreTrainedTokenizerBase) -> tuple[Tensor, Tensor, Tensor]:
    length = max(len(example.ids) for example in group)
    ids = torch.full((len(group), length), tokenizer.pad_token_id or 0)
    mask = torch.zeros(len(group), length, dtype=torch.long)
    is_completion = torch.zeros(len(group), length, dtype=torch.bool)
    for index, example in enumerate(group):
        count = len(example.ids)
        place = slice(length - count, length) if tokenizer.padding_side == "left" else slice(0, count)
        ids[index, place] = torch.tensor(example.ids)
        mask[index, place] = 1
        is_completion[index, place] = torch.tensor(example.is_completion)
    return ids, mask, is_completion


def _encode(example: Example, tokenizer: PreTrainedTokenizerBase, max_length: int | None) -> Encoded:
    prompt, is_rendered = _prompt_text(example.messages, tokenizer, example.where)
    text = _full_text(example, prompt, tokenizer) if is_rendered else prompt + example.completion
    tokens = tokenizer(text, add_special_tokens=not is_rendered, return_offsets_mapping=True)
    ids = list(tokens["input_ids"])
    # A special token of the tokenizer has the empty span (0, 0); one across the border belongs to the completion.
    is_completion = [end > len(prompt) for _, end in tokens["offset_mapping"]]
    if not is_rendered and tokenizer.eos_token_id is not None:
        if ids[-1] == tokenizer.eos_token_id:
            ids, is_completion = ids[:-1], is_completion[:-1]
        ids, is_completion = [*ids, tokenizer.eos_token_id], [*is_completion, True]
    ids, is_completion = ids[:max_length], is_completion[:max_length]
    # The first token has nothing before it to be predicted from.
    if not any(is_completion[1:]):
        raise InputError(f"{example.where}: no completion token is left of {len(ids)} tokens (max_length={max_length})")
    return Encoded(ids, [False, *is_completion[1:]])


def _prompt_text(messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase, where: str) -> tuple[str, bool]:
    """The text up to the answer, and whether a chat template made it."""
    if tokenizer.chat_template:
        return _render(messages, tokenizer, where, add_generation_prompt=True), True
    if len(messages) != 1:
        raise InputError(f"{where}: a conversation of {len(messages)} turns needs a chat template, the model has none")
    return messages[0]["content"], False


def _full_text(example: Example, prompt: str, tokenizer: PreTrainedTokenizerBase) -> str:
    turns = [*example.messages, {"role": "assistant", "content": example.completion}]
    text = _render(turns, tokenizer, example.where, add_generation_prompt=False)
    if not text.startswith(prompt):
        raise InputError(f"{example.where}: the chat template renders the prompt differently once an answer follows it")
    return text


def _render(
    messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase, where: str, add_generation_prompt: bool
) -> str:
    try:
        text = tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=add_generation_prompt
        )
    except Exception as error:  # a template is somebody else's program
        raise InputError(f"{where}: the model's chat template fails: {str(error) or type(error).__name__}") from error
    return str(text)
