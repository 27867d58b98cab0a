"""One set of examples read by the model at many points: likelihoods, KL from the base, features beside the ends'."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tiltmeter.errors import NothingMeasuredError
from tiltmeter.geometry.features import Linearity, LinearitySums, block_outputs
from tiltmeter.likelihood import completion_lengths, completion_logits, token_kl
from tiltmeter.models import Model
from tiltmeter.tokens import Batch, Encoded, batches


@dataclass(frozen=True)
class Reading:
    """What one model finds on a set of N examples; sums over each one's completion tokens.

    Attributes:
        log_likelihoods: `log pi(y_n | x_n)`.
        kl: `KL(base || model)`; None where it was not asked for.
        linearity: of the features; None outside of [0, 1].
    """

    log_likelihoods: Float[Tensor, " N"]
    kl: Float[Tensor, " N"] | None = None
    linearity: Linearity | None = None


@dataclass(frozen=True)
class _Pass:
    """A batch's T completion tokens, from the positions that predict them.

    `rows` are the tokens' examples; the position before the completion's first token (the prompt's last) is in, that of
    its last token is not.
    """

    rows: Int[Tensor, " T"]
    log_probabilities: Float[Tensor, "T V"]
    tokens: Int[Tensor, " T"]
    features: list[Float[Tensor, "T h"]]


class Probe:
    """A set of examples; the base and the ends of the path are shown to it first.

    Args:
        model: the base.
        encoded: the examples.
        batch_size: examples per forward pass.
        with_kl: keep the base's log-probabilities for `KL(base || model)`.
    """

    def __init__(self, model: Model, encoded: Sequence[Encoded], batch_size: int, with_kl: bool) -> None:
        self.encoded, self.with_kl = encoded, with_kl
        self.tokens = completion_lengths(encoded)
        self._batches = list(batches(encoded, batch_size, model.tokenizer, model.device))
        self._base: list[Tensor] = []
        self._ends: list[list[list[Tensor]]] = []

    @property
    def kept_bytes(self) -> int:
        """Memory of what is kept of the base and the ends."""
        kept = [*self._base, *(f for end in self._ends for batch in end for f in batch)]
        return sum(tensor.nbytes for tensor in kept)

    def keep_base(self, model: Model) -> None:
        """Keep the base's log-probabilities."""
        if self.with_kl:
            self._base = [each.log_probabilities.cpu() for each in self._passes(model)]

    def keep_end(self, model: Model) -> None:
        """Keep the features of an end: of `theta(0)` first, then of `theta(1)`."""
        wide = torch.promote_types(model.module.dtype, torch.float32)
        self._ends.append([[f.to(wide) for f in each.features] for each in self._passes(model)])

    def read(self, model: Model, s: float | None) -> Reading:
        """What the model at a point finds; without features where s is None, for a model beside the path.

        Raises:
            NothingMeasuredError: likelihoods that are not finite.
        """
        count = len(self.encoded)
        likelihoods, kl = torch.zeros(2, count, dtype=torch.float64)
        sums: LinearitySums | None = None
        for index, each in enumerate(self._passes(model)):
            found = each.log_probabilities.gather(1, each.tokens[:, None])[:, 0]
            likelihoods.index_add_(0, each.rows, found.double().cpu())
            if self.with_kl:
                base = self._base[index].to(each.log_probabilities)
                kl.index_add_(0, each.rows, token_kl(base, each.log_probabilities).double().cpu())
            if s is not None and 0 <= s <= 1:
                sums = sums or LinearitySums(s, (count, len(each.features), each.features[0].shape[1]))
                sums.add(each.rows, each.features, self._ends[0][index], self._ends[1][index])
        if not torch.isfinite(likelihoods).all():
            raise NothingMeasuredError(f"the likelihoods at s = {s} are no numbers: choose points nearer to 0")
        linearity = None if sums is None else sums.total(model.module.dtype)
        return Reading(likelihoods, kl if self.with_kl else None, linearity)

    def _passes(self, model: Model) -> Iterator[_Pass]:
        with torch.no_grad(), block_outputs(model) as outputs:
            for batch in self._batches:
                yield _forward(model, batch, outputs)


def _forward(model: Model, batch: Batch, outputs: list[Tensor]) -> _Pass:
    predicts = batch.is_completion[:, 1:]
    return _Pass(
        rows=torch.tensor(batch.rows)[predicts.nonzero()[:, 0].cpu()],
        log_probabilities=completion_logits(model.module, batch).log_softmax(-1),
        tokens=batch.ids[:, 1:][predicts],
        features=[output[:, :-1][predicts].cpu() for output in outputs],
    )


def memory_needed(model: Model, with_kl: Sequence[Encoded], every: Sequence[Encoded]) -> int:
    """Bytes that probes will keep: V log-probabilities of each token with KL, 2 L h features of each token."""
    config = model.module.config.get_text_config()
    size = torch.promote_types(model.module.dtype, torch.float32).itemsize
    tokens = [int(completion_lengths(encoded).sum()) for encoded in (with_kl, every)]
    per_token = int(config.vocab_size), 2 * len(model.blocks) * int(config.hidden_size)
    return size * (tokens[0] * per_token[0] + tokens[1] * per_token[1])
