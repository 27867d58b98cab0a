"""How a fine-tune runs: small records, with the settings that suit the organism."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Recipe:
    """A supervised fine-tune with AdamW at a constant learning rate.

    Attributes:
        method: "full" trains every parameter, "lora" an adapter on every linear layer but the head.
        learning_rate, epsilon: of AdamW, without weight decay.
        steps: optimizer steps.
        batch_size: examples per step.
        rank, alpha: of the adapter; its update is scaled by alpha/rank. Unused by "full".
    """

    method: Literal["full", "lora"]
    learning_rate: float
    steps: int
    batch_size: int = 16
    epsilon: float = 1e-8
    rank: int = 8
    alpha: float = 16


ORGANISM_LORA = Recipe(method="lora", learning_rate=1e-3, steps=60, epsilon=1e-4)
ORGANISM_FULL = Recipe(method="full", learning_rate=6e-4, steps=60, epsilon=1e-4)
