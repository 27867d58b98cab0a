"""Matrices of transfers as heatmaps: effects from rows to columns, with a sign for each verdict."""

from collections.abc import Mapping

from tiltmeter.report.charts import Spec, base_layout, label
from tiltmeter.report.compare_charts import BAR, SIGNED, numbered
from tiltmeter.report.controls import plain
from tiltmeter.report.judge_wording import SHARES, value
from tiltmeter.report.steer_verdict import WORDS
from tiltmeter.report.transfer_verdict import matrix
from tiltmeter.report.wording import figure
from tiltmeter.runs.steer_result import SteerVerdict
from tiltmeter.runs.transfer_result import RouteRecord, TransferResult

SIGNS: Mapping[SteerVerdict, str] = {"specific": "●", "not specific": "◐", "none": "○", "broke": "✕"}
PRINTED = 5  # models up to which cells have room for their figures


def heatmap(result: TransferResult, way: str) -> Spec:
    """One way; the colour is the effect, on one scale for all ways, beyond which effects of broken models may lie."""
    names, routes = list(result.models), matrix(result, way)
    cells = [[routes[source, target] for target in names] for source in names]
    rows = numbered(names)
    trace = {
        "type": "heatmap",
        "x": [row.partition(".")[0] for row in rows],
        "y": rows,
        "z": [[None if cell.effect is None else cell.effect.mean for cell in row] for row in cells],
        "text": [[_printed(result, cell, len(names)) for cell in row] for row in cells],
        "customdata": [[_told(result, cell) for cell in row] for row in cells],
        "texttemplate": "%{text}",
        "hovertemplate": "%{customdata}<extra></extra>",
        "hoverongaps": False,
        "xgap": 2,
        "ygap": 2,
        "colorscale": SIGNED,
        **_scale(result),
    }
    layout = base_layout(100 + max(120, 34 * len(names)), margin={"l": 100, "r": 10, "t": 8, "b": 78})
    layout["xaxis"] |= {"type": "category", "showgrid": False, "tickangle": 0, "title": {"text": "to"}}
    layout["yaxis"] |= {"type": "category", "showgrid": False, "autorange": "reversed", "title": {"text": "from"}}
    return {"data": [trace], "layout": layout}


def _printed(result: TransferResult, cell: RouteRecord, models: int) -> str:
    sign = SIGNS[cell.verdict]
    if cell.effect is None or models > PRINTED:
        return sign
    mean = cell.effect.mean
    return f"{plain(result.outcome, mean) if result.outcome in SHARES else figure(mean, 2)} {sign}"


def _told(result: TransferResult, cell: RouteRecord) -> str:
    place = f"{label(cell.source)} to {label(cell.target)}, {cell.way}"
    return f"{place}<br>{value(result.outcome, cell.effect)}<br>{WORDS[cell.verdict]}"


def _scale(result: TransferResult) -> Spec:
    whole = [route.effect for route in result.routes if route.effect is not None and route.verdict != "broke"]
    most = max((abs(effect.mean) for effect in whole), default=0.0) or 1.0
    form = {"tickformat": ".0%"} if result.outcome in SHARES else {}
    return {"zmin": -most, "zmax": most, "colorbar": {**BAR, **form}}
