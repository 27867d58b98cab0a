"""Charts of a fine-tune: its loss, and what a monitor read of skills on the way."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tiltmeter.report.charts import HOVER, Spec, base_layout, label
from tiltmeter.report.wording import figure
from tiltmeter.runs.tune_result import RaisedAlarm


@dataclass(frozen=True)
class Curve:
    """One figure of one skill at the steps where it was read; `low` and `high` where it has an interval."""

    name: str
    colour: str
    steps: Sequence[float]
    values: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


def loss_chart(steps: Sequence[float], names: Sequence[str], losses: Sequence[float]) -> Spec:
    """The training loss against the step."""
    hover = [f"step {name}<br>loss {figure(loss)}" for name, loss in zip(names, losses, strict=True)]
    line = {"type": "scatter", "mode": "lines+markers", "line": {"color": "var(--accent)", "width": 2}}
    layout = _layout("loss (nats per token)")
    layout["yaxis"] |= {"rangemode": "tozero"}
    data = {**line, "x": list(steps), "y": list(losses), "marker": {"size": 4}, "text": hover, **HOVER}
    return {"data": [data], "layout": layout}


def readings_chart(
    curves: Sequence[Curve], limits: Mapping[str, float], alarms: Sequence[RaisedAlarm], title: str
) -> Spec:
    """A figure of each skill against the step, its limits as dashed lines, a cross where one was exceeded."""
    bands = [_band(curve) for curve in curves if curve.low is not None]
    crosses = [_cross(alarm) for alarm in alarms]
    layout = _layout(title)
    layout["shapes"] = [_limit(value) for value in limits.values()]
    layout["annotations"] = [_limit_name(name, value) for name, value in limits.items()]
    return {"data": [*bands, *map(_line, curves), *crosses], "layout": layout}


def _layout(title: str) -> Spec:
    layout = base_layout(300, margin={"l": 56, "r": 10, "t": 8, "b": 44})
    layout["xaxis"] |= {"title": {"text": "step"}, "rangemode": "tozero"}
    layout["yaxis"] |= {"title": {"text": title}}
    layout["showlegend"] = False
    return layout


def _line(curve: Curve) -> Spec:
    shade = f"var({curve.colour})"
    hover = [
        f"{label(curve.name)}<br>step {step:g}<br>{figure(value)}"
        for step, value in zip(curve.steps, curve.values, strict=True)
    ]
    look = {"line": {"color": shade, "width": 2}, "marker": {"size": 5, "color": shade}}
    places = {"x": list(curve.steps), "y": list(curve.values)}
    return {"type": "scatter", "mode": "lines+markers", **places, **look, "text": hover, **HOVER}


def _band(curve: Curve) -> Spec:
    edges = [*(curve.high or ()), *reversed(curve.low or ())]
    shape = {"type": "scatter", "mode": "lines", "x": [*curve.steps, *reversed(curve.steps)], "y": edges}
    fill = {"fill": "toself", "fillcolor": f"var({curve.colour}-soft)", "line": {"width": 0}}
    return {**shape, **fill, "hoverinfo": "skip"}


def _cross(alarm: RaisedAlarm) -> Spec:
    marker = {"symbol": "x", "size": 11, "color": "var(--bad)"}
    hover = f"{label(alarm.skill)}<br>step {alarm.step}<br>{figure(alarm.value)}, limit {figure(alarm.limit)}"
    point = {"type": "scatter", "mode": "markers", "x": [alarm.step], "y": [alarm.value]}
    return {**point, "marker": marker, "text": [hover], **HOVER}


def _limit(value: float) -> Spec:
    stroke = {"color": "var(--bad)", "width": 1, "dash": "dash"}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": value, "y1": value, "line": stroke}


def _limit_name(name: str, value: float) -> Spec:
    font = {"size": 11, "color": "var(--bad)"}
    place = {"xref": "paper", "x": 1, "xanchor": "right", "y": value, "yanchor": "bottom", "showarrow": False}
    return {**place, "text": f"limit of {label(name)}", "font": font}
