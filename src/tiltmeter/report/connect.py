"""A path through weight space as its page shows it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from tiltmeter.report.charts import Spec
from tiltmeter.report.connect_charts import Line, along, colour, over_blocks
from tiltmeter.report.connect_verdict import (
    barrier_sentence,
    barriers,
    behaviour,
    cautions,
    harmful_points,
    is_beyond_chance,
    stays,
)
from tiltmeter.report.verdict import Verdict
from tiltmeter.report.wording import figure, span
from tiltmeter.runs.connect_result import Barrier, ConnectResult, Features, PointTranscript
from tiltmeter.runs.results import Interval
from tiltmeter.runs.saved import read_lines


@dataclass(frozen=True)
class Panel:
    """A chart of lines beside the table of its figures: title of each column -> cells; none if it stands elsewhere."""

    title: str
    note: str
    lines: list[Line]
    chart: Spec
    columns: dict[str, list[str]]


@dataclass(frozen=True)
class ConnectView:
    """One path."""

    anchor: str
    title: str
    result: ConnectResult
    findings: list[Verdict]
    cautions: list[str]
    barriers: dict[str, Barrier]
    panels: list[Panel]
    features: dict[str, Features]
    feature_panels: list[Panel]
    transcripts: dict[str, dict[str, list[PointTranscript]]]
    template: ClassVar[str] = "connect.html"


def connect_view(folder: Path, anchor: str, result: ConnectResult) -> ConnectView:
    """The view of a path's folder."""
    return ConnectView(
        anchor,
        _title(folder, result),
        result,
        list(_findings(result)),
        cautions(result),
        barriers(result),
        list(_panels(result)),
        features(result),
        list(_feature_panels(result)),
        _by_prompt(read_lines(folder, "transcripts", PointTranscript)),
    )


def _title(folder: Path, result: ConnectResult) -> str:
    bases, tuned = ([given.path for given in result.inputs if given.role == role] for role in ("base", "tuned"))
    ends = [*bases, *tuned] if result.path == "base-to-tuned" else tuned
    return f"From {ends[0]} to {ends[1]}" if len(ends) == 2 else folder.resolve().name


def _findings(result: ConnectResult) -> Iterator[Verdict]:
    if result.skills or result.data:
        found = any(map(is_beyond_chance, barriers(result).values()))
        yield Verdict("mixed" if found else "none", "barrier" if found else "no barrier", barrier_sentence(result))
    for name, sentence in behaviour(result).items():
        yield Verdict(_kind(result, name), f"harmfulness: {name}", sentence[:1].upper() + sentence[1:])


def _kind(result: ConnectResult, name: str) -> Literal["tilted", "mixed", "none"]:
    entry = (result.behaviour or {})[name]
    if stays(result, entry):
        return "tilted"
    return "mixed" if harmful_points(result, entry) else "none"


def _panels(result: ConnectResult) -> Iterator[Panel]:
    """Loss, utility loss, KL and harmfulness along the path."""
    data, skills, judged = result.data.items(), result.skills.items(), (result.behaviour or {}).items()
    unit = "per example" if result.reduction == "sum" else "per token"
    if data:
        lines = _lines((name, _intervals(each.loss, each.low, each.high)) for name, each in data)
        more = {f"perplexity of {name}": list(map(figure, each.perplexity)) for name, each in data}
        starts = ", ".join(f"{figure(each.base_loss)} on {name}" for name, each in data)
        note = f"Mean over completion tokens. The base's loss: {starts}."
        yield _panel(result, "Loss on the data", "nats per token", note, lines, more)
    if skills:
        lines = _lines((name, _intervals(each.utility_loss, each.low, each.high)) for name, each in skills)
        note = "Log-likelihood of the base less that of the model at s, positive where the model does worse."
        yield _panel(result, "Utility loss", f"nats {unit}", note, lines, {})
        lines = _lines((name, _intervals(each.kl, each.kl_low, each.kl_high)) for name, each in skills)
        note = "From the base to the model at s, full distributions at the positions that predict completion tokens."
        yield _panel(result, "KL divergence from the base", "nats per token", note, lines, {})
    if judged:
        lines = _lines((name, [point.harmfulness for point in each.points]) for name, each in judged)
        starts = ", ".join(f"{span(each.base.harmfulness)} on {name}" for name, each in judged)
        note = f"Mean of the judge's scores, 1 to 5. The base's: {starts}."
        yield Panel("Harmfulness", note, lines, along(result.points, lines, "harmfulness"), {})


def _panel(
    result: ConnectResult, title: str, axis: str, note: str, lines: list[Line], more: dict[str, list[str]]
) -> Panel:
    columns = {line.name: list(map(span, line.values)) for line in lines}
    return Panel(title, note, lines, along(result.points, lines, axis), {**columns, **more})


def _feature_panels(result: ConnectResult) -> Iterator[Panel]:
    """Both figures over the blocks at mid-path, each with its control."""
    found = features(result)
    if not found:
        return
    first = next(iter(found.values()))
    names = [each.block for each in first.blocks]
    for title, axis, figure_of, control_of in (
        ("Distance from a straight line", "relative distance", "nl2", "over_gap"),
        ("Share explained by a straight line", "R²", "r2", "r2_nearer_end"),
    ):
        lines = []
        for index, (name, each) in enumerate(found.items()):
            own, control = ([getattr(block, which) for block in each.blocks] for which in (figure_of, control_of))
            lines += [Line(name, own, colour(index)), Line(f"{name}, control", control, colour(index), True)]
        yield Panel(title, "", lines, over_blocks(names, lines, f"{axis} at s = {first.at:g}"), {})


def features(result: ConnectResult) -> dict[str, Features]:
    """Features at mid-path by kind and name of the set."""
    data = {f"data {name}": entry.features for name, entry in result.data.items()}
    return data | {f"skill {name}": entry.features for name, entry in result.skills.items()}


def _lines(named: Iterator[tuple[str, list[Interval | None]]]) -> list[Line]:
    return [Line(name, values, colour(index)) for index, (name, values) in enumerate(named)]


def _intervals(means: Sequence[float], lows: Sequence[float], highs: Sequence[float]) -> list[Interval | None]:
    ends = zip(means, lows, highs, strict=True)
    return [Interval(mean=mean, low=low, high=high) for mean, low, high in ends]


def _by_prompt(transcripts: Sequence[PointTranscript]) -> dict[str, dict[str, list[PointTranscript]]]:
    """Set -> prompt -> its answers in the order of the points."""
    sets: dict[str, dict[str, list[PointTranscript]]] = {}
    for transcript in transcripts:
        sets.setdefault(transcript.prompts, {}).setdefault(transcript.prompt, []).append(transcript)
    return sets
