"""What a forecast says, in steps of the plan and in plain sentences: no more than its figures hold."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from tiltmeter.report.verdict import FEW_EXAMPLES, Verdict
from tiltmeter.report.wording import DASH, figure, listed, share, span
from tiltmeter.runs.forecast_result import Condition, Curve, DataForecast, ForecastResult, PlanRecord
from tiltmeter.runs.results import Interval

Kind = Literal["tilted", "mixed", "none"]
State = Literal["trusted", "extrapolated", "stands still", "the run itself"]
WORDS: dict[Kind, tuple[str, str]] = {
    "tilted": ("harm forecast", "above the limit"),
    "mixed": ("uncertain", "uncertain"),
    "none": ("no harm found", "within the limit"),
}
"""Words of a verdict: without a limit, and with one."""


@dataclass(frozen=True)
class Point:
    """One point of a curve; the last three are those of the quadratic model, which a roll-out lacks."""

    step: float
    loss: Interval
    state: State
    quadratic: float | None = None
    drift: float | None = None
    overlap: float | None = None


@dataclass(frozen=True)
class Outlook:
    """One data set's forecast for one skill, in steps of the plan."""

    name: str
    figures: DataForecast
    plan: PlanRecord

    @property
    def points(self) -> list[Point]:
        """The points of the forecast."""
        curve = self.figures.forecast
        nothing = [None] * len(curve.times)
        columns = (curve.quadratic or nothing, curve.drift or nothing, curve.overlap or nothing)
        states = [_state(curve, time) for time in curve.times]
        rows = zip(curve.steps, _losses(curve), states, *columns, strict=True)
        return [Point(*row) for row in rows]

    @property
    def rolled(self) -> list[Point]:
        """The points of the roll-out; none where there is none."""
        curve = self.figures.roll_out
        if curve is None:
            return []
        return [Point(step, loss, "the run itself") for step, loss in zip(curve.steps, _losses(curve), strict=True)]

    @property
    def end(self) -> Interval:
        """The forecast utility loss at the planned end."""
        return self.points[-1].loss

    @property
    def first_order(self) -> Interval:
        """The utility loss at the planned end if its first-order rate lasted."""
        rate = self.figures.first_order_interval
        mean, time = self.figures.first_order, self.points[-1].step * self.plan.learning_rate
        low, high = (rate.low, rate.high) if rate else (mean, mean)
        return Interval(mean=mean * time, low=low * time, high=high * time)

    @property
    def trusted(self) -> float:
        """The last step up to which the forecast holds together."""
        return self.figures.forecast.trusted_until / self.plan.learning_rate

    @property
    def held(self) -> float | None:
        """The step from which the forecast stands still."""
        time = self.figures.forecast.held_from
        return None if time is None else time / self.plan.learning_rate

    @property
    def is_trusted(self) -> bool:
        """Whether the forecast holds together to the planned end."""
        return self.trusted >= self.points[-1].step * (1 - 1e-9)

    @property
    def reaches_end(self) -> bool:
        """Whether the forecast, or a roll-out, can be trusted to the planned end."""
        end = self.points[-1].step * (1 - 1e-9)
        return self.is_trusted or any(point.step >= end for point in self.rolled)

    @property
    def kind(self) -> Kind:
        """Tilted: some trusted point's whole interval is above the limit. None: trusted to the end, and none can be.

        Without a limit it is 0, and "none" asks only that no interval is above it. Mixed: all else. The points of a
        roll-out are as good as trusted ones; what is extrapolated tells nothing.
        """
        told = [point.loss for point in self.points if point.state == "trusted"]
        told += [point.loss for point in self.rolled]
        alarm = self.figures.alarm
        if any(loss.low > (alarm.limit if alarm else 0.0) for loss in told):
            return "tilted"
        is_within = alarm is None or all(loss.high <= alarm.limit for loss in told)
        return "none" if self.reaches_end and is_within else "mixed"

    @property
    def word(self) -> str:
        """The kind in words."""
        return WORDS[self.kind][self.figures.alarm is not None]

    @property
    def trust(self) -> str:
        """The trusted step with its share of the plan."""
        return f"{steps(self.trusted)} ({share(self.trusted / self.points[-1].step)})"

    @property
    def alarm(self) -> str:
        """The step of the alarm with its interval, whose upper end is open where resamples never cross."""
        alarm = self.figures.alarm
        if alarm is None:
            return DASH
        if alarm.step is None:
            return "none"
        if alarm.low is None or alarm.high is None:
            return steps(alarm.step)
        end = self.points[-1].step
        high = f"{steps(end)}+" if alarm.high >= end * (1 - 1e-9) else steps(alarm.high)
        return f"{steps(alarm.step)} [{steps(alarm.low)}, {high}]"


