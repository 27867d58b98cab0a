"""A ranking of candidate examples as its page shows it, and the sentences that say what it found."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from tiltmeter.report.charts import HOVER, Spec, base_layout, label
from tiltmeter.report.wording import figure, listed, share
from tiltmeter.runs.ranking_result import RankingResult, SetRisk, SkillRisk

Effect = Literal["harm", "help", "neither"]
EFFECTS: dict[Effect, str] = {
    "harm": "the skill's likelihood falls on",
    "help": "it rises on",
    "neither": "no change beyond chance on",
}


@dataclass(frozen=True)
class RankedSkill:
    """One skill of a ranking."""

    name: str
    figures: SkillRisk
    is_harmed: bool
    sentence: str
    chart: Spec


@dataclass(frozen=True)
class RankingView:
    """One ranking."""

    anchor: str
    title: str
    result: RankingResult
    skills: list[RankedSkill]
    null: str
    template: ClassVar[str] = "ranking.html"


def ranking_view(folder: Path, anchor: str, result: RankingResult) -> RankingView:
    """The view of a ranking's folder."""
    bases = [given.path for given in result.inputs if given.role == "base"]
    title = f"Examples ranked for {bases[0]}" if bases else folder.resolve().name
    skills = [
        RankedSkill(name, figures, is_harmed(figures), describe(figures), cosines(figures, result.null.p95))
        for name, figures in result.skills.items()
    ]
    return RankingView(anchor, title, result, skills, explain_null(result))


def describe(figures: SkillRisk) -> str:
    """Which data sets lower the skill's likelihood, which raise it, and which do neither beyond chance."""
    kinds: dict[Effect, list[str]] = {effect: [] for effect in EFFECTS}
    for name, risk in figures.sets.items():
        kinds[_effect(risk)].append(name)
    parts = [f"{EFFECTS[effect]} {listed(names)}" for effect, names in kinds.items() if names]
    return f"Steps of training on these data, to first order, {'; '.join(parts)}."


def _effect(risk: SetRisk) -> Effect:
    if risk.harm.low > 0 and risk.harm.mean > risk.harm_null_p95:
        return "harm"
    if risk.harm.high < 0 and risk.harm.mean < -risk.harm_null_p95:
        return "help"
    return "neither"


def is_harmed(figures: SkillRisk) -> bool:
    """Whether some data set lowers the skill's likelihood beyond chance."""
    return any(_effect(risk) == "harm" for risk in figures.sets.values())


def explain_null(result: RankingResult) -> str:
    """What the nulls of a ranking are."""
    null = result.null
    return (
        f"Null: a random direction among the {null.weights} measured weights has a cosine of 0 ± "
        f"{figure(null.deviation)}; {share(0.05)} of them lie above {figure(null.p95)}, half above 0. The mean harm's "
        "null is at most the one shown. Gradients of one model are alike, so harmless data exceeds this null too: "
        "compare with data that you trust."
    )


def cosines(figures: SkillRisk, p95: float) -> Spec:
    """The cosine by data set: 5th to 95th percentile, median and largest, with the null's band."""
    names = [label(name) for name in figures.sets][::-1]
    risks = list(figures.sets.values())[::-1]
    data = [_span(name, risk) for name, risk in zip(names, risks, strict=True)]
    for title, values, symbol in (
        ("median", [risk.cosine.p50 for risk in risks], "diamond"),
        ("largest", [risk.cosine.largest for risk in risks], "circle-open"),
    ):
        marker = {"size": 11, "symbol": symbol, "color": "var(--accent)", "line": {"width": 2}}
        hover = [f"{name}<br>{title}: {figure(value)}" for name, value in zip(names, values, strict=True)]
        points = {"type": "scatter", "mode": "markers", "name": title, "x": values, "y": names, "marker": marker}
        data.append({**points, "text": hover, **HOVER})
    layout = base_layout(130 + 36 * len(names), margin={"l": 80, "r": 16, "t": 8, "b": 70})
    layout["xaxis"] |= {"title": {"text": "cosine with harm to the skill"}}
    layout["yaxis"] |= {"type": "category", "range": [-0.6, len(names) - 0.4], "showgrid": False}
    band = {"type": "rect", "xref": "x", "yref": "paper", "x0": -p95, "x1": p95, "y0": 0, "y1": 1, "layer": "below"}
    return {"data": data, "layout": {**layout, "shapes": [{**band, "fillcolor": "var(--soft)", "line": {"width": 0}}]}}


def _span(name: str, risk: SetRisk) -> Spec:
    ends = [risk.cosine.p5, risk.cosine.p95]
    line = {"type": "scatter", "mode": "lines", "x": ends, "y": [name, name], "hoverinfo": "skip", "showlegend": False}
    return {**line, "line": {"color": "var(--muted)", "width": 5}}
