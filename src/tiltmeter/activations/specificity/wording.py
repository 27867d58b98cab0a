"""The verdict of the specificity gate in one sentence."""

from tiltmeter.activations.specificity.arm import ArmEffect, DrawnControl, SingleControl
from tiltmeter.activations.specificity.gate import ArmVerdict, Battery, draws_needed
from tiltmeter.intervals import Interval


def sentence(found: Battery, outcome: str = "the outcome") -> str:
    """What the clearest arm with the battery's verdict shows: effect, strongest controls, p-values after Holm.

    Args:
        outcome: what was measured, as it stands in the middle of a sentence.
    """
    arm = found.leading
    start = f"Steering at block {arm.measured.block}, dose {arm.measured.dose:g}"
    seen = _seen(arm.measured, outcome)
    if arm.verdict == "broke":
        assert arm.measured.coherence_fall is not None
        on = f" to {arm.measured.coherent_on}" if arm.measured.coherent_on else ""
        fall = f"the share of coherent answers{on} fell by {_span(arm.measured.coherence_fall)}"
        return f"{start} broke the model: {fall}, beside an effect of {seen}."
    if arm.verdict == "none":
        return f"{start} has no effect beyond chance in the wanted direction: {seen} ({_tested(arm.p_causal, found)})."
    unchecked = "" if arm.measured.coherence_fall else "; coherence was not measured"
    if arm.verdict == "specific":
        more = f"more than every control: {_strongest(arm.measured)} ({_tested(arm.p_specific, found)})"
        return f"{start} is specific: an effect of {seen}, {more}{unchecked}."
    causal = f"{start} is causal but not specific: an effect of {seen} ({_tested(arm.p_causal, found)})"
    return f"{causal}, {_why(found, arm)}{unchecked}."


def _seen(measured: ArmEffect, outcome: str) -> str:
    if measured.effect is None:
        return f"no verdict on {outcome} for any prompt"
    return f"{_span(measured.effect)} on {outcome} over {_count(measured.prompts, 'prompt')}"


def _why(found: Battery, arm: ArmVerdict) -> str:
    """Why a causal effect is not specific: for want of controls, or by them."""
    measured = arm.measured
    if not measured.drawn:
        return "and no random control was drawn"
    against = f"but not beyond the controls: {_strongest(measured)} ({_tested(arm.p_specific, found)})"
    return against if arm.can_pass else f"{against}, {_out_of_reach(found, measured)}"


def _out_of_reach(found: Battery, measured: ArmEffect) -> str:
    draws, needed = min(control.draws for control in measured.drawn), draws_needed(len(found.arms), found.level)
    given = f"{_count(draws, 'draw')} and {_count(measured.prompts, 'prompt')} in {_count(len(found.arms), 'arm')}"
    advice = f"it takes {needed} draws" if draws < needed else "it takes more prompts"
    return f"out of reach of any effect with {given}: {advice}"


def _strongest(measured: ArmEffect) -> str:
    """The closest control, and beside a single vector the strongest of the random kinds."""
    drawn = max(measured.drawn, key=lambda control: control.p95)
    closest = measured.closest
    if isinstance(closest, DrawnControl):
        return f"the closest, {_percentile(closest)}"
    assert closest is not None
    return f"the closest, {_single(closest)}, and the strongest at random, {_percentile(drawn)}"


def _percentile(control: DrawnControl) -> str:
    return f"{control.kind}, reaches {control.p95:.3g} at the 95th percentile of {_count(control.draws, 'draw')}"


def _single(control: SingleControl) -> str:
    if control.excess is None:
        return f"{control.kind}, has no verdict to compare with"
    return f"{control.kind}, does {abs(control.excess.mean):.3g} {'less' if control.excess.mean > 0 else 'more'}"


def _tested(p: float, found: Battery) -> str:
    shown = "p < 0.001" if p < 0.001 else f"p {p:.2g}"
    return f"{shown} after Holm over {_count(len(found.arms), 'arm')}"


def _span(found: Interval) -> str:
    return f"{found.mean:.3g} ({found.low:.3g} to {found.high:.3g})"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