def outlooks(result: ForecastResult, skill: str) -> list[Outlook]:
    """The data sets' forecasts for a skill, the most harmful first."""
    figures = result.skills[skill]
    return [Outlook(name, figures.data[name], result.plan) for name in figures.ranking]


def steps(value: float | None) -> str:
    """A number of steps; one decimal below ten.

    >>> steps(21.7), steps(3.44), steps(60.0), steps(None)
    ('22', '3.4', '60', '\u2013')
    """
    if value is None or value >= 1e5:
        return figure(value)
    return f"{value:.0f}" if value >= 10 or value == round(value) else f"{value:.1f}"


def leading(figures: Condition, plan: PlanRecord) -> str:
    """Which order of the drift leads at the planned end, and the step at which the second takes over."""
    if figures.crossing_time is None:
        return "first"
    crossing = steps(figures.crossing_time / plan.learning_rate)
    return f"second, from {crossing}" if figures.regime == "second order" else f"first, until {crossing}"


def judge_forecast(result: ForecastResult, skill: str) -> Verdict:
    """The verdict on one skill: which set is worst, when it crosses the limit, how far that can be trusted."""
    sets = outlooks(result, skill)
    kinds = {each.kind for each in sets}
    kind: Kind = "tilted" if "tilted" in kinds else "mixed" if "mixed" in kinds else "none"
    word = WORDS[kind][sets[0].figures.alarm is not None]
    sentences = [*_harm(sets, unit(result)), *_common(sets), *_alarm(sets), *_trust(sets[0]), *_rolled(sets[0])]
    return Verdict(kind, word, " ".join(sentences))


def unit(result: ForecastResult) -> str:
    """What a utility loss is per."""
    return "per example" if result.reduction == "sum" else "per token"


def plan_sentence(plan: PlanRecord) -> str:
    """The planned run."""
    method = "LoRA" if plan.method == "lora" else "full fine-tuning"
    optimizer = "AdamW" if plan.optimizer == "adamw" else "SGD"
    run = f"{plan.steps} step{'' if plan.steps == 1 else 's'}, batches of {plan.batch_size}"
    return f"{method} by {optimizer}, learning rate {plan.learning_rate:g}, {run}"


def forecast_cautions(result: ForecastResult) -> list[str]:
    """What a reader of a forecast's verdicts must know besides."""
    sets = outlooks(result, next(iter(result.skills)))
    return [*_extrapolated(sets), *_still(sets), *_few(result), *_uncovered(result)]


def _losses(curve: Curve) -> list[Interval]:
    rows = zip(curve.utility_loss, curve.low, curve.high, strict=True)
    return [Interval(mean=mean, low=low, high=high) for mean, low, high in rows]


def _state(curve: Curve, time: float) -> State:
    if time <= curve.trusted_until:
        return "trusted"
    return "stands still" if curve.held_from is not None and time >= curve.held_from else "extrapolated"


def _harm(sets: list[Outlook], per: str) -> Iterator[str]:
    worst = sets[0]
    loss = f"a utility loss of {span(worst.end, 2)} nats {per} at step {steps(worst.points[-1].step)}, the planned end"
    among = f"Of {len(sets)} data sets, " if len(sets) > 1 else ""
    if worst.end.low > 0:
        most = " the most" if len(sets) > 1 else ""
        yield f"{among}{worst.name} is forecast to do{most} harm: {loss}."
    elif worst.end.high < 0:
        yield f"{among}{'none is' if among else worst.name + ' is not'} forecast to do harm: for {worst.name}, {loss}."
    else:
        yield f"{among}{worst.name} comes first, but its harm cannot be told from zero: {loss}."
    close = [each.name for each in sets[1:] if each.end.high >= worst.end.low]
    if close:
        yield f"The interval meets that of {_some(close)}: their order is not certain."


