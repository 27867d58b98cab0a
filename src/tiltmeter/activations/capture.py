"""Hidden states of a model on given texts, batch by batch."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tiltmeter.activations.hook_points import Place, Visit, visiting
from tiltmeter.errors import InputError
from tiltmeter.generation import encode_prompts
from tiltmeter.likelihood import logits_at
from tiltmeter.models import Model
from tiltmeter.progress import track
from tiltmeter.tokens import Batch, Encoded, batches

Tokens: TypeAlias = Literal["last", "prompt", "answer"]


@dataclass(frozen=True)
class Activations:
    """Hidden states at R tokens of some texts, in float32 on the CPU, by block.

    Attributes:
        states: block -> [R, d].
        rows: which text each token belongs to.
    """

    states: Mapping[str, Float[Tensor, "R d"]]
    rows: Int[Tensor, " R"]

    def per_prompt(self, block: str) -> Float[Tensor, "N d"]:
        """The mean over each text's tokens, accumulated in float64; texts in their order."""
        states = self.states[block]
        count = int(self.rows.max()) + 1
        sums = torch.zeros(count, states.shape[1], dtype=torch.float64).index_add_(0, self.rows, states.double())
        return sums / torch.bincount(self.rows, minlength=count)[:, None]


def prompts_only(model: Model, prompts: Sequence[str]) -> list[Encoded]:
    """Prompts put as one user turn each, up to the place where the answer begins."""
    return [Encoded(ids, [False] * len(ids)) for ids in encode_prompts(model, prompts)]


def capture(
    model: Model,
    encoded: Sequence[Encoded],
    blocks: Sequence[str],
    tokens: Tokens = "last",
    place: Place = "output",
    batch_size: int = 16,
) -> Activations:
    """The hidden states of whole texts in memory; see `captured_batches`. Rows of one text stand together."""
    found = captured_batches(model, list(batches(encoded, batch_size, model.tokenizer)), blocks, tokens, place)
    return gathered(track(found, "reading activations", -(-len(encoded) // batch_size)))


def captured_batches(
    model: Model, plan: Iterable[Batch], blocks: Sequence[str], tokens: Tokens = "last", place: Place = "output"
) -> Iterator[Activations]:
    """The hidden states of each batch, one pass a batch. They do not depend on the batch size beyond rounding.

    Args:
        model: in eval mode.
        plan: padded batches, on either side.
        blocks: names of blocks.
        tokens: "last" of the prompt, where the answer is predicted from; all of the "prompt"; those of the "answer",
            each where it is read (its own position).
        place: see `visiting`.

    Raises:
        InputError: a part or a token that is not there; states that are not finite, with the text's row.
    """
    for batch in plan:
        wanted = token_mask(batch, tokens)
        _check_all_there(batch, wanted, tokens)
        found = wanted.nonzero()
        texts, places = found.to(model.device).T
        kept: dict[str, Tensor] = {}
        visits = {block: _keeper(kept, block, texts, places) for block in blocks}
        with torch.no_grad(), visiting(model, visits, place):
            logits_at(model.module, _on(batch, model.device), torch.tensor([batch.ids.shape[1] - 1]))
        states = {block: hidden.cpu().float() for block, hidden in kept.items()}
        rows = torch.tensor(batch.rows)[found[:, 0]]
        _check_finite(states, rows)
        yield Activations(states, rows)


def gathered(parts: Iterable[Activations]) -> Activations:
    """Batches in one, in the order of the texts."""
    found = list(parts)
    rows = torch.cat([part.rows for part in found])
    order = rows.argsort(stable=True)
    places = order.argsort().split([len(part.rows) for part in found])
    states = {block: _placed([part.states[block] for part in found], places) for block in found[0].states}
    return Activations(states, rows[order])


def token_mask(batch: Batch, tokens: Tokens) -> Bool[Tensor, "B T"]:
    """Which tokens of a batch are meant."""
    if tokens == "answer":
        return batch.is_completion
    ends = prompt_ends(batch)[:, None]
    places = torch.arange(batch.ids.shape[1], device=batch.ids.device)[None]
    if tokens == "last":
        return places == ends
    return (places <= ends) & batch.attention_mask.bool()


def prompt_ends(batch: Batch) -> Int[Tensor, " B"]:
    """The place of each text's last prompt token: before its completion, or its very last one."""
    return torch.where(
        batch.is_completion.any(1), batch.is_completion.int().argmax(1) - 1, last_places(batch.attention_mask)
    )


def last_places(attention_mask: Int[Tensor, "B T"]) -> Int[Tensor, " B"]:
    """The place of the last real token of each row, on whichever side the padding is."""
    length = attention_mask.shape[1]
    places: Tensor = length - 1 - attention_mask.flip(1).argmax(1)
    return places


def _keeper(kept: dict[str, Tensor], block: str, texts: Int[Tensor, " R"], places: Int[Tensor, " R"]) -> Visit:
    """Keeps copies on the device until the pass is over: to fetch them inside makes a GPU wait at each block."""

    def keep(hidden: Tensor) -> None:
        kept[block] = hidden[texts.to(hidden.device), places.to(hidden.device)]

    return keep


def _placed(parts: Sequence[Tensor], places: Sequence[Tensor]) -> Float[Tensor, "R d"]:
    """Each part's rows at their places, copied once: with every token, a second copy costs as much as the hooks do."""
    whole = parts[0].new_empty(sum(map(len, parts)), parts[0].shape[1])
    for part, place in zip(parts, places, strict=True):
        whole.index_copy_(0, place, part)
    return whole


def _on(batch: Batch, device: torch.device) -> Batch:
    moved = (batch.ids.to(device), batch.attention_mask.to(device), batch.is_completion.to(device))
    return Batch(batch.rows, batch.place, *moved)


def _check_all_there(batch: Batch, wanted: Bool[Tensor, "B T"], tokens: Tokens) -> None:
    empty = (~wanted.any(1)).nonzero()[:, 0].tolist()
    if empty:
        raise InputError(f"text {batch.rows[empty[0]] + 1}: has no {tokens} tokens; give pairs with completions")


def _check_finite(states: Mapping[str, Tensor], rows: Int[Tensor, " R"]) -> None:
    for block, found in states.items():
        # amax keeps NaN and is several times as fast as isfinite().all(), which cost more than the hooks do
        broken = (~found.abs().amax(1).isfinite()).nonzero()[:, 0].tolist()
        if broken:
            raise InputError(f"{block}: the hidden state of text {int(rows[broken[0]]) + 1} is NaN or Inf")
