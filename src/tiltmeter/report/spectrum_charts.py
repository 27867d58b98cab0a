"""Charts of a spectrum: eigenvalues with null bands, figures against N, rotation along checkpoints."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiltmeter.report.charts import HOVER, Spec, base_layout, label, log_ticks
from tiltmeter.report.wording import figure
from tiltmeter.runs.spectrum_result import RotationRow, SizeRow, Split

COLOURS = {"data": "var(--accent)", "random text": "var(--warn)", "shuffled completions": "var(--good)"}
NAMES = {"data": "the skill", "random text": "random", "shuffled completions": "shuffled"}
FLOOR = 1e-9  # of the trace: rounding of float32 gradients


def eigenvalues(texts: Mapping[str, NDArray[Any]]) -> Spec:
    """Eigenvalues as shares of the trace, `[D, N]` by text, on log axes; nulls as bands from least to largest draw."""
    data: list[Spec] = []
    for name in _drawn(texts):
        values = texts[name]
        shares = values / np.maximum(values.sum(1, keepdims=True), 1e-300)
        low, high, mean = shares.min(0), shares.max(0), shares.mean(0)
        count = int((low > FLOOR).sum())
        if len(shares) > 1:
            data += _band(name, list(range(1, count + 1)), low[:count].tolist(), high[:count].tolist())
        data.append(_line(name, list(range(1, count + 1)), mean[:count].tolist()))
    layout = _log_layout(data, "eigenvalue number", "share of the trace")
    return {"data": data, "layout": layout}


def against_size(rows: Sequence[SizeRow]) -> Spec:
    """Participation ratio against the number of examples, 5th to 95th percentile of sub-samples, on log axes."""
    data: list[Spec] = []
    for name in _drawn({row.text: row for row in rows}):
        mine = [row for row in rows if row.text == name]
        x, found = [row.size for row in mine], [row.participation_ratio for row in mine]
        data += _band(name, x, [each.low for each in found], [each.high for each in found])
        data.append(_line(name, x, [each.mean for each in found], "lines+markers"))
    layout = _log_layout(data, "examples N", "participation ratio")
    return {"data": data, "layout": layout}


def rotation(rows: Sequence[RotationRow], split: Split | None) -> Spec:
    """Along the checkpoints: the sine, the bound where it is below 1, and what is left of the subspace."""
    names = [f"{number}. {label(_short(row.checkpoint))}" for number, row in enumerate(rows, start=1)]
    found = [row.turned for row in rows]
    bounds = [None if each is None else each.bound for each in found]
    series = (
        ("sin(largest angle)", [None if each is None else each.sine for each in found], "var(--accent)", "diamond"),
        (
            "bound below 1",
            [x if x is not None and x < 1 else None for x in bounds],
            "var(--bad)",
            "line-ew-open",
        ),
        ("overlap", [None if each is None else each.overlap for each in found], "var(--good)", "circle"),
    )
    data = []
    for title, values, colour, symbol in (each for each in series if any(value is not None for value in each[1])):
        hover = [f"{name}<br>{title}: {figure(value)}" for name, value in zip(names, values, strict=True)]
        look = {
            "marker": {"size": 10, "symbol": symbol, "color": colour, "line": {"width": 2, "color": colour}},
            "line": {"color": colour},
        }
        trace = {"type": "scatter", "mode": "lines+markers", "name": title, "x": names, "y": values, **look}
        data.append({**trace, "text": hover, **HOVER})
    layout = base_layout(320, margin={"l": 56, "r": 16, "t": 8, "b": 90})
    layout["xaxis"] |= {"type": "category", "showgrid": False}
    layout["yaxis"] |= {"range": [-0.03, 1.05]}
    shapes = [] if split is None else [_level(split)]
    return {"data": data, "layout": {**layout, "shapes": shapes}}


def _level(split: Split) -> Spec:
    """The overlap of two halves of the skill."""
    ends = {"y0": split.overlap.low, "y1": split.overlap.high}
    look = {"fillcolor": "var(--soft)", "opacity": 0.4, "line": {"width": 0}, "layer": "below"}
    return {"type": "rect", "xref": "paper", "yref": "y", "x0": 0, "x1": 1, **ends, **look}


def _drawn(texts: Mapping[str, object]) -> list[str]:
    """Nulls first."""
    return sorted(texts, key=lambda name: name == "data")


def _line(name: str, x: list[int], y: list[float], mode: str = "lines") -> Spec:
    title = NAMES.get(name, name)
    hover = [f"{title}, {number}: {figure(value)}" for number, value in zip(x, y, strict=True)]
    width = 2 if name == "data" else 4  # the skill is drawn last, over nulls that it may coincide with
    look = {"line": {"color": COLOURS[name], "width": width}, "marker": {"color": COLOURS[name], "size": 7}}
    return {"type": "scatter", "mode": mode, "name": title, "x": x, "y": y, "text": hover, **look, **HOVER}


def _band(name: str, x: list[int], low: list[float], high: list[float]) -> list[Spec]:
    edge = {"type": "scatter", "mode": "lines", "x": x, "hoverinfo": "skip", "showlegend": False}
    line = {"line": {"width": 0, "color": COLOURS[name]}}
    return [{**edge, **line, "y": low}, {**edge, **line, "y": high, "fill": "tonexty", "opacity": 0.4}]


def _log_layout(data: Sequence[Spec], x_title: str, y_title: str) -> Spec:
    xs, ys = ([value for trace in data for value in trace[axis] if value > 0] for axis in ("x", "y"))
    layout = base_layout(340, margin={"l": 64, "r": 16, "t": 8, "b": 80})
    layout["legend"] |= {"traceorder": "normal"}
    layout["xaxis"] |= {"type": "log", "title": {"text": x_title}, **log_ticks(xs)}
    layout["yaxis"] |= {"type": "log", "title": {"text": y_title}, **log_ticks(ys)}
    return layout


def _short(path: str) -> str:
    """The end of a path, by which a chart can tell checkpoints apart."""
    return path.rstrip("/").rpartition("/")[2][-24:]
