"""The charts of a forecast: solid as far as it is trusted, dotted beyond."""

import math
from collections.abc import Callable, Mapping, Sequence

from tiltmeter.report.charts import HOVER, Spec, base_layout, bent_ticks, label
from tiltmeter.report.forecast_outlook import AnyOutlook, Point
from tiltmeter.report.forecast_wording import steps
from tiltmeter.report.wording import figure, span
from tiltmeter.runs.forecast_result import DataCurve

SERIES = "abcdefgh"
Colours = Mapping[str, str]


def colours(names: Sequence[str]) -> Colours:
    """The name of a CSS variable for each data set, the same in all charts; after eight they start again."""
    return {name: f"--series-{SERIES[index % len(SERIES)]}" for index, name in enumerate(names)}


def losses(sets: Sequence[AnyOutlook], shades: Colours) -> Spec:
    """Utility loss against steps."""
    return _means(sets, shades, "utility loss (nats)")


def gains(sets: Sequence[AnyOutlook], shades: Colours) -> Spec:
    """A proxy's gain against steps."""
    return _means(sets, shades, "gain (nats)")


def drifts(sets: Sequence[AnyOutlook], shades: Colours) -> Spec:
    """The drift in the skill's subspace against steps."""
    return _plain(sets, shades, "drift", lambda point: _drawn(point.drift))


def overlaps(sets: Sequence[AnyOutlook], shades: Colours) -> Spec:
    """The overlap of the displacement with the skill's Fisher information against steps."""
    return _plain(sets, shades, "overlap", lambda point: _drawn(point.overlap))


def training_loss(figures: DataCurve, at: Sequence[float], colour: str) -> Spec:
    """The fine-tuning loss along the forecast: evaluated (solid), and by the quadratic model (dashed).

    The axis spans the evaluated loss; a model that has lost its way leaves the chart.
    """
    x = [0.0, *at]
    data = []
    for title, values, dash in (
        ("quadratic model", figures.expected, "dash"),
        ("evaluated", figures.evaluated, "solid"),
    ):
        y = [figures.start, *values]
        hover = [f"step {steps(step)}<br>{title} {figure(value)}" for step, value in zip(x, y, strict=True)]
        line = {"color": f"var({colour})" if dash == "solid" else "var(--ink)", "dash": dash, "width": 2}
        data.append({"type": "scatter", "mode": "lines+markers", "x": x, "y": y, "line": line, "text": hover, **HOVER})
    layout = base_layout(220, margin={"l": 48, "r": 10, "t": 8, "b": 44})
    layout["showlegend"] = False
    layout["xaxis"] |= {"title": {"text": "step"}, "rangemode": "tozero"}
    low, high = min(figures.start, *figures.evaluated), max(figures.start, *figures.evaluated)
    margin = (high - low) / 2 or 1.0
    layout["yaxis"] |= {"title": {"text": "fine-tuning loss"}, "range": [low - margin, high + margin]}
    return {"data": data, "layout": layout}


def _means(sets: Sequence[AnyOutlook], shades: Colours, title: str) -> Spec:
    """Means with their bands, the roll-out's points, a cross where the forecast stands still, and the limit."""
    limits = [each.figures.alarm.limit for each in sets[:1] if each.figures.alarm]
    shown = [point.value for each in sets for point in [*each.points, *each.rolled]]
    values = [*(loss.high for loss in shown), *(loss.low for loss in shown), *limits]
    bend = _bend(values)
    data = [_band(each, shades[each.name], bend) for each in sets]
    for each in reversed(sets):
        data += _lines(each, shades[each.name], bend, lambda point: point.value.mean)
        still = [point for point in each.points if point.state == "stands still"][:1]
        data += [_markers(each, points, shades[each.name], bend) for points in (each.rolled, still) if points]
    spec = _spec(data, 380, title, values, bend)
    spec["layout"]["shapes"] = [_limit(math.asinh(limit / bend)) for limit in limits]
    return spec


def _drawn(value: float | None) -> float:
    """An overflow is drawn out of the chart."""
    return 1e300 if value is None else value


