"""Other states in the place of a model's own, where it is about to answer: how far do they move the next token?"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.activations.capture import prompt_ends
from tiltmeter.activations.hook_points import Place
from tiltmeter.activations.steering import Edit, steered
from tiltmeter.errors import InputError
from tiltmeter.likelihood import logits_at, token_kl
from tiltmeter.models import Model
from tiltmeter.progress import track
from tiltmeter.tokens import Batch, Encoded, batches


class Seam:
    """The last token of each of N prompts at one hook point of a model, where other states can be put.

    Everything below the hook point is the model's own, so gradients with respect to the states pass only through what
    follows it. The model's own next-token logits [N, V] are held in memory, on the CPU.

    Args:
        model: in eval mode; changed by hooks only, while it runs.
        encoded: the N texts as token ids. A completion is left out: next tokens are compared where the answer begins,
            which is where the states are read too.
        block, place: the hook point, as for capture and steering.
        batch_size: texts per pass.

    Attributes:
        states: the model's own, [N, t] in float64.

    Raises:
        InputError: no texts, or one without tokens; no such block or part; states or logits that are not finite.
    """

    states: Float[Tensor, "N t"]

    def __init__(
        self, model: Model, encoded: Sequence[Encoded], block: str, place: Place = "output", batch_size: int = 16
    ) -> None:
        self._model, self._block, self._place, self._batch_size = model, block, place, batch_size
        self._prompts = _prompts(encoded)
        logits: list[Tensor] = []
        states: list[Tensor] = []

        def keep(hidden: Tensor) -> Tensor:
            states.append(hidden.double().cpu())
            return hidden

        plan = list(self._batches(self._prompts))
        with torch.no_grad():
            for batch in track(plan, "reading the target's own answers", len(plan)):
                logits.append(self._next_logits(batch, keep).cpu())
        self._own, self.states = _in_order(logits, plan), _in_order(states, plan)
        if not (self._own.isfinite().all() and self.states.isfinite().all()):
            raise InputError(f"{block}: the model computes NaN or Inf; load it in float32")

    def kl(self, states: Float[Tensor, "R t"], rows: Sequence[int] | None = None) -> Float[Tensor, " R"]:
        """`KL(own || with the states)` of the next token of each prompt, in nats and float64; differentiable.

        Args:
            states: what is put in place, cast to the model's dtype.
            rows: which prompts they belong to; all, in their order, if not given.

        Raises:
            InputError: not one state for each prompt, or not of the model's width.
        """
        rows = range(len(self._prompts)) if rows is None else rows
        if states.shape != (len(rows), self.states.shape[1]):
            expected = [len(rows), self.states.shape[1]]
            raise InputError(f"{self._block}: expected states of shape {expected}, got {list(states.shape)}")
        found, plan = [], list(self._batches([self._prompts[row] for row in rows]))
        for batch in plan:
            own = self._own[[rows[index] for index in batch.rows]]
            moved = self._next_logits(batch, _instead(states[batch.rows]))
            found.append(token_kl(*(each.to(moved.device).double().log_softmax(-1) for each in (own, moved))).cpu())
        return _in_order(found, plan)

    def _batches(self, prompts: Sequence[Encoded]) -> Iterator[Batch]:
        return batches(prompts, self._batch_size, self._model.tokenizer, self._model.device)

    def _next_logits(self, batch: Batch, edit: Edit) -> Float[Tensor, "B V"]:
        """Behind each prompt's last token, with the states there edited."""
        ends = prompt_ends(batch)
        places = ends.unique()
        with steered(self._model, {self._block: edit}, "last", self._place, ends):
            logits = logits_at(self._model.module, batch, places)
        behind: Tensor = logits[torch.arange(len(ends), device=ends.device), torch.searchsorted(places, ends)]
        return behind


def _instead(states: Float[Tensor, "B t"]) -> Edit:
    return lambda hidden: states.to(hidden)


def _in_order(parts: Sequence[Tensor], plan: Sequence[Batch]) -> Tensor:
    """Rows of batches in the order of the prompts."""
    rows = torch.tensor([row for batch in plan for row in batch.rows])
    return torch.cat(list(parts))[rows.argsort()]


def _prompts(encoded: Sequence[Encoded]) -> list[Encoded]:
    """Without their completions."""
    if not encoded:
        raise InputError("expected prompts of the target model, got none")
    ends = [text.is_completion.index(True) if any(text.is_completion) else len(text.ids) for text in encoded]
    for row, end in enumerate(ends, 1):
        if not end:
            raise InputError(f"text {row}: has no prompt tokens")
    return [Encoded(text.ids[:end], [False] * end) for text, end in zip(encoded, ends, strict=True)]
