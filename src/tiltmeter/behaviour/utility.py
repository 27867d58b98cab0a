"""Utility loss: how much less likely the tuned model finds a skill's reference completions."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from tiltmeter.intervals import Interval, mean_interval, ratio_interval
from tiltmeter.likelihood import completion_lengths, log_likelihoods
from tiltmeter.models import Model
from tiltmeter.tokens import Encoded


@dataclass(frozen=True)
class UtilityLoss:
    """`du = u(base) - u(tuned)`, `u = mean_n log pi(y_n|x_n)`: positive where the tuned model does worse.

    Under completions drawn from the base it is the mean KL divergence from base to tuned.

    Attributes:
        by_example: the drop of the log-likelihood summed over completion tokens.
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


def utility_loss(base: Model, tuned: Model, encoded: Sequence[Encoded], batch_size: int = 16) -> UtilityLoss:
    """The loss on the same token ids for both models, so that a changed chat template does not enter."""
    before = log_likelihoods(base, encoded, batch_size)
    after = log_likelihoods(tuned, encoded, batch_size)
    return UtilityLoss(before - after, completion_lengths(encoded))
