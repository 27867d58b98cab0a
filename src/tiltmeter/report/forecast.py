"""What the page shows of a forecast. Text stays raw here; the template escapes it."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tiltmeter.report import forecast_charts as charts
from tiltmeter.report.charts import Spec
from tiltmeter.report.forecast_outlook import Outlook, outlooks, proxies, proxy_outlooks
from tiltmeter.report.forecast_verdict import forecast_cautions, judge_forecast, judge_proxy
from tiltmeter.report.forecast_wording import plan_sentence, unit
from tiltmeter.report.verdict import Verdict
from tiltmeter.runs.forecast_result import DataCurve, DataForecast, ForecastResult, ProxyForecast


@dataclass(frozen=True)
class SkillForecastView:
    """One skill: its data sets, the most harmful first."""

    name: str
    examples: int
    verdict: Verdict
    sets: list[Outlook[DataForecast]]
    losses: Spec
    drifts: Spec
    overlaps: Spec


@dataclass(frozen=True)
class ProxyView:
    """One harmfulness proxy: its data sets, the highest gain first."""

    name: str
    verdict: Verdict
    sets: list[Outlook[ProxyForecast]]
    gains: Spec


@dataclass(frozen=True)
class DataView:
    """One data set's fine-tuning loss; `points` are step, evaluated, expected and disagreement."""

    name: str
    figures: DataCurve
    outlook: Outlook[DataForecast]
    points: list[tuple[float, float, float | None, float | None]]
    chart: Spec

    @property
    def most_disagreement(self) -> float | None:
        """The largest that is a number; None where every point overflows or there is nothing to compare with."""
        return max((value for value in self.figures.disagreement if value is not None), default=None)


@dataclass(frozen=True)
class ForecastView:
    """One forecast. `colours` gives each data set's CSS variable."""

    anchor: str
    title: str
    plan: str
    unit: str
    result: ForecastResult
    skills: list[SkillForecastView]
    proxies: list[ProxyView]
    data: list[DataView]
    cautions: list[str]
    colours: charts.Colours
    template: ClassVar[str] = "forecast.html"


def forecast_view(folder: Path, anchor: str, result: ForecastResult) -> ForecastView:
    """The view of a run folder that holds a forecast."""
    shades = charts.colours(list(result.data))
    return ForecastView(
        anchor,
        _title(folder, result),
        plan_sentence(result.plan),
        unit(result),
        result,
        [_skill(result, name, shades) for name in result.skills],
        [_proxy(result, name, shades) for name in proxies(result)],
        [_data(result, name, shades[name]) for name in result.data],
        forecast_cautions(result),
        shades,
    )


def _title(folder: Path, result: ForecastResult) -> str:
    bases = [given.path for given in result.inputs if given.role == "base"]
    count = len(result.data)
    return f"{bases[0] if bases else folder.resolve().name} before {count} planned fine-tune{'' if count == 1 else 's'}"


def _skill(result: ForecastResult, name: str, shades: charts.Colours) -> SkillForecastView:
    sets = outlooks(result, name)
    verdict, examples = judge_forecast(result, name), result.skills[name].examples
    drawn = (charts.losses(sets, shades), charts.drifts(sets, shades), charts.overlaps(sets, shades))
    return SkillForecastView(name, examples, verdict, sets, *drawn)


def _proxy(result: ForecastResult, name: str, shades: charts.Colours) -> ProxyView:
    sets = proxy_outlooks(result, name)
    return ProxyView(name, judge_proxy(result, name), sets, charts.gains(sets, shades))


def _data(result: ForecastResult, name: str, colour: str) -> DataView:
    figures = result.data[name]
    outlook = next(each for each in outlooks(result, next(iter(result.skills))) if each.name == name)
    at = [point.step for point in outlook.points]
    points = list(zip(at, figures.evaluated, figures.expected, figures.disagreement, strict=True))
    return DataView(name, figures, outlook, points, charts.training_loss(figures, at, colour))
