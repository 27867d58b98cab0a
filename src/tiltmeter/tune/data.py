"""What a fine-tune learns: several files put together, and how well a model fits each."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from jaxtyping import Float
from numpy.typing import NDArray

from tiltmeter.intervals import Interval, ratio_interval
from tiltmeter.likelihood import completion_lengths, log_likelihoods
from tiltmeter.models import Model, context_length
from tiltmeter.skills import Skill
from tiltmeter.tokens import Encoded, encode

Nats: TypeAlias = Float[NDArray[Any], " N"]
SAMPLE = 100


@dataclass(frozen=True)
class DataSet:
    """One file of examples, as token ids.

    Attributes:
        truncated: how many examples were longer than the limit and lost their end.
    """

    encoded: list[Encoded]
    truncated: int

    @property
    def tokens(self) -> int:
        """Of all examples, prompts included."""
        return sum(len(example.ids) for example in self.encoded)

    def sample(self, seed: int) -> list[Encoded]:
        """At most `SAMPLE` examples, drawn without replacement."""
        if len(self.encoded) <= SAMPLE:
            return self.encoded
        return random.Random(f"fit {seed}").sample(self.encoded, SAMPLE)


def longest(model: Model, max_length: int | None) -> int:
    """Tokens kept of an example: the limit given, or what the model takes if that is less."""
    return min(context_length(model), max_length or context_length(model))


def encode_sets(model: Model, sets: Mapping[str, Skill], max_length: int | None) -> dict[str, DataSet]:
    """Every set as token ids, cut on the right to `longest(model, max_length)` tokens.

    Raises:
        InputError: an example of whose completion nothing is left; it names the row.
    """
    limit = longest(model, max_length)
    encoded = {}
    for name, skill in sets.items():
        too_long = sum(len(example.ids) > limit for example in encode(skill, model.tokenizer))
        encoded[name] = DataSet(encode(skill, model.tokenizer, limit), too_long)
    return encoded


def losses(model: Model, sets: Mapping[str, DataSet], seed: int, batch_size: int = 8) -> dict[str, Nats]:
    """Negative log-likelihood of each completion of a sample of each set, in nats."""
    return {name: -log_likelihoods(model, data.sample(seed), batch_size).numpy() for name, data in sets.items()}


def per_token(nats: Nats, sample: list[Encoded], seed: int) -> Interval:
    """Mean over the completion tokens, or the mean change of them where `nats` is a difference."""
    return ratio_interval(nats, completion_lengths(sample).numpy(), seed)
