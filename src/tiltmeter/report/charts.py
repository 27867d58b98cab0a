"""The page's charts as plotly specifications: plain data, colours by the name of a CSS variable.

Any text from outside passes through `label`, because plotly reads a subset of HTML in its strings.
"""

import html
import math
from collections.abc import Sequence
from typing import Any

from tiltmeter.report.grid import Cell, Grid
from tiltmeter.report.wording import figure
from tiltmeter.runs.results import DemoRow, Skill
from tiltmeter.text import inert

Spec = dict[str, Any]
SCORES = ("exact", "normalised")
CATEGORY_COLOURS = {"benign": "var(--good)", "seemingly benign": "var(--warn)", "harmful": "var(--bad)"}


def label(text: str) -> str:
    """Text that plotly shows as it is."""
    return html.escape(inert(text, keep=""), quote=False)


def heatmap(grid: Grid) -> Spec:
    """Overlap by block and module kind on a logarithmic colour scale: one trace per score, the first one shown."""
    traces = [_heat(grid, score, visible=score == SCORES[0]) for score in SCORES]
    height = 60 + max(28 * len(grid.blocks), 90)
    layout = base_layout(height, margin={"l": 40, "r": 10, "t": 10, "b": 40})
    layout["xaxis"] |= {"type": "category", "showgrid": False, "title": None, "tickangle": "auto"}
    layout["yaxis"] |= {"type": "category", "showgrid": False, "autorange": "reversed", "title": {"text": "block"}}
    return {"data": traces, "layout": layout}


def nulls(skill: Skill) -> Spec:
    """The observed overlap against mean and 95th percentile of both nulls, on a logarithmic axis."""
    rows = [("same rank", skill.nulls.same_rank), ("dense", skill.nulls.dense)]
    data = []
    for name, null in rows:
        ends = [_positive(null.mean), _positive(null.p95)]
        line = {"type": "scatter", "mode": "lines", "x": ends, "y": [name, name], "hoverinfo": "skip"}
        data.append({**line, "line": {"color": "var(--soft)", "width": 6}, "showlegend": False})
    for title, values, marker in (
        ("null mean", [null.mean for _, null in rows], {"symbol": "circle-open", "color": "var(--muted)"}),
        ("null 95th percentile", [null.p95 for _, null in rows], {"symbol": "line-ns-open", "color": "var(--ink)"}),
        ("observed", [skill.overlap.exact] * 2, {"symbol": "diamond", "color": "var(--accent)"}),
    ):
        hover = [f"{title}: {figure(value)}" for value in values]
        points = {"type": "scatter", "mode": "markers", "name": title, "x": list(map(_positive, values))}
        data.append({**points, "y": [name for name, _ in rows], "marker": _marker(12, marker), "text": hover, **HOVER})
    layout = base_layout(190, margin={"l": 80, "r": 16, "t": 8, "b": 70})
    layout["xaxis"] |= {"type": "log", "title": {"text": "overlap"}, **log_ticks(_all_x(data))}
    layout["yaxis"] |= {"type": "category", "range": [-0.6, 1.6], "showgrid": False}
    return {"data": data, "layout": layout}


def losses(skills: dict[str, Skill]) -> Spec:
    """Measured utility loss with its interval, beside the first-order and the quadratic prediction."""
    names = [label(name) for name in skills][::-1]
    figures = list(skills.values())[::-1]
    loss = [skill.utility_loss for skill in figures]
    bars = {
        "type": "data",
        "symmetric": False,
        "array": [entry.high - entry.mean for entry in loss],
        "arrayminus": [entry.mean - entry.low for entry in loss],
        "color": "var(--accent)",
    }
    data = []
    for title, values, marker in (
        ("measured", [entry.mean for entry in loss], {"symbol": "diamond", "color": "var(--accent)"}),
        ("first order", [skill.first_order for skill in figures], {"symbol": "circle-open", "color": "var(--ink)"}),
        ("quadratic", [entry.quadratic for entry in loss], {"symbol": "square-open", "color": "var(--muted)"}),
    ):
        hover = [f"{name}<br>{title}: {figure(value)}" for name, value in zip(names, values, strict=True)]
        points = {"type": "scatter", "mode": "markers", "name": title, "x": values, "y": names, "text": hover}
        extra = {"error_x": bars} if title == "measured" else {}
        data.append({**points, **extra, "marker": _marker(11, marker), **HOVER})
    layout = base_layout(130 + 44 * len(names), margin={"l": 80, "r": 16, "t": 8, "b": 70})
    layout["xaxis"] |= {"title": {"text": "utility loss (nats)"}, "zeroline": True, "zerolinecolor": "var(--muted)"}
    layout["yaxis"] |= {"type": "category", "range": [-0.6, len(names) - 0.4], "showgrid": False}
    return {"data": data, "layout": layout}


def scatter(rows: Sequence[DemoRow], skill: str, score: str) -> Spec:
    """A score against the utility loss over the demo's runs: colour by category, shape by method.

    The loss axis is linear near zero and logarithmic beyond, so that small losses and a collapse are both seen.
    """
    points = [(row, _score(row, skill, score), row.skills[skill].utility_loss) for row in rows if skill in row.skills]
    shown = [(row, x, y) for row, x, y in points if x is not None and x > 0]
    bend = max((abs(y) for _, _, y in shown), default=1.0) / 300 or 1.0
    data = []
    for category, colour in CATEGORY_COLOURS.items():
        mine = [point for point in shown if point[0].category == category]
        hover = [_run_hover(row, score, x, y) for row, x, y in mine]
        symbols = ["circle" if row.method == "lora" else "square-open" for row, _, _ in mine]
        marker = {"size": 11, "color": colour, "symbol": symbols, "line": {"width": 2, "color": colour}}
        trace = {"type": "scatter", "mode": "markers", "name": category, "x": [x for _, x, _ in mine]}
        data.append({**trace, "y": [math.asinh(y / bend) for *_, y in mine], "marker": marker, "text": hover, **HOVER})
    layout = base_layout(320, margin={"l": 56, "r": 10, "t": 8, "b": 80})
    layout["xaxis"] |= {"type": "log", "title": {"text": f"{score} overlap"}, **log_ticks(_all_x(data))}
    layout["yaxis"] |= {"title": {"text": "utility loss (nats)"}, **bent_ticks([y for *_, y in shown], bend)}
    return {"data": data, "layout": layout}


