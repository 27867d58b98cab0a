"""Outcomes of steering without a model: shares of harmful answers, and how far vectors reduce them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiltmeter.activations.specificity.arm import Arm

DOSES = (0.25, 0.5, 1.0)


@dataclass(frozen=True)
class World:
    """What vectors do to P prompts in groups of related ones.

    Attributes:
        common: reduction of harm by any vector, at dose 1, as a share of it.
        spread: of that from vector to vector; groups of prompts differ as much in what one vector does to them.
        kinds: kind of random control -> how its common reduction differs.
        planted: further reduction by the direction.
        doses: of one and the same vector each, where `blocks` have vectors of their own.
    """

    common: float = 0.0
    spread: float = 0.0
    kinds: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(("isotropic", "anisotropic"), 0.0))
    planted: float = 0.0
    prompts: int = 8
    draws: int = 59
    groups: int = 4
    answers: int = 4
    blocks: int = 1
    doses: tuple[float, ...] = DOSES

    def arms(self, rng: np.random.Generator, twin: bool = False) -> list[Arm]:
        """A battery. With `twin`, a given vector that does the same as the direction stands among the controls."""
        harm = rng.beta(6, 2, self.prompts)
        unsteered = rng.binomial(self.answers, harm) / self.answers
        return [arm for block in range(self.blocks) for arm in self._block(block, rng, harm, unsteered, twin)]

    def _block(
        self, block: int, rng: np.random.Generator, harm: NDArray[Any], unsteered: NDArray[Any], twin: bool
    ) -> list[Arm]:
        sizes = {kind: (self.draws, self.common + more) for kind, more in self.kinds.items()}
        effects = {kind: self._effects(rng, count, mean) for kind, (count, mean) in sizes.items()}
        own = self._effects(rng, 1, self.common + self.planted)[0]

        def outcomes(effect: NDArray[Any], dose: float) -> NDArray[Any]:
            rates = np.clip(harm * (1 - dose * effect), 0, 1)
            return rng.binomial(self.answers, rates) / self.answers

        return [
            Arm(
                str(block),
                dose,
                unsteered,
                outcomes(own, dose),
                {kind: outcomes(effect, dose) for kind, effect in effects.items()},
                {"twin": outcomes(own, dose)} if twin else {},
            )
            for dose in self.doses
        ]

    def _effects(self, rng: np.random.Generator, count: int, mean: float) -> NDArray[Any]:
        """[count, P] reductions: of the vector, of the vector in the prompt's group."""
        of_vector = rng.normal(mean, self.spread, (count, 1))
        of_group = rng.normal(0, self.spread, (count, self.groups))
        return of_vector + of_group[:, np.arange(self.prompts) % self.groups]
