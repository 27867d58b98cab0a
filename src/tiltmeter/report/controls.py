"""Controls of steering as tables show them."""

from dataclasses import dataclass

from tiltmeter.report.judge_wording import SHARES, probability, value
from tiltmeter.report.wording import MINUS, figure
from tiltmeter.runs.results import Interval
from tiltmeter.runs.steer_result import ControlRecord


@dataclass(frozen=True)
class Control:
    """One control as text."""

    kind: str
    draws: str
    effect: str
    p95: str
    excess: str
    p: str


def control_row(outcome: str, effect: Interval | None, control: ControlRecord) -> Control:
    """A control beside the direction's effect on an outcome."""
    return Control(
        control.kind,
        str(control.draws) if control.mean is not None else "given",
        plain(outcome, effect_of(effect, control)),
        plain(outcome, control.p95) if control.p95 is not None else "",
        value(outcome, control.excess) if control.excess is not None else "",
        probability(control.p),
    )


def effect_of(effect: Interval | None, control: ControlRecord) -> float | None:
    """Mean effect of a control: of a given vector, the direction's less what it exceeds the vector's by."""
    if control.mean is not None:
        return control.mean
    return None if effect is None or control.excess is None else effect.mean - control.excess.mean


def plain(outcome: str, effect: float | None) -> str:
    """An effect without an interval; of shares, in per cent.

    >>> plain("refused", 0.125), plain("harmfulness", 0.125)
    ('12 %', '0.125')
    """
    if effect is None or outcome not in SHARES:
        return figure(effect)
    return f"{100 * effect:.0f} %".replace("-", MINUS)
