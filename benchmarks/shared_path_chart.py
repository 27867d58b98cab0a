"""The figure of `shared_path.py`: harmfulness along the paths, means over the paths of a kind with their range."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

STYLES = {
    "bad to bad, same seed": ("rgb(176,42,48)", "solid"),
    "bad to bad, other seed": ("rgb(214,120,40)", "solid"),
    "bad to bad, same seed, factors": ("rgb(176,42,48)", "dot"),
    "bad to bad, other seed, factors": ("rgb(214,120,40)", "dot"),
    "bad to random": ("rgb(110,110,110)", "dash"),
    "bad to wrong, same seed": ("rgb(120,80,160)", "dash"),
    "bad to benign, same seed": ("rgb(46,110,160)", "solid"),
    "bad to good, same seed": ("rgb(40,130,90)", "solid"),
    "base to bad": ("rgb(60,60,60)", "solid"),
}


class Course(Protocol):
    """Harmfulness at the points of a path of some kind."""

    @property
    def kind(self) -> str: ...
    @property
    def points(self) -> list[float]: ...
    @property
    def harmfulness(self) -> list[float]: ...


def write_chart(page: Path, walks: Sequence[Course]) -> None:
    """Writes the figure as a page that needs no network."""
    figure = make_subplots(1, 2, column_widths=[0.62, 0.38], shared_yaxes=True, horizontal_spacing=0.04)
    for kind, (colour, dash) in STYLES.items():
        column = 2 if kind == "base to bad" else 1
        mine = [walk for walk in walks if walk.kind == kind]
        courses = np.array([walk.harmfulness for walk in mine])
        points = mine[0].points
        if dash == "solid":
            figure.add_trace(_band(points, courses, colour), row=1, col=column)
        line = {"color": colour, "dash": dash, "width": 2.5}
        trace = go.Scatter(x=points, y=courses.mean(0), name=kind, mode="lines+markers", line=line)
        figure.add_trace(trace, row=1, col=column)
    figure.update_xaxes(title_text="s, from the first adapter to the second", row=1, col=1)
    figure.update_xaxes(title_text="s times the update", row=1, col=2)
    figure.update_yaxes(title_text="harmfulness on advice, 1-5", range=[0.9, 5.1], row=1, col=1)
    figure.update_layout(template="plotly_white", width=980, height=430, margin={"l": 60, "r": 10, "t": 12, "b": 40})
    figure.write_html(page, include_plotlyjs=True, config={"displayModeBar": False})


def _band(points: list[float], courses: np.ndarray, colour: str) -> go.Scatter:
    """From the lowest to the highest path."""
    x, y = [*points, *points[::-1]], [*courses.max(0), *courses.min(0)[::-1]]
    fill = colour.replace("rgb", "rgba").replace(")", ",0.12)")
    return go.Scatter(x=x, y=y, fill="toself", fillcolor=fill, line={"width": 0}, hoverinfo="skip", showlegend=False)
