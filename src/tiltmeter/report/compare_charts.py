"""Charts of a comparison: matrices of similarity, the tree of its clustering, curves over blocks beside their nulls."""

import math
from collections.abc import Callable, Mapping, Sequence

from tiltmeter.report.charts import HOVER, Spec, base_layout, label, log_ticks
from tiltmeter.report.compare_curves import Band, Line
from tiltmeter.report.compare_pairs import FIGURES, ordered_updates, reference
from tiltmeter.report.wording import MINUS, figure, times
from tiltmeter.runs.compare_result import CompareResult, Figure, FigureRecord

SERIES = "abcdefgh"
SHORT = 16  # characters of a name beside an axis
PRINTED = 8  # updates up to which a matrix has room for its figures
HEAT = [[0, "var(--heat-low)"], [0.5, "var(--heat-middle)"], [1, "var(--heat-high)"]]
SIGNED = [[0, "var(--accent)"], [0.5, "var(--heat-low)"], [1, "var(--heat-high)"]]
BAR = {
    "orientation": "h",
    "thickness": 8,
    "outlinewidth": 0,
    "yref": "container",
    "y": 0,
    "yanchor": "bottom",
    "ypad": 4,
}
BANDS = {"same_spectrum": "var(--soft)", "shared_initialisation": "var(--warn-soft)"}


def matrix(result: CompareResult, which: Figure) -> Spec:
    """One figure of every pair of updates, in the order of their clustering: its value, and as ratio to its null.

    The ratio is on a logarithmic colour scale.
    """
    names = ordered_updates(result)
    found = {frozenset((pair.one, pair.two)): pair.figures[which] for pair in result.pairs if pair.figures}
    cells = [[found.get(frozenset((one, two))) for two in names] for one in names]
    digits = _decimals(cells)
    values = _heat(
        names, cells, lambda each: each.value, lambda each: f"{each.value:z.{digits}f}".replace("-", MINUS)
    ) | _value_scale(cells, which)
    ratios = _heat(names, cells, lambda each: _log(each.ratio), lambda each: times(each.ratio)) | _ratio_scale(cells)
    layout = base_layout(100 + max(150, 26 * len(names)), margin={"l": 130, "r": 10, "t": 8, "b": 70})
    layout["xaxis"] |= {"type": "category", "showgrid": False, "tickangle": 0}
    layout["yaxis"] |= {"type": "category", "showgrid": False, "autorange": "reversed"}
    return {"data": [values, {**ratios, "visible": False}], "layout": layout}


def numbered(names: Sequence[str]) -> list[str]:
    """Names beside an axis: a number that tells them apart, and as much of the name as there is room for."""
    return [f"{n}. {label(_short(name))}" for n, name in enumerate(names, start=1)]


def tree(result: CompareResult) -> Spec | None:
    """The merges of the clustering against their similarity, leaves in the order of the matrices."""
    if result.ordering is None:
        return None
    names = result.ordering.names
    updates = [name for name in result.updates if name in names]
    places = {k: (float(names.index(name)), 1.0) for k, name in enumerate(updates)}
    data: list[Spec] = []
    for number, (one, two, distance, _) in enumerate(result.ordering.merges, start=len(updates)):
        (y1, x1), (y2, x2), x = places[one], places[two], 1 - distance
        line = {"type": "scatter", "mode": "lines", "x": [x1, x, x, x2], "y": [y1, y1, y2, y2]}
        hover = {"text": [f"joined at {figure(x, 2)}"] * 4, **HOVER}
        data.append({**line, "line": {"color": "var(--accent)", "width": 1.5}, **hover})
        places[number] = (y1 + y2) / 2, x
    layout = base_layout(70 + max(60, 22 * len(names)), margin={"l": 130, "r": 16, "t": 8, "b": 44})
    layout["showlegend"] = False
    layout["xaxis"] |= {"title": {"text": f"mean {FIGURES[result.ordering.figure]}"}, "autorange": "reversed"}
    ticks = {"tickvals": list(range(len(names))), "ticktext": numbered(names)}
    layout["yaxis"] |= {"range": [len(names) - 0.5, -0.5], "showgrid": False, **ticks}
    return {"data": data, "layout": layout}


