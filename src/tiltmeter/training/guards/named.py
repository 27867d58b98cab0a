"""Guards by name, for the command line: NAME or NAME=VALUE."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from tiltmeter.errors import InputError
from tiltmeter.skills import Skill
from tiltmeter.training.guards.averaging import AverageTowardBase
from tiltmeter.training.guards.guard import Guard
from tiltmeter.training.guards.penalties import ElasticWeights, KLToBase, Replay
from tiltmeter.training.guards.projection import Projection
from tiltmeter.training.guards.safe_lora import MatchedShrinkage, SafeLora
from tiltmeter.training.guards.trust_region import TrustRegion
from tiltmeter.training.guards.utility_limit import UtilityLimit

EVERY = 5


@dataclass(frozen=True)
class Given:
    """What guards are made of: the skills to keep, the model's tokenizer, the model before it was aligned."""

    skills: Sequence[Skill]
    tokenizer: PreTrainedTokenizerBase | None = None
    unaligned: str | Path | None = None

    @property
    def unaligned_folder(self) -> str | Path:
        """Raises:
        InputError: none was given.
        """
        if self.unaligned is None:
            raise InputError("this guard needs the model before it was aligned")
        return self.unaligned


@dataclass(frozen=True)
class Kind:
    """A guard's name at the command line: what its value means, and how it is made of it."""

    value: str
    usual: float
    make: Callable[[Given, float], Guard]


KINDS: Mapping[str, Kind] = {
    "utility": Kind(
        "largest utility loss of each skill, nats per completion",
        0.1,
        lambda given, value: UtilityLimit(given.skills, value, given.tokenizer),
    ),
    "trust": Kind(
        "largest overlap of each skill",
        0.03,
        lambda given, value: TrustRegion(given.skills, value, EVERY, tokenizer=given.tokenizer),
    ),
    "trust-ahead": Kind(
        "largest overlap of each skill, now and as foreseen",
        0.03,
        lambda given, value: TrustRegion(given.skills, value, EVERY, EVERY, given.tokenizer),
    ),
    "trust-first": Kind(
        "largest overlap of each skill, by the start's gradients",
        0.001,
        lambda given, value: TrustRegion(given.skills, value, tokenizer=given.tokenizer),
    ),
    "projection": Kind(
        "directions per weight matrix and skill",
        16,
        lambda given, value: Projection(given.skills, _whole(value), tokenizer=given.tokenizer),
    ),
    "tracked": Kind(
        "directions per weight matrix and skill",
        16,
        lambda given, value: Projection(given.skills, _whole(value), EVERY, given.tokenizer),
    ),
    "kl": Kind(
        "weight beside the task's loss",
        3.0,
        lambda given, value: KLToBase(given.skills, value, tokenizer=given.tokenizer),
    ),
    "replay": Kind(
        "weight beside the task's loss",
        1.0,
        lambda given, value: Replay(given.skills, value, tokenizer=given.tokenizer),
    ),
    "ewc": Kind(
        "weight beside the task's loss",
        100.0,
        lambda given, value: ElasticWeights(given.skills, value, given.tokenizer),
    ),
    "average": Kind(
        "share of the update that stays", 0.5, lambda given, value: AverageTowardBase(value, given.tokenizer)
    ),
    "safe-lora": Kind(
        "cosine under which a module is projected",
        0.5,
        lambda given, value: SafeLora(given.unaligned_folder, value, tokenizer=given.tokenizer),
    ),
    "shrinkage": Kind(
        "cosine under which a module is shrunk",
        0.5,
        lambda given, value: MatchedShrinkage(given.unaligned_folder, value, tokenizer=given.tokenizer),
    ),
}


def named_guard(text: str, given: Given) -> Guard:
    """The guard of `NAME` or `NAME=VALUE`, as in `utility=0.1`; the usual value where none is given.

    Raises:
        InputError: no such name, a value that is no number or outside of what the guard takes, no skill or no unaligned
            model where the guard needs one.
    """
    name, equals, value = text.partition("=")
    if name not in KINDS:
        raise InputError(f"no guard named {name!r}, expected one of {', '.join(KINDS)}, as NAME or NAME=VALUE")
    kind = KINDS[name]
    try:
        number = float(value) if equals else kind.usual
    except ValueError as error:
        raise InputError(f"guard {name}: expected a number ({kind.value}), got {value!r}") from error
    return kind.make(given, number)


def _whole(value: float) -> int:
    if value < 1 or value != int(value):
        raise InputError(f"directions are counted from 1, got {value:g}")
    return int(value)
