"""What a fine-tune learns: several files put together."""

import random
from collections.abc import Mapping
from dataclasses import dataclass

from tiltmeter.models import Model, context_length
from tiltmeter.skills import Skill
from tiltmeter.tokens import Encoded, encode

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
