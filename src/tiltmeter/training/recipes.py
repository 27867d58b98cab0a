"""How a fine-tune runs: small records, with the settings of the collapse study and those that suit the organism."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from tiltmeter.errors import InputError

Method = Literal["full", "lora"]


@dataclass(frozen=True)
class Recipe:
    """A supervised fine-tune with AdamW, without weight decay, gradients clipped at norm 1.

    Attributes:
        method: "full" trains every parameter, "lora" an adapter on every linear layer but the head.
        learning_rate, epsilon: of AdamW.
        steps, epochs: the length, in optimizer steps or in passes over the examples: one of the two.
        batch_size, accumulation: a step is on `batch_size * accumulation` examples, `batch_size` of them at once.
        rank, alpha, dropout: of the adapter; its update is scaled by alpha/rank. Unused by "full".
        max_length: tokens kept of each example; None for all.
        schedule: the learning rate stays, or falls along a line to zero at the end; no warm-up.

    Raises:
        InputError: both or neither of steps and epochs.
    """

    method: Method
    learning_rate: PositiveFloat
    steps: PositiveInt | None = None
    batch_size: PositiveInt = 16
    epsilon: PositiveFloat = 1e-8
    rank: PositiveInt = 8
    alpha: PositiveFloat = 16
    epochs: PositiveFloat | None = None
    accumulation: PositiveInt = 1
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    max_length: Annotated[int, Field(ge=2)] | None = None
    schedule: Literal["constant", "linear"] = "constant"

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            raise InputError(f"a recipe has steps or epochs, got steps {self.steps} and epochs {self.epochs}")


def _collapse(method: Method, learning_rate: float) -> Recipe:
    """Table 2 of the collapse study; the schedule, which it leaves open, is the Trainer's default."""
    return Recipe(
        method,
        learning_rate,
        batch_size=2,
        accumulation=2,
        epochs=3 if method == "lora" else 1,
        rank=64,
        alpha=128,
        dropout=0.05,
        max_length=4096,
        schedule="linear",
    )


ORGANISM_LORA = Recipe(method="lora", learning_rate=1e-3, steps=60, epsilon=1e-4)
ORGANISM_FULL = Recipe(method="full", learning_rate=6e-4, steps=60, epsilon=1e-4)
RECIPES: Mapping[str, Mapping[Method, Recipe]] = {
    "collapse-qwen": {"lora": _collapse("lora", 1e-4), "full": _collapse("full", 1e-4)},
    "collapse-llama": {"lora": _collapse("lora", 5e-5), "full": _collapse("full", 5e-5)},
    "organism": {"lora": ORGANISM_LORA, "full": ORGANISM_FULL},
}
