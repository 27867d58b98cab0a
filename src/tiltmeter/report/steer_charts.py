"""Dose and response of steering: the direction's effect, and those of its controls."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tiltmeter.report.charts import HOVER, Spec, base_layout, label
from tiltmeter.report.connect_charts import colour
from tiltmeter.report.controls import effect_of, plain
from tiltmeter.report.judge_wording import SHARES, TITLES, value
from tiltmeter.runs.steer_result import ArmRecord, ControlRecord, SteerResult

DIRECTION = "the direction"
SYMBOLS = ("circle-open", "square-open", "triangle-up-open", "diamond-open", "star-open")
SIGNS = ("○", "□", "△", "◇", "☆")
_SPREAD = 0.65  # of the room from a dose to the next


@dataclass(frozen=True)
class Series:
    """The direction, or a control; `colour` is the name of a CSS variable, `place` among the series.

    Attributes:
        symbol, sign: of a given vector, in the chart and in its legend; none of those that are drawn as lines.
    """

    name: str
    colour: str
    place: int
    symbol: str = ""
    sign: str = ""


def series_of(result: SteerResult) -> list[Series]:
    """The direction, the random kinds, and the given vectors, in the order of the result."""
    controls = {control.kind: control for arm in result.arms for control in arm.controls}
    made, given = [Series(DIRECTION, colour(0), 0)], 0
    for place, control in enumerate(controls.values(), start=1):
        if _is_drawn(control):
            made.append(Series(control.kind, colour(place), place))
        else:
            made.append(Series(control.kind, colour(place), place, _of(SYMBOLS, given), _of(SIGNS, given)))
            given += 1
    return made


def groups_of(result: SteerResult) -> dict[str, list[ArmRecord]]:
    """The arms of each group of blocks, by its label, from the smallest dose to the largest."""
    found: dict[str, list[ArmRecord]] = {}
    for arm in result.arms:
        found.setdefault(blocks_of(arm), []).append(arm)
    return {name: sorted(arms, key=lambda arm: arm.dose) for name, arms in found.items()}


def blocks_of(arm: ArmRecord) -> str:
    """What the arm edits.

    >>> blocks_of(ArmRecord.model_construct(blocks=[3])), blocks_of(ArmRecord.model_construct(blocks=[3, 4]))
    ('block 3', 'blocks 3+4')
    """
    return f"block{'s' if len(arm.blocks) > 1 else ''} {'+'.join(map(str, arm.blocks))}"


def dose_chart(result: SteerResult, arms: Sequence[ArmRecord], series: Sequence[Series]) -> Spec:
    """Effect against dose, of one group of blocks.

    Random kinds reach from their mean to their 95th percentile; given vectors are markers. Controls stand to the right
    of their dose.
    """
    doses = [arm.dose for arm in arms]
    x = {(arm.dose, each.place): _aside(doses, arm.dose, each.place, len(series)) for arm in arms for each in series}
    layout = base_layout(320, margin={"l": 60, "r": 10, "t": 8, "b": 44})
    layout["showlegend"] = False
    room = _room(doses)
    edges = [math.log10(min(doses)) - 0.3 * room, math.log10(max(doses)) + (_SPREAD + 0.2) * room]
    ticks = {"tickvals": doses, "ticktext": [f"{dose:g}" for dose in doses], "tickangle": 0}
    layout["xaxis"] |= {"type": "log", "title": {"text": "dose"}, "range": edges, "showgrid": False, **ticks}
    form = {"tickformat": ".0%"} if result.outcome in SHARES else {}
    layout["yaxis"] |= {"title": {"text": f"effect on: {TITLES[result.outcome]}"}, "range": _reach(result), **form}
    stroke = {"color": "var(--muted)", "width": 1, "dash": "dash"}
    layout["shapes"] = [{"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 0, "y1": 0, "line": stroke}]
    data = [trace for each in series for trace in _traces(result, arms, each, x)]
    return {"data": data, "layout": layout}


def _traces(
    result: SteerResult, arms: Sequence[ArmRecord], series: Series, x: Mapping[tuple[float, int], float]
) -> Iterator[Spec]:
    if series.place == 0:
        yield _direction(result, [arm for arm in arms if arm.effect is not None], series, x)
        return
    pairs = [(arm, control) for arm in arms for control in arm.controls if control.kind == series.name]
    if series.symbol:
        yield _given(result, pairs, series, x)
    else:
        yield from (_band(x[arm.dose, series.place], control, series) for arm, control in pairs)
        yield _percentiles(result, pairs, series, x)


def _direction(
    result: SteerResult, arms: Sequence[ArmRecord], series: Series, x: Mapping[tuple[float, int], float]
) -> Spec:
    effects = [arm.effect for arm in arms if arm.effect is not None]
    shade = f"var({series.colour})"
    bars = {
        "type": "data",
        "symmetric": False,
        "array": [effect.high - effect.mean for effect in effects],
        "arrayminus": [effect.mean - effect.low for effect in effects],
        "color": shade,
        "thickness": 1.5,
    }
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [x[arm.dose, series.place] for arm in arms],
        "y": [effect.mean for effect in effects],
        "error_y": bars,
        "line": {"color": shade, "width": 2},
        "marker": {"size": 8, "color": shade},
        "text": [
            f"{DIRECTION}, dose {arm.dose:g}<br>{value(result.outcome, effect)}"
            for arm, effect in zip(arms, effects, strict=True)
        ],
        **HOVER,
    }


def _band(x: float, control: ControlRecord, series: Series) -> Spec:
    line = {"color": f"var({series.colour}-soft)", "width": 7}
    ends = {"x": [x, x], "y": [control.mean, control.p95]}
    return {"type": "scatter", "mode": "lines", **ends, "line": line, "hoverinfo": "skip"}


def _percentiles(
    result: SteerResult,
    pairs: Sequence[tuple[ArmRecord, ControlRecord]],
    series: Series,
    x: Mapping[tuple[float, int], float],
) -> Spec:
    """Marks at mean (short) and 95th percentile (long)."""
    marks = [(arm, control, y) for arm, control in pairs for y in (control.mean, control.p95)]
    shade = f"var({series.colour})"
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [x[arm.dose, series.place] for arm, *_ in marks],
        "y": [y for *_, y in marks],
        "marker": {"size": [4, 9] * len(pairs), "symbol": "line-ew-open", "color": shade, "line": {"width": 2}},
        "text": [_drawn_hover(result, arm, control) for arm, control, _ in marks],
        **HOVER,
    }


def _given(
    result: SteerResult,
    pairs: Sequence[tuple[ArmRecord, ControlRecord]],
    series: Series,
    x: Mapping[tuple[float, int], float],
) -> Spec:
    shade = f"var({series.colour})"
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [x[arm.dose, series.place] for arm, _ in pairs],
        "y": [effect_of(arm.effect, control) for arm, control in pairs],
        "marker": {"size": 9, "color": shade, "symbol": series.symbol, "line": {"width": 1.5}},
        "text": [
            f"{label(series.name)}, dose {arm.dose:g}<br>{plain(result.outcome, effect_of(arm.effect, control))}"
            for arm, control in pairs
        ],
        **HOVER,
    }


def _drawn_hover(result: SteerResult, arm: ArmRecord, control: ControlRecord) -> str:
    mean, p95 = plain(result.outcome, control.mean), plain(result.outcome, control.p95)
    head = f"{label(control.kind)}, dose {arm.dose:g}, {control.draws} draws"
    return f"{head}<br>mean {mean}<br>95th percentile {p95}"


def _is_drawn(control: ControlRecord) -> bool:
    return control.mean is not None


def _of(marks: Sequence[str], number: int) -> str:
    return marks[number % len(marks)]


def _room(doses: Sequence[float]) -> float:
    """The least distance of two doses on the axis, in powers of ten."""
    places = sorted({math.log10(dose) for dose in doses})
    return min((after - before for before, after in pairwise(places)), default=0.5)


def _reach(result: SteerResult) -> list[float]:
    """From the lowest to the highest figure of all groups, so that their charts can be compared."""
    effects = [arm.effect for arm in result.arms if arm.effect is not None]
    pairs = [(arm, control) for arm in result.arms for control in arm.controls]
    shown = [end for effect in effects for end in (effect.low, effect.high)]
    shown += [y for arm, control in pairs for y in (effect_of(arm.effect, control), control.p95) if y is not None]
    low, high = min([0.0, *shown]), max([0.0, *shown])
    pad = 0.05 * (high - low or 1.0)
    return [low - pad, high + pad]


def _aside(doses: Sequence[float], dose: float, place: int, count: int) -> float:
    step = _SPREAD * _room(doses) / max(1, count - 1)
    return float(10 ** (math.log10(dose) + place * step))
