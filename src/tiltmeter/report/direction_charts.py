"""Charts of a direction: figures over the blocks, one curve per fine-tune."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tiltmeter.report.charts import HOVER, Spec, base_layout, label, log_ticks
from tiltmeter.report.connect_charts import colour
from tiltmeter.report.wording import figure, span
from tiltmeter.runs.direction_result import DirectionResult, Halves, MeansSeparated
from tiltmeter.runs.results import Interval

TUNED = "tuned"
IN_SAMPLE = f"{TUNED}, in sample: proves nothing"
HALVES = "halves of the prompts"
CHANCE = 0.5
_SPREAD = 0.2  # blocks, from the first to the last curve at a block


@dataclass(frozen=True)
class Series:
    """One fine-tune; `colour` is the name of a CSS variable, `blocks` its figures at each block."""

    name: str
    colour: str
    blocks: Sequence[MeansSeparated]


@dataclass(frozen=True)
class Curve:
    """One figure over the blocks, as text too, with its intervals if it has any."""

    name: str
    colour: str
    values: Sequence[float]
    said: Sequence[str]
    intervals: Sequence[Interval] = ()


def series_of(result: DirectionResult) -> list[Series]:
    """The tuned model, then those beside it, in the order of the result."""
    others = [
        Series(name, colour(index), [block.beside[name].separated for block in result.blocks])
        for index, name in enumerate(result.beside, start=1)
    ]
    return [Series(TUNED, colour(0), [block.tuned for block in result.blocks]), *others]


def accuracy_chart(result: DirectionResult, series: Sequence[Series]) -> Spec:
    """Balanced accuracy on held-out prompts of every fine-tune; of the tuned model in sample too, hollow."""
    spec = _above_chance(result, _with_intervals(series, lambda found: found.held_out), "accuracy, held out")
    spec["data"].append(_in_sample(result, series[0], spec["data"][0]["x"]))
    return spec


def auroc_chart(result: DirectionResult, series: Sequence[Series]) -> Spec:
    """AUROC on held-out prompts of every fine-tune."""
    return _above_chance(result, _with_intervals(series, lambda found: found.auroc), "AUROC, held out")


def norm_chart(result: DirectionResult, series: Sequence[Series]) -> Spec:
    """Length of each fine-tune's shift, on a logarithmic axis."""
    norms = [[found.norm for found in each.blocks] for each in series]
    curves = [
        Curve(each.name, each.colour, values, list(map(figure, values)))
        for each, values in zip(series, norms, strict=True)
    ]
    spec = _chart(result, curves, "length of the shift")
    every = [norm for values in norms for norm in values]
    edges = [math.log10(min(every)) - 0.1, math.log10(max(every)) + 0.1]
    spec["layout"]["yaxis"] |= {"type": "log", "range": edges, **log_ticks(every)}
    return spec


def cosine_chart(result: DirectionResult, series: Sequence[Series]) -> Spec:
    """Cosines of the direction: between its halves, lowest to highest of the draws, and with those beside it."""
    tuned, *others = series
    halves = [_interval(block.halves) for block in result.blocks]
    curves = [Curve(HALVES, tuned.colour, [each.mean for each in halves], [span(each, 2) for each in halves], halves)]
    for each in others:
        values = [block.beside[each.name].cosine for block in result.blocks]
        curves.append(Curve(each.name, each.colour, values, [figure(value, 2) for value in values]))
    spec = _chart(result, curves, "cosine")
    lowest = min(0.0, *(value for curve in curves for value in curve.values), *(each.low for each in halves))
    spec["layout"]["yaxis"] |= {"range": [lowest - 0.05, 1.05]}
    return spec


def block_numbers(names: Sequence[str]) -> list[int]:
    """Numbers of blocks by the ends of their names, or their places where names do not end so.

    >>> block_numbers(["model.layers.3", "model.layers.11"]), block_numbers(["first", "second"])
    ([3, 11], [0, 1])
    """
    ends = [name.rpartition(".")[2] for name in names]
    return [int(end) for end in ends] if all(end.isdecimal() for end in ends) else list(range(len(names)))


def _with_intervals(series: Sequence[Series], of: Callable[[MeansSeparated], Interval]) -> Iterator[Curve]:
    for each in series:
        intervals = [of(found) for found in each.blocks]
        said = [span(interval, 2) for interval in intervals]
        yield Curve(each.name, each.colour, [interval.mean for interval in intervals], said, intervals)


def _above_chance(result: DirectionResult, curves: Iterator[Curve], title: str) -> Spec:
    """With a line at chance."""
    shown = list(curves)
    spec = _chart(result, shown, title)
    lowest = min(CHANCE, *(interval.low for curve in shown for interval in curve.intervals))
    stroke = {"color": "var(--muted)", "width": 1, "dash": "dash"}
    spec["layout"]["yaxis"] |= {"range": [lowest - 0.04, 1.04]}
    spec["layout"]["shapes"] = [
        {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": CHANCE, "y1": CHANCE, "line": stroke}
    ]
    return spec


def _chart(result: DirectionResult, curves: Sequence[Curve], title: str) -> Spec:
    numbers = block_numbers([block.block for block in result.blocks])
    first, last = min(numbers), max(numbers)
    layout = base_layout(280, margin={"l": 56, "r": 10, "t": 8, "b": 44})
    layout["showlegend"] = False
    layout["xaxis"] |= {"title": {"text": "block"}, "range": [first - 0.6, last + 0.6], "showgrid": False}
    layout["xaxis"] |= {"tick0": first, "dtick": max(1, (last - first) // 8)}
    layout["yaxis"] |= {"title": {"text": title}}
    step = _SPREAD / max(1, len(curves) - 1)
    asides = [(index - (len(curves) - 1) / 2) * step for index in range(len(curves))]
    data = [_line(result, numbers, aside, curve) for aside, curve in zip(asides, curves, strict=True)]
    return {"data": data, "layout": layout}


def _line(result: DirectionResult, numbers: Sequence[int], aside: float, curve: Curve) -> Spec:
    """A little aside of the blocks, so that intervals do not cover each other."""
    shade = f"var({curve.colour})"
    bars = {
        "type": "data",
        "symmetric": False,
        "array": [each.high - each.mean for each in curve.intervals],
        "arrayminus": [each.mean - each.low for each in curve.intervals],
        "color": shade,
        "thickness": 1,
        "width": 0,
    }
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [number + aside for number in numbers],
        "y": list(curve.values),
        "error_y": bars,
        "line": {"color": shade, "width": 1.5},
        "marker": {"size": 5, "color": shade},
        "text": _hover(result, curve.name, curve.said),
        **HOVER,
    }


def _in_sample(result: DirectionResult, tuned: Series, x: Sequence[float]) -> Spec:
    values = [found.in_sample for found in tuned.blocks]
    return {
        "type": "scatter",
        "mode": "markers",
        "x": list(x),
        "y": values,
        "marker": {"size": 9, "color": f"var({tuned.colour})", "symbol": "circle-open", "line": {"width": 1.5}},
        "text": _hover(result, IN_SAMPLE, [figure(value, 2) for value in values]),
        **HOVER,
    }


def _hover(result: DirectionResult, name: str, said: Sequence[str]) -> list[str]:
    return [f"{label(name)}<br>{label(block.block)}<br>{text}" for block, text in zip(result.blocks, said, strict=True)]


def _interval(halves: Halves) -> Interval:
    return Interval(mean=halves.mean, low=halves.lowest, high=halves.highest)
