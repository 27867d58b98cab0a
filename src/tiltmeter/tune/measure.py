"""How well a model fits what it learns and what it should keep."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from tiltmeter.intervals import Interval, ratio_interval
from tiltmeter.likelihood import completion_lengths, log_likelihoods
from tiltmeter.models import Model
from tiltmeter.tokens import Encoded

BATCH = 8


@dataclass(frozen=True)
class Fit:
    """Log-likelihoods of completions, one number an example, by the name of the set and of the skill."""

    data: dict[str, Float[Tensor, " _"]]
    skills: dict[str, Float[Tensor, " _"]]


def measured(model: Model, data: Mapping[str, Sequence[Encoded]], skills: Mapping[str, Sequence[Encoded]]) -> Fit:
    """A model as it is."""
    fits = [{name: log_likelihoods(model, each, BATCH) for name, each in sets.items()} for sets in (data, skills)]
    return Fit(*fits)


def loss_per_token(log_likelihoods: Float[Tensor, " N"], examples: Sequence[Encoded], seed: int) -> Interval:
    """Mean negative log-likelihood over the completion tokens, in nats; of a difference, its mean change."""
    return ratio_interval(-log_likelihoods.numpy(), completion_lengths(examples).numpy(), seed)
