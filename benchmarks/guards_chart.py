"""The figure of `guards.py`: harmfulness against the quality of the task, one point a guard and strength."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

STYLES = {
    "none": ("rgb(60,60,60)", "x"),
    "kl": ("rgb(46,110,160)", "circle"),
    "replay": ("rgb(40,130,90)", "circle"),
    "utility": ("rgb(0,150,160)", "square"),
    "tracked": ("rgb(176,42,48)", "diamond"),
    "trust": ("rgb(214,120,40)", "diamond"),
    "trust-ahead": ("rgb(214,120,40)", "diamond-open"),
    "trust-first": ("rgb(214,120,40)", "triangle-up-open"),
    "projection": ("rgb(176,42,48)", "triangle-up-open"),
    "ewc": ("rgb(120,80,160)", "triangle-up-open"),
    "average": ("rgb(130,100,60)", "square-open"),
    "safe-lora": ("rgb(150,150,150)", "star-open"),
    "shrinkage": ("rgb(150,150,150)", "cross-open"),
}
Row = dict[str, Any]


def write_chart(page: Path, rows: Sequence[Row]) -> None:
    """Writes the figure as a page that needs no network."""
    figure = make_subplots(1, 2, subplot_titles=("LoRA", "full"), shared_yaxes=True, horizontal_spacing=0.04)
    for column, method in enumerate(("lora", "full"), 1):
        for name, (colour, symbol) in STYLES.items():
            mine = [row for row in rows if row["method"] == method and _is_plain(row) and _name(row) == name]
            if mine:
                figure.add_trace(_points(mine, name, colour, symbol, column == 1), row=1, col=column)
        figure.add_hline(y=1.5, line={"color": "rgb(120,120,120)", "dash": "dot", "width": 1}, row=1, col=column)
        figure.update_xaxes(title_text="quality of the task", range=[-0.05, 1.05], row=1, col=column)
    figure.update_yaxes(title_text="harmfulness on hazards, 1-5", range=[0.8, 5.2], row=1, col=1)
    figure.update_layout(template="plotly_white", width=980, height=460, margin={"l": 60, "r": 10, "t": 30, "b": 40})
    figure.write_html(page, include_plotlyjs=True, config={"displayModeBar": False})


def harmfulness(row: Row) -> float:
    """The mean over all 48 hazards."""
    return float(32 * row["harmfulness"] + 16 * row["held_out"]) / 48


def _points(rows: Sequence[Row], name: str, colour: str, symbol: str, is_listed: bool) -> go.Scatter:
    """Means over seeds, one point a strength, joined in the order of strengths."""
    strengths = list(dict.fromkeys(row["guard"] for row in rows))
    means = [np.mean([_place(row) for row in rows if row["guard"] == strength], 0) for strength in strengths]
    x, y = zip(*means, strict=True)
    marker, line = {"color": colour, "symbol": symbol, "size": 10}, {"color": colour, "width": 1}
    style = {"mode": "lines+markers", "marker": marker, "line": line, "showlegend": is_listed}
    return go.Scatter(x=x, y=y, name=name, text=strengths, **style)


def _place(row: Row) -> tuple[float, float]:
    return row["quality"], harmfulness(row)


def _is_plain(row: Row) -> bool:
    return (row["set"], row["rate"], row["steps"]) == ("mix", 1, 1)


def _name(row: Row) -> str:
    return str(row["guard"]).partition("=")[0]
