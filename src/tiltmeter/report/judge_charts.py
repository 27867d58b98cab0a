"""Charts of judged models: one outcome over the models, one series per judge and set of prompts."""

from collections.abc import Sequence
from dataclasses import dataclass

from tiltmeter.report.charts import HOVER, Spec, base_layout, label
from tiltmeter.report.connect_charts import colour
from tiltmeter.report.judge_wording import SCORES, TITLES, value
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
    places = dict.fromkeys((entry.judge, entry.prompts) for entry in result.outcomes if entry.judge)
    several = len(result.judges) > 1
    return [
        Series(judge, prompts, f"{prompts}, by {judge}" if several else prompts, colour(index))
        for index, (judge, prompts) in enumerate(places)
    ]


def outcome_chart(result: JudgeResult, outcome: str, series: Sequence[Series]) -> Spec:
    """Means with their intervals: models from top to bottom, in the order of the result."""
    models = list(result.models)
    data = []
    for index, each in enumerate(series):
        entries = [
            entry
            for entry in result.outcomes
            if entry.outcome == outcome and entry.prompts == each.prompts and entry.judge in (each.judge, None)
        ]
        if any(entry.mean for entry in entries):
            data.append(_trace(models, entries, each, (index - (len(series) - 1) / 2) * 0.6 / len(series)))
    layout = base_layout(96 + 26 * len(models) * max(1, len(series)), margin={"l": 80, "r": 16, "t": 8, "b": 40})
    layout["showlegend"] = False
    low, high = RANGES.get(outcome, (0, 1))
    pad = 0.03 * (high - low)
    layout["xaxis"] |= {"title": {"text": TITLES[outcome]}, "range": [low - pad, high + pad]}
    if outcome not in SCORES:
        layout["xaxis"] |= {"tickformat": ".0%"}
    names = [label(model) for model in models]
    layout["yaxis"] |= {"tickvals": list(range(len(models))), "ticktext": names, "showgrid": False}
    layout["yaxis"] |= {"range": [len(models) - 0.4, -0.6]}
    return {"data": data, "layout": layout}


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