HOVER = {"hovertemplate": "%{text}<extra></extra>"}


def base_layout(height: int, margin: dict[str, int]) -> Spec:
    """What all charts share: fonts, grid, a legend below."""
    axis = {"gridcolor": "var(--line)", "zeroline": False, "automargin": True, "fixedrange": True, "ticks": ""}
    font = {"family": "system-ui, sans-serif", "size": 12, "color": "var(--ink)"}
    return {
        "height": height,
        "margin": margin,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": font,
        "dragmode": False,
        "hoverlabel": {
            "bgcolor": "var(--card)",
            "bordercolor": "var(--line)",
            "font": font,
        },
        "legend": {"orientation": "h", "y": -0.35, "yref": "container", "yanchor": "bottom", "x": 0},
        "xaxis": dict(axis),
        "yaxis": dict(axis),
    }


def _heat(grid: Grid, score: str, *, visible: bool) -> Spec:
    values = [[_log(_mean(cell, score)) for cell in row] for row in grid.cells]
    found = [value for row in values for value in row if value is not None]
    ticks = log_ticks([10**value for value in found], least=2)
    return {
        "type": "heatmap",
        "visible": visible,
        "x": [label(kind) for kind in grid.kinds],
        "y": [str(block) for block in grid.blocks],
        "z": values,
        "text": [[_cell_hover(cell) for cell in row] for row in grid.cells],
        "xgap": 2,
        "ygap": 2,
        "hoverongaps": False,
        "colorscale": [[0, "var(--heat-low)"], [0.5, "var(--heat-middle)"], [1, "var(--heat-high)"]],
        "colorbar": {
            "thickness": 10,
            "outlinewidth": 0,
            "tickvals": [math.log10(value) for value in ticks.get("tickvals", [])],
            "ticktext": ticks.get("ticktext", []),
        },
        **HOVER,
    }


def _marker(size: int, look: dict[str, str]) -> Spec:
    return {"size": size, "line": {"width": 2}, **look}


def _mean(cell: Cell | None, score: str) -> float | None:
    return None if cell is None else cell.exact if score == "exact" else cell.normalised


def _cell_hover(cell: Cell | None) -> str:
    if cell is None:
        return ""
    head = label(cell.modules[0]) + (f"<br>and {len(cell.modules) - 1} more: means" if len(cell.modules) > 1 else "")
    pairs = [("exact", cell.exact), ("normalised", cell.normalised), ("floor", cell.floor), ("trace", cell.trace)]
    return "<br>".join([head, *(f"{name} {figure(value)}" for name, value in pairs)])


def _score(row: DemoRow, skill: str, score: str) -> float | None:
    figures = row.skills[skill]
    return figures.exact if score == "exact" else figures.projected


def _run_hover(row: DemoRow, score: str, x: float, y: float) -> str:
    method = "LoRA" if row.method == "lora" else row.method
    return f"{label(row.set)}, {method}<br>{score} overlap {figure(x)}<br>utility loss {figure(y)}"


def _positive(value: float) -> float | None:
    return value if value > 0 else None


def _log(value: float | None) -> float | None:
    return math.log10(value) if value is not None and value > 0 else None


def _all_x(data: list[Spec]) -> list[float]:
    return [x for trace in data for x in trace["x"] if x is not None]


def log_ticks(values: Sequence[float], least: int = 3) -> Spec:
    """At least `least` round ticks for a logarithmic axis: powers of ten, finer steps over a short span."""
    if not values:
        return {}
    low, high = math.log10(min(values)), math.log10(max(values))
    stride = max(1, math.ceil((high - low) / 8))
    powers = range(math.floor(low) - 1, math.ceil(high) + 2, stride)
    for steps in ((1,), (1, 2, 5), (1, 2, 3, 4, 6, 8)):
        ticks = [step * 10.0**power for power in powers for step in steps]
        inside = [tick for tick in ticks if low - 0.1 <= math.log10(tick) <= high + 0.1]
        if len(inside) >= least:
            return {"tickvals": inside, "ticktext": [figure(tick, 1) for tick in inside]}
    ends = sorted({min(values), max(values)})
    return {"tickvals": ends, "ticktext": [figure(tick) for tick in ends]}


def bent_ticks(values: Sequence[float], bend: float) -> Spec:
    """Ticks of an axis that shows `asinh(value / bend)`: linear near zero, logarithmic beyond."""
    top, bottom = max([0.0, *values]), min([0.0, *values])
    powers = [
        10.0**power for power in range(math.floor(math.log10(bend)) + 1, math.ceil(math.log10(max(top, bend))) + 1)
    ]
    ticks = [-tick for tick in powers if -tick >= 2 * bottom] + [0.0] + [tick for tick in powers if tick <= 2 * top]
    return {"tickvals": [math.asinh(tick / bend) for tick in ticks], "ticktext": [figure(tick, 1) for tick in ticks]}
