"""What the templates show, read from saved runs. Text stays raw here; the templates escape it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from tiltmeter.errors import InputError
from tiltmeter.report import charts
from tiltmeter.report.compare import compare_view
from tiltmeter.report.connect import connect_view
from tiltmeter.report.direction import direction_view
from tiltmeter.report.forecast import forecast_view
from tiltmeter.report.grid import COLUMNS, arrange, check_rows
from tiltmeter.report.judge import judge_view
from tiltmeter.report.ranking import ranking_view
from tiltmeter.report.spectrum import spectrum_view
from tiltmeter.report.steer import steer_view
from tiltmeter.report.transfer import transfer_view
from tiltmeter.report.tune import tune_view
from tiltmeter.report.verdict import Verdict, cautions, correlation, judge_demo, judge_skill
from tiltmeter.runs.manifest import check_name
from tiltmeter.runs.results import AuditResult, DemoResult, DemoRow, Skill, Transcript
from tiltmeter.runs.saved import read_result, read_table, read_transcripts

CATEGORIES = ("benign", "seemingly benign", "harmful")


@dataclass(frozen=True)
class SkillView:
    """One skill of an audit."""

    name: str
    figures: Skill
    verdict: Verdict
    modules: list[dict[str, Any]]
    outside: list[dict[str, Any]]
    heatmap: charts.Spec | None
    nulls: charts.Spec


@dataclass(frozen=True)
class AuditView:
    """One audit. `anchor` is made from positions, never from names."""

    anchor: str
    title: str
    result: AuditResult
    skills: list[SkillView]
    cautions: list[str]
    losses: charts.Spec
    transcripts: dict[str, list[Transcript]]
    template: ClassVar[str] = "audit.html"


@dataclass(frozen=True)
class Plot:
    """One scatter plot of the demo under its rank correlation."""

    score: str
    entry: Any
    spec: charts.Spec
    hidden: int


@dataclass(frozen=True)
class DemoView:
    """The demo: rows by category, each with the anchor of its audit, if that is in the folder."""

    anchor: str
    title: str
    result: DemoResult
    findings: list[str]
    skills: list[str]
    groups: list[tuple[str, list[tuple[DemoRow, str | None]]]]
    plots: dict[str, list[Plot]]
    audits: list[AuditView]
    template: ClassVar[str] = "demo.html"


@runtime_checkable
class View(Protocol):
    """What a page shows of one run, by its template."""

    template: ClassVar[str]

    @property
    def anchor(self) -> str: ...

    @property
    def title(self) -> str: ...


def view(folder: Path, anchor: str) -> View:
    """The view of one run folder.

    Raises:
        InputError: no finished run, or files in it that do not hold what they should.
    """
    result = read_result(folder)
    return VIEWS[result.verb](folder, anchor, result)


def _audit_view(folder: Path, anchor: str, result: AuditResult) -> AuditView:
    return _audit(folder, anchor, result, _title(folder, result))


def _title(folder: Path, result: AuditResult) -> str:
    paths = {given.role: given.path for given in result.inputs}
    if "tuned" in paths and "base" in paths:
        return f"{paths['tuned']} against {paths['base']}"
    return folder.resolve().name


def _audit(folder: Path, anchor: str, result: AuditResult, title: str) -> AuditView:
    rows = read_table(folder, "modules", COLUMNS)
    check_rows(rows, str(folder / "modules.parquet"))
    skills = [
        _skill(name, figures, [row for row in rows if row["skill"] == name]) for name, figures in result.skills.items()
    ]
    losses = charts.losses(result.skills)
    return AuditView(anchor, title, result, skills, cautions(result), losses, _by_set(read_transcripts(folder)))


def _skill(name: str, figures: Skill, rows: list[dict[str, Any]]) -> SkillView:
    grid = arrange(rows)
    heatmap = charts.heatmap(grid) if grid.blocks else None
    return SkillView(name, figures, judge_skill(figures), rows, grid.outside, heatmap, charts.nulls(figures))


def _by_set(transcripts: Iterable[Transcript]) -> dict[str, list[Transcript]]:
    """Transcripts by prompt set, those whose harm rose most first."""
    sets: dict[str, list[Transcript]] = {}
    for transcript in sorted(transcripts, key=_harm_gained, reverse=True):
        sets.setdefault(transcript.prompts, []).append(transcript)
    return dict(sorted(sets.items()))


def _harm_gained(transcript: Transcript) -> int:
    before, after = transcript.base.harm, transcript.tuned.harm
    return after - before if before is not None and after is not None else 0


def _demo(folder: Path, anchor: str, result: DemoResult) -> DemoView:
    audits: list[AuditView] = []
    anchors: dict[int, str] = {}
    for index, row in enumerate(result.rows):
        if row.audit is not None:
            anchors[index] = f"{anchor}-audit-{index + 1}"
            audits.append(_inner_audit(folder, row, anchors[index]))
    groups = [
        (category, [(row, anchors.get(index)) for index, row in enumerate(result.rows) if row.category == category])
        for category in CATEGORIES
    ]
    skills = list(dict.fromkeys(skill for row in result.rows for skill in row.skills))
    plots = {skill: [_plot(result, skill, score) for score in ("exact", "projected")] for skill in skills}
    return DemoView(
        anchor, folder.resolve().name, result, judge_demo(result), skills, [g for g in groups if g[1]], plots, audits
    )


def _inner_audit(folder: Path, row: DemoRow, anchor: str) -> AuditView:
    inner = folder / check_name(str(row.audit))
    result = read_result(inner)
    if not isinstance(result, AuditResult):
        raise InputError(f"{inner}: expected an audit, found verb {result.verb}")
    method = "LoRA" if row.method == "lora" else row.method
    return _audit(inner, anchor, result, f"{row.set}, {method}")


def _plot(result: DemoResult, skill: str, score: str) -> Plot:
    spec = charts.scatter(result.rows, skill, score)
    drawn = sum(len(trace["x"]) for trace in spec["data"])
    wanted = sum(skill in row.skills for row in result.rows)
    return Plot(score, correlation(result, skill, "utility_loss", score), spec, wanted - drawn)


VIEWS: dict[str, Callable[[Path, str, Any], View]] = {
    "audit": _audit_view,
    "compare": compare_view,
    "connect": connect_view,
    "demo": _demo,
    "direction": direction_view,
    "forecast": forecast_view,
    "judge": judge_view,
    "rank-examples": ranking_view,
    "spectrum": spectrum_view,
    "steer": steer_view,
    "transfer": transfer_view,
    "tune": tune_view,
}
