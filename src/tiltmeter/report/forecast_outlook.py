"""What is forecast of data sets for a skill or a proxy, in steps of the plan."""

from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from tiltmeter.report.forecast_wording import PROXY, SKILL, Kind, Words, steps
from tiltmeter.report.wording import DASH, share
from tiltmeter.runs.forecast_result import Curve, DataForecast, ForecastResult, Gain, PlanRecord, ProxyForecast
from tiltmeter.runs.results import Interval

State = Literal["trusted", "extrapolated", "stands still", "the run itself"]
Figures = TypeVar("Figures", bound=DataForecast | ProxyForecast, covariant=True)


@dataclass(frozen=True)
class Point:
    """One point of a curve; the last three are those of a skill's quadratic model, which a roll-out lacks."""

    step: float
    value: Interval
    state: State
    quadratic: float | None = None
    drift: float | None = None
    overlap: float | None = None


@dataclass(frozen=True)
class Outlook(Generic[Figures]):
    """One data set's forecast for one skill or proxy, in steps of the plan."""

    name: str
    figures: Figures
    plan: PlanRecord

    @property
    def words(self) -> Words:
        """How its figure is spoken of."""
        return PROXY if isinstance(self.figures, ProxyForecast) else SKILL

    @property
    def points(self) -> list[Point]:
        """The points of the forecast."""
        curve = self.figures.forecast
        states = [_state(curve, time) for time in curve.times]
        rows = zip(curve.steps, _intervals(curve), states, *_modelled(curve), strict=True)
        return [Point(*row) for row in rows]

    @property
    def rolled(self) -> list[Point]:
        """The points of the roll-out; none where there is none."""
        curve = self.figures.roll_out
        if curve is None:
            return []
        return [Point(step, loss, "the run itself") for step, loss in zip(curve.steps, _intervals(curve), strict=True)]

    @property
    def end(self) -> Interval:
        """The forecast figure at the planned end."""
        return self.points[-1].value

    @property
    def first_order(self: "Outlook[DataForecast]") -> Interval:
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
        told = [point.value for point in self.points if point.state == "trusted"]
        told += [point.value for point in self.rolled]
        alarm = self.figures.alarm
        if any(loss.low > (alarm.limit if alarm else 0.0) for loss in told):
            return "tilted"
        is_within = alarm is None or all(loss.high <= alarm.limit for loss in told)
        return "none" if self.reaches_end and is_within else "mixed"

    @property
    def word(self) -> str:
        """The kind in words."""
        return self.word_of(self.kind)

    def word_of(self, kind: Kind) -> str:
        """A kind in words, with or without a limit as here."""
        return self.words.kinds[kind][self.figures.alarm is not None]

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


AnyOutlook = Outlook[DataForecast | ProxyForecast]


def outlooks(result: ForecastResult, skill: str) -> list[Outlook[DataForecast]]:
    """The data sets' forecasts for a skill, the most harmful first."""
    figures = result.skills[skill]
    return [Outlook(name, figures.data[name], result.plan) for name in figures.ranking]


def proxies(result: ForecastResult) -> list[str]:
    """The names of the proxies, which are the same for all data sets."""
    return list(next(iter(result.data.values())).proxies)


def proxy_outlooks(result: ForecastResult, proxy: str) -> list[Outlook[ProxyForecast]]:
    """The data sets' forecasts for a proxy, the highest gain at the planned end first."""
    sets = [Outlook(name, data.proxies[proxy], result.plan) for name, data in result.data.items()]
    return sorted(sets, key=lambda each: each.end.mean, reverse=True)


def _intervals(curve: Curve | Gain) -> list[Interval]:
    rows = zip(curve.means, curve.low, curve.high, strict=True)
    return [Interval(mean=mean, low=low, high=high) for mean, low, high in rows]


def _modelled(curve: Curve | Gain) -> list[list[float | None]]:
    """What a skill's quadratic model expects at each point; a proxy has none."""
    nothing: list[float | None] = [None] * len(curve.times)
    if isinstance(curve, Gain):
        return [nothing] * 3
    return [curve.quadratic or nothing, curve.drift or nothing, curve.overlap or nothing]


def _state(curve: Curve | Gain, time: float) -> State:
    if time <= curve.trusted_until:
        return "trusted"
    return "stands still" if curve.held_from is not None and time >= curve.held_from else "extrapolated"
