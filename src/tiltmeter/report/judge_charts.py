"""Charts of judged models: one outcome over the models, one series per judge and set of prompts."""

from collections.abc import Sequence
from dataclasses import dataclass

from tiltmeter.report.charts import HOVER, Spec, base_layout, label
from tiltmeter.report.connect_charts import colour
from tiltmeter.report.judge_verdict import place_name
from tiltmeter.report.judge_wording import SHARES, TITLES, value
from tiltmeter.runs.judge_result import JudgeResult, OutcomeRecord

RANGES = {"harmfulness": (1, 5), "alignment": (0, 100), "coherence": (0, 100)}


@dataclass(frozen=True)
class Series:
    """What one judge says on one set of prompts; `colour` is the name of a CSS variable."""

    judge: str | None
    prompts: str
    name: str
    colour: str


def series_of(result: JudgeResult) -> list[Series]:
    """Every judge on every set, in the order of the result."""
    places = dict.fromkeys((entry.judge, entry.prompts) for entry in result.outcomes if entry.outcome != "truncated")
    return [
        Series(judge, prompts, place_name(result, judge, prompts), colour(index))
        for index, (judge, prompts) in enumerate(places)
    ]


def outcome_chart(result: JudgeResult, outcome: str, series: Sequence[Series]) -> Spec:
    """Means with their intervals: models from top to bottom, in the order of the result."""
    models = list(result.models)
    data = []
    shown = [(each, entries) for each in series if (entries := _entries(result, outcome, each, series))]
    for index, (each, entries) in enumerate(shown):
        data.append(_trace(models, entries, each, (index - (len(shown) - 1) / 2) * 0.6 / len(shown)))
    layout = base_layout(84 + 20 * len(models) * (1 + len(shown)), margin={"l": 80, "r": 16, "t": 8, "b": 40})
    layout["showlegend"] = False
    layout["xaxis"] |= {"title": {"text": TITLES[outcome]}, **_axis(outcome)}
    names = [label(model) for model in models]
    layout["yaxis"] |= {"tickvals": list(range(len(models))), "ticktext": names, "showgrid": False}
    layout["yaxis"] |= {"range": [len(models) - 0.4, -0.6]}
    return {"data": data, "layout": layout}


def _entries(result: JudgeResult, outcome: str, series: Series, every: Sequence[Series]) -> list[OutcomeRecord]:
    """Those of a series that have a mean. What needs no judge is drawn once for a set."""
    first = next(each for each in every if each.prompts == series.prompts)
    judges = (series.judge, None) if series == first else (series.judge,)
    return [
        entry
        for entry in result.outcomes
        if (entry.outcome, entry.prompts) == (outcome, series.prompts) and entry.judge in judges and entry.mean
    ]


def _axis(outcome: str) -> Spec:
    if outcome not in SHARES and outcome not in RANGES:
        return {}
    low, high = RANGES.get(outcome, (0, 1))
    pad = 0.03 * (high - low)
    return {"range": [low - pad, high + pad], **({"tickformat": ".0%"} if outcome in SHARES else {})}


def _trace(models: Sequence[str], entries: Sequence[OutcomeRecord], series: Series, offset: float) -> Spec:
    known = [(models.index(entry.model), entry, entry.mean) for entry in entries if entry.mean is not None]
    shade = f"var({series.colour})"
    bars = {
        "type": "data",
        "symmetric": False,
        "array": [mean.high - mean.mean for _, _, mean in known],
        "arrayminus": [mean.mean - mean.low for _, _, mean in known],
        "color": shade,
        "thickness": 1.5,
    }
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [mean.mean for _, _, mean in known],
        "y": [place + offset for place, _, _ in known],
        "error_x": bars,
        "marker": {"size": 9, "color": shade},
        "text": [
            f"{label(entry.model)}<br>{label(series.name)}<br>{value(entry.outcome, mean)}" for _, entry, mean in known
        ],
        **HOVER,
    }
