"""How far a tuned model has gone from its base on a skill's completions: utility loss and KL."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.errors import InputError
from tiltmeter.intervals import Interval, mean_interval, ratio_interval
from tiltmeter.likelihood import completion_lengths, completion_logits, log_likelihoods, token_kl
from tiltmeter.models import Model
from tiltmeter.tokens import Encoded, batches

_TOKENS_AT_ONCE = 256  # float64 takes 1.2 MB a token where the vocabulary is 150,000


@dataclass(frozen=True)
class CompletionFigure:
    """A figure that adds up over the tokens of N completions, with its intervals.

    Attributes:
        by_example: summed over each example's completion tokens.
        tokens: completion tokens of each example.
    """

    by_example: Float[Tensor, " N"]
    tokens: Float[Tensor, " N"]

    @property
    def per_completion(self) -> Interval:
        """Mean over examples of the sum over tokens (reduction "sum")."""
        return mean_interval(self.by_example.numpy())

    @property
    def per_example_token(self) -> Interval:
        """Mean over examples of the mean over each one's tokens (reduction "mean")."""
        return mean_interval((self.by_example / self.tokens).numpy())

    @property
    def per_token(self) -> Interval:
        """Mean over all completion tokens."""
        return ratio_interval(self.by_example.numpy(), self.tokens.numpy())


class UtilityLoss(CompletionFigure):
    """`du = u(base) - u(tuned)`, `u = mean_n log pi(y_n|x_n)`: positive where the tuned model does worse.

    Under completions drawn from the base it is the mean KL divergence from base to tuned.
    """


class BaseKL(CompletionFigure):
    """`KL(base || tuned) = sum_t sum_v p_base(v|x, y_<t) log [p_base(v|x, y_<t) / p_tuned(v|x, y_<t)]`, in nats.

    At each completion token the whole next-token distributions are compared, after the same given tokens, so that it is
    never negative, and varies less than the utility loss. Over completions drawn from the base both have one mean.
    """


def utility_loss(base: Model, tuned: Model, encoded: Sequence[Encoded], batch_size: int = 16) -> UtilityLoss:
    """The loss on the same token ids for both models, so that a changed chat template does not enter."""
    before = log_likelihoods(base, encoded, batch_size)
    after = log_likelihoods(tuned, encoded, batch_size)
    return UtilityLoss(before - after, completion_lengths(encoded))


def base_kl(base: Model, tuned: Model, encoded: Sequence[Encoded], batch_size: int = 16) -> BaseKL:
    """The divergence on the same token ids for both models, in float64 from their logits.

    Raises:
        InputError: vocabularies of different sizes.
    """
    result = torch.zeros(len(encoded), dtype=torch.float64)
    with torch.no_grad():
        for batch in batches(encoded, batch_size, base.tokenizer, base.device):
            predicts = batch.is_completion[:, 1:]
            rows = torch.tensor(batch.rows)[predicts.nonzero()[:, 0].cpu()]
            logits = (completion_logits(model.module, batch) for model in (base, tuned))
            result.index_add_(0, rows, _divergences(*logits))
    return BaseKL(result, completion_lengths(encoded))


def _divergences(base: Float[Tensor, "T V"], tuned: Float[Tensor, "T W"]) -> Float[Tensor, " T"]:
    if base.shape != tuned.shape:
        raise InputError(f"expected one vocabulary, the base has {base.shape[1]} tokens, the tuned {tuned.shape[1]}")
    pieces = zip(base.split(_TOKENS_AT_ONCE), tuned.to(base.device).split(_TOKENS_AT_ONCE), strict=True)
    return torch.cat([token_kl(*(logits.double().log_softmax(-1) for logits in piece)).cpu() for piece in pieces])