def _plain(sets: Sequence[AnyOutlook], shades: Colours, title: str, value: Callable[[Point], float]) -> Spec:
    """Curves of the quadratic model; the axis ends at ten times the largest trusted value, where it loses its way."""
    trusted = [value(point) for each in sets for point in each.points if point.state == "trusted"]
    first = [value(each.points[0]) for each in sets]
    top = 10 * max([*trusted, *first])
    shown = [min(value(point), top) for each in sets for point in each.points]
    bend = _bend(shown)
    data = [trace for each in reversed(sets) for trace in _lines(each, shades[each.name], bend, value)]
    spec = _spec(data, 300, title, shown, bend)
    spec["layout"]["yaxis"]["range"] = [-0.2, math.asinh(max(shown) / bend) + 0.2]
    return spec


def _lines(each: AnyOutlook, colour: str, bend: float, value: Callable[[Point], float]) -> list[Spec]:
    """A solid line from the base to the last trusted point, and a dotted one from there."""
    x = [0.0, *(point.step for point in each.points)]
    y = [0.0, *(math.asinh(value(point) / bend) for point in each.points)]
    hover = [f"{label(each.name)}<br>step 0", *(_hover(each, point, figure(value(point))) for point in each.points)]
    turn = sum(point.state == "trusted" for point in each.points)
    parts = [("solid", slice(0, turn + 1)), ("dot", slice(turn, None))]
    return [
        {"type": "scatter", "mode": "lines+markers", "x": x[part], "y": y[part], "text": hover[part], **HOVER}
        | {"marker": {"size": 5, "color": f"var({colour})"}}
        | {"line": {"color": f"var({colour})", "dash": dash, "width": 2}}
        for dash, part in parts
        if len(x[part]) > 1
    ]


def _band(each: AnyOutlook, colour: str, bend: float) -> Spec:
    x = [0.0, *(point.step for point in each.points)]
    high = [0.0, *(math.asinh(point.value.high / bend) for point in each.points)]
    low = [0.0, *(math.asinh(point.value.low / bend) for point in each.points)]
    outline = {"type": "scatter", "mode": "lines", "x": x + x[::-1], "y": high + low[::-1]}
    return {**outline, "fill": "toself", "fillcolor": f"var({colour}-soft)", "line": {"width": 0}, "hoverinfo": "skip"}


def _markers(each: AnyOutlook, points: Sequence[Point], colour: str, bend: float) -> Spec:
    """Points with their intervals: diamonds of a roll-out, a cross where the forecast stands still."""
    symbol = "x-thin-open" if points[0].state == "stands still" else "diamond-open"
    means = [math.asinh(point.value.mean / bend) for point in points]
    bars = {
        "type": "data",
        "symmetric": False,
        "array": [math.asinh(point.value.high / bend) - mean for point, mean in zip(points, means, strict=True)],
        "arrayminus": [mean - math.asinh(point.value.low / bend) for point, mean in zip(points, means, strict=True)],
        "color": f"var({colour})",
        "thickness": 1,
        "width": 3,
    }
    marker = {"symbol": symbol, "size": 9, "color": f"var({colour})", "line": {"width": 2}}
    hover = [_hover(each, point, span(point.value)) for point in points]
    traced = {"type": "scatter", "mode": "markers", "x": [point.step for point in points], "y": means}
    return {**traced, "error_y": bars, "marker": marker, "text": hover, **HOVER}


def _hover(each: AnyOutlook, point: Point, value: str) -> str:
    return f"{label(each.name)}<br>step {steps(point.step)}, {point.state}<br>{value}"


def _limit(height: float) -> Spec:
    line = {"color": "var(--ink)", "dash": "dash", "width": 1}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": height, "y1": height, "line": line}


def _bend(values: Sequence[float]) -> float:
    return max((abs(value) for value in values), default=1.0) / 300 or 1.0


def _spec(data: list[Spec], height: int, title: str, values: Sequence[float], bend: float) -> Spec:
    """The axis is linear near zero and logarithmic beyond, so that a small loss and a collapse are both seen."""
    layout = base_layout(height, margin={"l": 56, "r": 10, "t": 8, "b": 44})
    layout["showlegend"] = False
    layout["xaxis"] |= {"title": {"text": "step"}, "rangemode": "tozero"}
    layout["yaxis"] |= {"title": {"text": title}, **bent_ticks(values, bend)}
    return {"data": data, "layout": layout}
