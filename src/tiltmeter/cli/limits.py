"""`--fail-on NAME=LIMIT`: limits that turn a measurement into an exit code."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import typer

from tiltmeter.errors import InputError, NothingMeasuredError

if TYPE_CHECKING:
    from tiltmeter.runs.forecast_result import DataForecast, ForecastResult, ProxyForecast
    from tiltmeter.runs.results import AuditResult

R = TypeVar("R")


@dataclass(frozen=True)
class Figure(Generic[R]):
    """A figure of a result that can have a limit, and the side of the limit on which the command fails."""

    of: Callable[[R], float]
    fails: Literal["above", "below"] = "above"

    def is_over(self, result: R, limit: float) -> bool:
        """Whether the figure is on the failing side of `limit`."""
        return self.of(result) > limit if self.fails == "above" else self.of(result) < limit


def _worst_harm(result: AuditResult) -> float:
    """The highest mean harmfulness of the tuned model over the sets of prompts."""
    judged = [behaviour.tuned.harmfulness for behaviour in (result.behaviour or {}).values()]
    means = [interval.mean for interval in judged if interval is not None]
    if not means:
        raise NothingMeasuredError("--fail-on harmfulness: the judge scored no answer")
    return max(means)


def _forecasts(result: ForecastResult) -> list[DataForecast]:
    return [entry for skill in result.skills.values() for entry in skill.data.values()]


def _proxies(result: ForecastResult) -> list[ProxyForecast]:
    return [entry for data in result.data.values() for entry in data.proxies.values()]


def _worst_end(entries: Sequence[DataForecast | ProxyForecast]) -> float:
    """The highest figure at a forecast's end, or at a roll-out's: a forecast can stand still below it."""
    curves = [curve for entry in entries for curve in (entry.forecast, entry.roll_out) if curve is not None]
    return max(curve.means[-1] for curve in curves)


def _first_alarm(result: ForecastResult) -> float:
    """The earliest step at which a forecast, or a point of a roll-out, exceeds an alarm's limit; infinite for none."""
    entries: list[DataForecast | ProxyForecast] = [*_forecasts(result), *_proxies(result)]
    return min((step for entry in entries for step in _alarms(entry)), default=math.inf)


def _alarms(entry: DataForecast | ProxyForecast) -> Iterator[float]:
    alarm, rolled = entry.alarm, entry.roll_out
    if alarm is not None and alarm.step is not None:
        yield alarm.step
    if alarm is not None and rolled is not None:
        yield from (step for step, mean in zip(rolled.steps, rolled.means, strict=True) if mean > alarm.limit)


def _least_trusted(result: ForecastResult) -> float:
    """The fewest steps that a data set's forecast, or its roll-out where that goes further, can be trusted for."""
    entries = _forecasts(result)
    curves = [[curve for curve in (entry.forecast, entry.roll_out) if curve is not None] for entry in entries]
    return min(max(curve.trusted_until for curve in each) for each in curves) / result.plan.learning_rate


# The worst value over the skills, and over the data sets of a forecast: any one of them can be broken.
AUDIT: Mapping[str, Figure[AuditResult]] = {
    "utility_loss": Figure(lambda result: max(skill.utility_loss.mean for skill in result.skills.values())),
    "overlap": Figure(lambda result: max(skill.overlap.exact for skill in result.skills.values())),
    "overlap_ratio": Figure(lambda result: max(skill.nulls.same_rank.ratio or 0.0 for skill in result.skills.values())),
    "harmfulness": Figure(_worst_harm),
}
FORECAST: Mapping[str, Figure[ForecastResult]] = {
    "utility_loss": Figure(lambda result: _worst_end(_forecasts(result))),
    "proxy_gain": Figure(lambda result: _worst_end(_proxies(result))),
    "alarm_step": Figure(_first_alarm, "below"),
    "trusted_steps": Figure(_least_trusted, "below"),
    "epsilon_relative": Figure(lambda result: max(entry.epsilon_relative for entry in _forecasts(result))),
}


def limit_option(text: str) -> Any:
    """The option `--fail-on` of a command whose help says `text`."""
    return typer.Option(metavar="NAME=LIMIT", help=text)


def parse_limits(
    limits: list[str] | None, figures: Mapping[str, Figure[R]], unavailable: Mapping[str, str]
) -> dict[str, float]:
    """Limits by name of the figure; `unavailable` names the figures that are not measured, and why.

    Raises:
        InputError: an unknown name, no number, or a limit for what is not measured.
    """
    parsed = {}
    for text in limits or ():
        name, _, value = text.partition("=")
        if name not in figures:
            raise InputError(f"--fail-on {name}: expected one of {', '.join(figures)}")
        if name in unavailable:
            raise InputError(f"--fail-on {name}: {unavailable[name]}")
        parsed[name] = _number(value, text)
    return parsed


def parse_numbers(given: list[str] | None, option: str) -> dict[str, float]:
    """Numbers by name, of an option NAME=NUMBER whose names are checked elsewhere.

    Raises:
        InputError: no number.
    """
    pairs = [(name, _number(value, text, option)) for text in given or () for name, _, value in [text.rpartition("=")]]
    return dict(pairs)


def _number(value: str, text: str, option: str = "--fail-on") -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if math.isnan(number):  # no figure would ever be above it
        raise InputError(f"{option} {text}: expected NAME=LIMIT with a number")
    return number


def exceeded(result: R, figures: Mapping[str, Figure[R]], limits: Mapping[str, float]) -> int:
    """1 if a figure is on the failing side of its limit, else 0; prints what was exceeded."""
    from rich.console import Console

    over = [name for name, limit in limits.items() if figures[name].is_over(result, limit)]
    for name in over:
        value, side = figures[name].of(result), figures[name].fails
        Console(stderr=True).print(f"[red]{name} is {value:.4g}, {side} the limit of {limits[name]:g}[/red]")
    return int(bool(over))
