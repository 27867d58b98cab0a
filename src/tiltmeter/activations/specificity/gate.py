"""Does steering along a direction do what steering along other vectors of its size does not?

The gate looks at outcomes alone. All arms (blocks and doses) that were tried belong in one battery: p-values are
adjusted for their number.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from tiltmeter.activations.specificity.arm import Arm, ArmEffect, measure_arm
from tiltmeter.bounded_intervals import Bounds
from tiltmeter.errors import InputError, NothingMeasuredError
from tiltmeter.paired_tests import holm

Verdict: TypeAlias = Literal["specific", "not specific", "none", "broke"]

LEVEL = 0.05
COHERENCE_LIMIT = 0.1  # share of answers
_ROUNDING = 1e-12


@dataclass(frozen=True)
class ArmVerdict:
    """One arm among all of its battery.

    Attributes:
        measured: what the arm says by itself.
        p_causal, p_specific: after Holm over the arms.
        causal: whether there is a reduction beyond chance: p_causal at most the level, the interval above zero.
        can_pass: whether the arm had enough draws and prompts for "specific", had everything gone its way.
        verdict: "broke" where coherence falls by more than the limit and beyond chance, else "none" where the effect is
            not causal, else "specific" where p_specific is at most the level, else "not specific".
    """

    measured: ArmEffect
    p_causal: float
    p_specific: float
    causal: bool
    can_pass: bool
    verdict: Verdict


@dataclass(frozen=True)
class Battery:
    """Verdicts on all arms, in the order given, at one level of the family-wise error."""

    arms: tuple[ArmVerdict, ...]
    level: float

    @property
    def verdict(self) -> Verdict:
        """The best of the arms that did not break the model; "broke" where it takes breaking it to have an effect."""
        whole = {arm.verdict for arm in self.arms if arm.verdict != "broke"}
        for verdict in ("specific", "not specific"):
            if verdict in whole:
                return verdict
        return "broke" if not whole or any(arm.causal for arm in self.arms) else "none"

    @property
    def leading(self) -> ArmVerdict:
        """The clearest arm among those with the battery's verdict."""
        same = [arm for arm in self.arms if arm.verdict == self.verdict]
        return min(same, key=_clarity)

    @property
    def can_pass(self) -> bool:
        """Whether "specific" was within reach of any arm; if not, "not specific" says nothing about the direction."""
        return any(arm.can_pass for arm in self.arms)


def gate(
    arms: Sequence[Arm],
    bounds: Bounds,
    level: float = LEVEL,
    coherence_limit: float = COHERENCE_LIMIT,
    seed: int = 0,
) -> Battery:
    """The verdict on each arm.

    An arm is specific where its effect is beyond chance (random signs over prompts), larger than that of the draws of
    each random kind (empirical p), and larger than that of each given vector (random signs, one-sided). Its p-value is
    the largest of these, which needs no correction for the number of kinds; Holm over arms. The chance to call any arm
    specific, while in each of them some kind or vector does as well as the direction, is at most the level.

    Args:
        bounds: smallest and largest possible outcome.
        coherence_limit: how far the share of coherent answers may fall.
        seed: of random signs.

    Raises:
        InputError: no arms, an outcome outside its bounds, or a level that is no probability.
        NothingMeasuredError: no arm has a prompt with an outcome both with and without steering.
    """
    _check_level(level)
    if not arms:
        raise InputError("expected at least one block and dose, got none")
    measured = [measure_arm(arm, bounds, seed) for arm in arms]
    if not any(each.prompts for each in measured):
        raise NothingMeasuredError("no prompt has a verdict both with and without steering, at any block and dose")
    adjusted = zip(
        measured,
        holm([each.p_causal for each in measured]),
        holm([each.p_specific for each in measured]),
        holm([each.smallest_p for each in measured]),
        strict=True,
    )
    return Battery(tuple(_judged(*each, level, coherence_limit) for each in adjusted), level)


def draws_needed(arms: int, level: float = LEVEL) -> int:
    """The fewest draws D of each kind with which one of so many arms can be specific: `arms / (1 + D) <= level`."""
    _check_level(level)
    return math.ceil(arms / level) - 1


def _judged(
    measured: ArmEffect, p_causal: float, p_specific: float, smallest: float, level: float, coherence_limit: float
) -> ArmVerdict:
    causal = _within(p_causal, level) and measured.effect is not None and measured.effect.low > 0
    verdict: Verdict
    if _broke(measured, coherence_limit):
        verdict = "broke"
    elif not causal:
        verdict = "none"
    else:
        verdict = "specific" if _within(p_specific, level) else "not specific"
    return ArmVerdict(measured, p_causal, p_specific, causal, _within(smallest, level), verdict)


def _broke(measured: ArmEffect, limit: float) -> bool:
    fall = measured.coherence_fall
    return fall is not None and fall.mean > limit and fall.low > 0


def _clarity(arm: ArmVerdict) -> tuple[float, float, float, str, float]:
    effect = arm.measured.effect.mean if arm.measured.effect else -math.inf
    return arm.p_specific, arm.p_causal, -effect, arm.measured.block, arm.measured.dose


def _within(p: float, level: float) -> bool:
    """Products of p-values and their number are not exact."""
    return p <= level * (1 + _ROUNDING)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise InputError(f"expected a level between 0 and 1, got {level:g}")