def curves(lines: Sequence[Line], bands: Mapping[str, Band], which: Figure) -> Spec:
    """One figure over the blocks, a line per pair or per two groups, before the ranges of the nulls."""
    data = [_band(bands[null], colour) for null, colour in reversed(BANDS.items()) if null in bands]
    for line, shade in zip(lines, SERIES, strict=False):
        hover = [
            f"{label(line.name)}<br>block {block}: {figure(value)}"
            for block, value in zip(line.blocks, line.values[which], strict=True)
        ]
        colour = f"var(--series-{shade})"
        look = {"line": {"color": colour, "width": 2}, "marker": {"color": colour, "size": 6}}
        trace = {"type": "scatter", "mode": "lines+markers", "x": list(line.blocks), "y": list(line.values[which])}
        data.append({**trace, **look, "text": hover, **HOVER})
    blocks = [block for line in lines for block in line.blocks]
    layout = base_layout(260, margin={"l": 52, "r": 10, "t": 8, "b": 44})
    layout["showlegend"] = False
    ends = [min(blocks) - 0.5, max(blocks) + 0.5]
    layout["xaxis"] |= {"title": {"text": "block"}, "range": ends, "showgrid": False, "tickformat": "d"}
    layout["xaxis"] |= {"dtick": max(1, (max(blocks) - min(blocks)) // 8)}
    return {"data": data, "layout": layout}


def _short(name: str) -> str:
    """Both ends of the last part of a path or a Hub id."""
    last = name.rstrip("/").rpartition("/")[2]
    return last if len(last) <= SHORT else f"{last[: SHORT - 7]}…{last[-6:]}"


def _heat(
    names: Sequence[str],
    cells: Sequence[Sequence[FigureRecord | None]],
    value: Callable[[FigureRecord], float | None],
    printed: Callable[[FigureRecord], str],
) -> Spec:
    rows = numbered(names)
    heads = [_hover(one, two) for one in names for two in names]
    flat = [each for row in cells for each in row]
    hover = ["" if each is None else f"{head}<br>{_told(each)}" for head, each in zip(heads, flat, strict=True)]
    width = len(names)
    return {
        "type": "heatmap",
        "x": [row.partition(".")[0] for row in rows],
        "y": rows,
        "z": [[None if each is None else value(each) for each in row] for row in cells],
        "text": [["" if each is None else printed(each) for each in row] for row in cells],
        "customdata": [hover[start : start + width] for start in range(0, len(hover), width)],
        "texttemplate": "%{text}" if width <= PRINTED else "",
        "hovertemplate": "%{customdata}<extra></extra>",
        "hoverongaps": False,
        "xgap": 2,
        "ygap": 2,
    }


def _hover(one: str, two: str) -> str:
    return f"{label(one)}<br>{label(two)}"


def _told(each: FigureRecord) -> str:
    null = reference(each)
    name = each.reference.replace("_", " ")
    return f"{figure(each.value)}, {times(each.ratio)} {figure(null.mean)} ({name})<br>p = {figure(null.p, 2)}"


def _value_scale(cells: Sequence[Sequence[FigureRecord | None]], which: Figure) -> Spec:
    most = _most(cells)
    if which == "cosine":
        return {"colorscale": SIGNED, "zmin": -most, "zmax": most, "colorbar": BAR}
    return {"colorscale": HEAT, "zmin": 0, "zmax": most, "colorbar": BAR}


def _decimals(cells: Sequence[Sequence[FigureRecord | None]]) -> int:
    """So that the largest figure has two digits."""
    return max(0, 1 - math.floor(math.log10(_most(cells))))


def _most(cells: Sequence[Sequence[FigureRecord | None]]) -> float:
    return max((abs(each.value) for row in cells for each in row if each is not None), default=1.0) or 1.0


def _ratio_scale(cells: Sequence[Sequence[FigureRecord | None]]) -> Spec:
    found = [each.ratio for row in cells for each in row if each is not None and each.ratio]
    ticks = log_ticks(found, least=2)
    values = [math.log10(value) for value in ticks.get("tickvals", [])]
    bar = {**BAR, "tickvals": values, "ticktext": ticks.get("ticktext", [])}
    return {"colorscale": HEAT, "zmin": min(0.0, *map(math.log10, found)) if found else 0.0, "colorbar": bar}


def _log(ratio: float | None) -> float | None:
    return math.log10(ratio) if ratio else None


def _band(band: Band, colour: str) -> Spec:
    """From the first block's left edge to the last one's right edge, so that one block has a band too."""
    blocks = [band.blocks[0] - 0.5, *band.blocks, band.blocks[-1] + 0.5]
    low, high = ([ends[0], *ends, ends[-1]] for ends in (band.low, band.high))
    outline = {"type": "scatter", "mode": "lines", "x": blocks + blocks[::-1], "y": high + low[::-1]}
    return {**outline, "fill": "toself", "fillcolor": colour, "line": {"width": 0}, "hoverinfo": "skip"}