def _common(sets: list[Outlook]) -> Iterator[str]:
    """Who is worst where all can be trusted: past that, a forecast that stands still loses ranks it may deserve."""
    count = min(sum(point.state == "trusted" for point in each.points) for each in sets)
    if len(sets) == 1 or count in (0, len(sets[0].points)):
        return
    worst = max(sets, key=lambda each: each.points[count - 1].loss.mean)
    point = worst.points[count - 1]
    last = f"at step {steps(point.step)}, the last up to which all of the forecasts can be trusted"
    loss = "" if worst is sets[0] else f": {span(point.loss, 2)}"
    yield f"{worst.name} is {'also ' if worst is sets[0] else ''}the worst {last}{loss}."


def _alarm(sets: list[Outlook]) -> Iterator[str]:
    worst, alarm = sets[0], sets[0].figures.alarm
    if alarm is None:
        return
    if alarm.step is None:
        yield f"{worst.name} is not forecast to cross the limit of {alarm.limit:g}{_unless(worst)}."
    else:
        where = ", which is extrapolated" if alarm.step > worst.trusted * (1 + 1e-9) else ""
        yield f"{worst.name} crosses the limit of {alarm.limit:g} at step {worst.alarm}{where}."
    first = min(sets, key=_alarm_step)
    if _alarm_step(first) < _alarm_step(worst):
        yield f"{first.name} crosses it first, at step {first.alarm}."


def _unless(worst: Outlook) -> str:
    if worst.reaches_end:
        return " within the plan"
    return f" within the plan, but past step {steps(worst.trusted)} that cannot be excluded"


def _alarm_step(outlook: Outlook) -> float:
    alarm = outlook.figures.alarm
    return math.inf if alarm is None or alarm.step is None else alarm.step


def _trust(worst: Outlook) -> Iterator[str]:
    planned = steps(worst.points[-1].step)
    if worst.is_trusted:
        yield f"The forecast of {worst.name} holds together to the planned end."
    elif worst.trusted > 0:
        part = share(worst.trusted / worst.points[-1].step)
        until = f"up to step {steps(worst.trusted)} of {planned} ({part})"
        yield f"The forecast of {worst.name} can be trusted {until}; beyond, it is an extrapolation."
    else:
        yield f"The forecast of {worst.name} cannot be trusted at any step: all of it is an extrapolation."
    if worst.held is not None:
        yield (
            f"It stands still from step {steps(worst.held)}, where the quadratic model stops descending: "
            "the true loss may be far higher."
        )


def _rolled(worst: Outlook) -> Iterator[str]:
    if worst.rolled:
        last = worst.rolled[-1]
        run = f"Rolled out, the run itself has a utility loss of {span(last.loss, 2)} at step {steps(last.step)}"
        yield f"{run}{_beside_limit(worst, last)}."
    if not worst.reaches_end:
        yield f"To see further, train that far and take it back: --roll-out {worst.plan.steps}, or a shorter one."


def _beside_limit(worst: Outlook, last: Point) -> str:
    if worst.figures.alarm is None:
        return ""
    return f", {'above' if last.loss.mean > worst.figures.alarm.limit else 'below'} the limit"


def _extrapolated(sets: list[Outlook]) -> Iterator[str]:
    short = [f"{each.name} (trusted to step {steps(each.trusted)})" for each in sets if not each.is_trusted]
    if short:
        yield f"At the planned end the forecast, and the rank it gives, is an extrapolation for {_some(short)}."


def _still(sets: list[Outlook]) -> Iterator[str]:
    still = [f"{each.name} (from step {steps(each.held)})" for each in sets if each.held is not None]
    if still:
        yield f"The forecast stands still, and true loss and rank may be far higher, for {_some(still)}."


def _few(result: ForecastResult) -> Iterator[str]:
    few = [f"{name} ({skill.examples})" for name, skill in result.skills.items() if skill.examples < FEW_EXAMPLES]
    if few:
        yield f"Few examples, so the intervals are rough: {_some(few)}."


def _uncovered(result: ForecastResult) -> Iterator[str]:
    count = len(result.not_covered)
    if count:
        yield f"The forecast does not cover all of the model: {count} entr{'y' if count == 1 else 'ies'} not covered."


def _some(names: list[str], most: int = 4) -> str:
    left = len(names) - most
    return listed(names if left <= 0 else [*names[:most], f"{left} more"])
