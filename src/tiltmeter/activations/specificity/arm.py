"""One block and dose: the effect of steering along the direction, beside that of steering along controls.

Outcomes come as means over each prompt's answers, NaN where there is no verdict on any. An effect is a reduction: of an
outcome that should rise, give its negative and negative bounds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from tiltmeter.bounded_intervals import Bounds, paired_difference
from tiltmeter.errors import InputError
from tiltmeter.intervals import Interval
from tiltmeter.paired_tests import RESAMPLES, sign_flip_test

_TIE = 1e-9  # of the outcome's range


@dataclass(frozen=True, eq=False)
class Arm:
    """What P prompts gave at one block and dose, every vector at the same norm.

    Attributes:
        block, dose: names of the arm.
        unsteered, steered: outcome without steering, and along the direction.
        drawn: kind of control -> outcomes along each of its D random draws. Empty where the caller did not look, for
            instance since there is no effect: such an arm is never specific.
        single: control -> outcomes along one given vector: sign flip, another task's direction, a benign fine-tune's.
        coherent_before, coherent_after: share of coherent answers without steering and along the direction, to Q
            prompts, these or others; `coherent_on` names the others.

    Raises:
        InputError: a kind without draws.
    """

    block: str
    dose: float
    unsteered: Float[np.ndarray, " P"]
    steered: Float[np.ndarray, " P"]
    drawn: Mapping[str, Float[np.ndarray, "_ P"]]
    single: Mapping[str, Float[np.ndarray, " P"]]
    coherent_before: Float[np.ndarray, " Q"] | None = None
    coherent_after: Float[np.ndarray, " Q"] | None = None
    coherent_on: str = ""

    def __post_init__(self) -> None:
        for kind, values in self.drawn.items():
            if not len(values):
                raise InputError(f"{self.name}, {kind}: expected at least one draw, got none")

    @property
    def name(self) -> str:
        """For people."""
        return f"block {self.block}, dose {self.dose:g}"


@dataclass(frozen=True)
class DrawnControl:
    """The effects of D random vectors of one kind.

    Attributes:
        mean: of the effects.
        p95: their 95th percentile, the `ceil(0.95 (D + 1))`-th smallest effect (the largest where D < 19): with 19
            draws or more, p is at most 0.05 where the direction's effect is above it, and only there.
        p: `(1 + #{effects as large as the direction's or larger}) / (1 + D)`. Were the direction one more draw of the
            kind, it would be at most any a with probability at most a.
    """

    kind: str
    draws: int
    mean: float
    p95: float
    p: float


@dataclass(frozen=True)
class SingleControl:
    """One given vector against the direction, over `prompts` prompts that both have an outcome for.

    Attributes:
        excess: the direction's effect less the control's; None where no prompt has both.
        p: of random signs, one-sided: the direction does more.
    """

    kind: str
    prompts: int
    excess: Interval | None
    p: float


@dataclass(frozen=True)
class ArmEffect:
    """What was measured in one arm; p-values know nothing of other arms.

    Attributes:
        prompts: that have an outcome with and without steering.
        effect: mean of unsteered less steered over them; None where there is none.
        p_causal: of random signs, two-sided.
        coherence_fall: share of coherent answers before less after; None where it is not known.
        coherent_on: the prompts that the fall is on, where they are others.
    """

    block: str
    dose: float
    prompts: int
    effect: Interval | None
    p_causal: float
    drawn: tuple[DrawnControl, ...]
    single: tuple[SingleControl, ...]
    coherence_fall: Interval | None
    coherent_on: str = ""

    @property
    def controls(self) -> tuple[DrawnControl | SingleControl, ...]:
        """Random kinds, then given vectors."""
        return (*self.drawn, *self.single)

    @property
    def p_specific(self) -> float:
        """The largest p-value of the arm: for "no effect, or some kind or vector does as well" (intersection-union).

        1 where the effect is no reduction or no control was drawn. Source: Berger (1982).
        """
        if self.effect is None or self.effect.mean <= 0 or not self.drawn:
            return 1.0
        return max(self.p_causal, *(control.p for control in self.controls))

    @property
    def smallest_p(self) -> float:
        """The smallest `p_specific` that so few prompts and draws can give."""
        if not self.drawn:
            return 1.0
        by_draws = (1 / (1 + control.draws) for control in self.drawn)
        by_prompts = (_smallest_p(control.prompts) / 2 if control.prompts else 1.0 for control in self.single)
        return max(_smallest_p(self.prompts), *by_draws, *by_prompts)

    @property
    def closest(self) -> DrawnControl | SingleControl | None:
        """The control that the effect exceeds by least: the largest p-value, then the least distance."""
        return max(self.controls, key=self._closeness, default=None)

    def _closeness(self, control: DrawnControl | SingleControl) -> tuple[float, float]:
        if isinstance(control, DrawnControl):
            return control.p, control.p95 - (self.effect.mean if self.effect else 0.0)
        return control.p, -control.excess.mean if control.excess else 0.0


def measure_arm(arm: Arm, bounds: Bounds, seed: int = 0) -> ArmEffect:
    """The effect, its tests and those against each control.

    Args:
        bounds: smallest and largest possible outcome. A draw without an outcome for any prompt counts as if it had the
            largest possible effect.
        seed: of random signs.

    Raises:
        InputError: an outcome outside its bounds.
    """
    _check_bounds(arm, bounds)
    prompts, effect, p_causal = _paired(arm.unsteered, arm.steered, bounds, seed)
    observed = float(_effects(arm, arm.steered[None], bounds)[0]) if prompts else -np.inf
    fall = None
    if arm.coherent_before is not None and arm.coherent_after is not None:
        fall = _paired(arm.coherent_before, arm.coherent_after, (0.0, 1.0), seed)[1]
    return ArmEffect(
        arm.block,
        arm.dose,
        prompts,
        effect,
        p_causal,
        tuple(_drawn(kind, observed, _effects(arm, values, bounds), bounds) for kind, values in arm.drawn.items()),
        tuple(_single(kind, arm, values, bounds, seed) for kind, values in arm.single.items()),
        fall,
        arm.coherent_on,
    )


def _drawn(kind: str, observed: float, effects: Float[np.ndarray, " D"], bounds: Bounds) -> DrawnControl:
    draws = len(effects)
    as_large = int((effects >= observed - _TIE * (bounds[1] - bounds[0])).sum())
    rank = min(-(-95 * (draws + 1) // 100), draws)
    p95 = float(np.sort(effects)[rank - 1])
    return DrawnControl(kind, draws, float(effects.mean()), p95, (1 + as_large) / (1 + draws))


def _effects(arm: Arm, values: Float[np.ndarray, "D P"], bounds: Bounds) -> Float[np.ndarray, " D"]:
    """Mean over the prompts with both outcomes, the largest possible where there is none."""
    differences = arm.unsteered - values
    known = ~np.isnan(differences)
    counts = known.sum(1)
    sums = np.where(known, differences, 0.0).sum(1)
    largest = np.full(len(values), float(bounds[1] - bounds[0]))
    means: NDArray[Any] = np.divide(sums, counts, out=largest, where=counts > 0)
    return means


def _single(kind: str, arm: Arm, values: NDArray[Any], bounds: Bounds, seed: int) -> SingleControl:
    prompts, excess, p = _paired(values, arm.steered, bounds, seed)
    above = excess is not None and excess.mean > _TIE * (bounds[1] - bounds[0])
    return SingleControl(kind, prompts, excess, p / 2 if above else 1.0)  # random signs have a symmetric distribution


def _paired(one: NDArray[Any], other: NDArray[Any], bounds: Bounds, seed: int) -> tuple[int, Interval | None, float]:
    """Prompts with both outcomes, mean of `one - other` over them, two-sided p-value."""
    known = ~np.isnan(one) & ~np.isnan(other)
    if not known.any():
        return 0, None, 1.0
    first, second = one[known], other[known]
    p = sign_flip_test(first - second, seed) if len(first) > 1 else 1.0
    return len(first), paired_difference(first, second, bounds), p


def _smallest_p(prompts: int) -> float:
    """Two-sided, of random signs."""
    return min(1.0, max(2.0 ** (1 - prompts), 2 / (RESAMPLES + 1)))


def _check_bounds(arm: Arm, bounds: Bounds) -> None:
    outcomes = {"unsteered": arm.unsteered, "steered": arm.steered, **arm.drawn, **arm.single}
    shares = {"coherent before": arm.coherent_before, "coherent after": arm.coherent_after}
    for (low, high), group in ((bounds, outcomes), ((0.0, 1.0), shares)):
        for name, values in group.items():
            if values is not None and ((values < low) | (values > high)).any():
                wrong = values[(values < low) | (values > high)][0]
                raise InputError(f"{arm.name}, {name}: expected values from {low:g} to {high:g}, got {wrong:g}")
