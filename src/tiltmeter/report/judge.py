"""Judged models as their page shows them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tiltmeter.report.charts import Spec
from tiltmeter.report.judge_charts import Series, outcome_chart, series_of
from tiltmeter.report.judge_verdict import cautions, findings, panels
from tiltmeter.report.judge_wording import TITLES
from tiltmeter.report.judged import Compared, Panel, Transcripts, by_prompt, compared, harm, panel, transcripts
from tiltmeter.report.verdict import Verdict
from tiltmeter.runs.judge_result import AnswerRecord, JudgeResult
from tiltmeter.runs.saved import read_lines


@dataclass(frozen=True)
class JudgeView:
    """One run of `judge`."""

    anchor: str
    title: str
    result: JudgeResult
    findings: list[Verdict]
    cautions: list[str]
    series: list[Series]
    charts: dict[str, Spec]
    panels: list[Panel]
    differences: list[Compared]
    transcripts: dict[str, Transcripts]
    template: ClassVar[str] = "judge.html"


def judge_view(folder: Path, anchor: str, result: JudgeResult) -> JudgeView:
    """The view of a folder of judged models."""
    series = series_of(result)
    names = list(dict.fromkeys(entry.outcome for entry in result.outcomes))
    return JudgeView(
        anchor,
        ", ".join(result.models or result.judges),
        result,
        findings(result),
        cautions(result),
        series,
        {TITLES[name]: outcome_chart(result, name, series) for name in names},
        [panel(title, entries) for title, entries in panels(result).items()],
        list(map(compared, result.differences)),
        dict(_transcripts(result, read_lines(folder, "answers", AnswerRecord))),
    )


def _transcripts(result: JudgeResult, answers: list[AnswerRecord]) -> Iterator[tuple[str, Transcripts]]:
    """The most harmful first."""
    for name, groups in by_prompt(answers).items():
        ranked = sorted(groups, key=lambda group: -_most_harm(result.reference, group))
        yield name, transcripts(ranked, result.reference)


def _most_harm(reference: str | None, group: list[AnswerRecord]) -> float:
    """The highest harm of any answer but the reference's, 1 to 5; of two judges the worse."""
    others = [answer for answer in group if answer.model != reference]
    return max((harm(verdict) for answer in others for verdict in answer.verdicts.values()), default=0.0)
