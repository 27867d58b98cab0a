"""Charts of a path: figures along it with their bands, and features over the blocks."""

from collections.abc import Sequence
from dataclasses import dataclass

from tiltmeter.report.charts import HOVER, Spec, base_layout, label
from tiltmeter.report.forecast_charts import SERIES
from tiltmeter.report.wording import span
from tiltmeter.runs.results import Interval


@dataclass(frozen=True)
class Line:
    """One figure along the path or over the blocks; dashed is a control's, which has no band."""

    name: str
    values: Sequence[Interval | None]
    colour: str
    is_control: bool = False


def colour(index: int) -> str:
    """The name of a CSS variable; after eight they start again."""
    return f"--series-{SERIES[index % len(SERIES)]}"


def along(points: Sequence[float], lines: Sequence[Line], title: str) -> Spec:
    """Figures against s, with vertical lines at the models: the base or one fine-tune at 0, a fine-tune at 1."""
    spec = _chart(points, [f"s = {s:g}" for s in points], lines, "s", title)
    stroke = {"color": "var(--soft)", "width": 1}
    models = [s for s in (0, 1) if points[0] <= s <= points[-1]]
    spec["layout"]["shapes"] = [
        {"type": "line", "yref": "paper", "x0": s, "x1": s, "y0": 0, "y1": 1, "line": stroke, "layer": "below"}
        for s in models
    ]
    return spec


def over_blocks(blocks: Sequence[str], lines: Sequence[Line], title: str) -> Spec:
    """Figures over the blocks, numbered from 0."""
    names = [label(f"block {index}: {name}") for index, name in enumerate(blocks)]
    spec = _chart(range(len(blocks)), names, lines, "block", title)
    spec["layout"]["xaxis"] |= {"dtick": max(1, len(blocks) // 8)}
    return spec


def _chart(x: Sequence[float], places: Sequence[str], lines: Sequence[Line], across: str, title: str) -> Spec:
    bands = [_band(x, line) for line in lines if not line.is_control]
    layout = base_layout(300, margin={"l": 56, "r": 10, "t": 8, "b": 44})
    layout["showlegend"] = False
    layout["xaxis"] |= {"title": {"text": across}}
    layout["yaxis"] |= {"title": {"text": title}}
    return {"data": [*bands, *(_line(x, places, line) for line in lines)], "layout": layout}


def _band(x: Sequence[float], line: Line) -> Spec:
    known = [(place, value) for place, value in zip(x, line.values, strict=True) if value is not None]
    around = [place for place, _ in known]
    edges = [value.high for _, value in known] + [value.low for _, value in reversed(known)]
    shape = {"type": "scatter", "mode": "lines", "x": around + around[::-1], "y": edges, "fill": "toself"}
    return {**shape, "fillcolor": f"var({line.colour}-soft)", "line": {"width": 0}, "hoverinfo": "skip"}


def _line(x: Sequence[float], places: Sequence[str], line: Line) -> Spec:
    hover = [
        f"{label(line.name)}<br>{place}<br>{span(value)}" for place, value in zip(places, line.values, strict=True)
    ]
    shade = f"var({line.colour})"
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": list(x),
        "y": [None if value is None else value.mean for value in line.values],
        "line": {"color": shade, "width": 2, "dash": "dot" if line.is_control else "solid"},
        "marker": {"size": 5, "color": shade, "symbol": "circle-open" if line.is_control else "circle"},
        "text": hover,
        **HOVER,
    }
