"""Arms of steering with outcomes made by hand or at random."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiltmeter.activations.specificity.arm import Arm
from tiltmeter.bounded_intervals import Bounds

SHARE, SCORE = (0.0, 1.0), (1.0, 5.0)


def noisy_arm(seed: int, prompts: int = 6, bounds: Bounds = SCORE, block: str = "3") -> Arm:
    """Scores with a reduction, controls of both sorts, and outcomes missing here and there."""
    rng = np.random.default_rng(seed)

    def some(*shape: int, lower: float = 0.0) -> NDArray[Any]:
        values = np.clip(np.round(rng.normal(4 - lower, 1, (*shape, prompts)), 1), *SCORE)
        values = bounds[0] + (values - 1) / 4 * (bounds[1] - bounds[0])
        return np.where(rng.random(values.shape) < 0.1, np.nan, values)

    drawn = {"isotropic": some(5, lower=0.5), "orthogonal": some(25, lower=1)}
    single = {"sign flip": some(), "benign": some(lower=1.5)}
    return Arm(block, 0.5, some(), some(lower=2), drawn, single)


def plain_arms(
    effects: Sequence[float], others: Sequence[float] = (0.0,) * 59, prompts: int = 10, after: float | None = None
) -> list[Arm]:
    """Arms in which every prompt changes by the same amount; coherence falls to `after`."""
    controls = {"isotropic": 1 - np.tile(np.array(others)[:, None], prompts)} if others else {}
    ones = np.ones(prompts)
    coherence = (None, None) if after is None else (ones, np.full(prompts, after))
    return [Arm(str(block), 1.0, ones, ones - effect, controls, {}, *coherence) for block, effect in enumerate(effects)]


def moved(arm: Arm, change: Callable[[NDArray[Any]], NDArray[Any]]) -> Arm:
    """The arm with one change made to all of its outcomes."""
    drawn, single = ({kind: change(x) for kind, x in part.items()} for part in (arm.drawn, arm.single))
    return replace(arm, unsteered=change(arm.unsteered), steered=change(arm.steered), drawn=drawn, single=single)
