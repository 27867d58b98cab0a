"""A steered model as its page shows it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tiltmeter.report.charts import Spec
from tiltmeter.report.controls import Control, control_row
from tiltmeter.report.judge_wording import TITLES, probability, value
from tiltmeter.report.judged import Compared, Panel, Transcripts, by_prompt, compared, harm, panel, transcripts
from tiltmeter.report.steer_charts import Series, blocks_of, dose_chart, groups_of, series_of
from tiltmeter.report.steer_verdict import KINDS, WORDS, cautions, coherence_lost, findings, leading
from tiltmeter.report.verdict import Verdict
from tiltmeter.report.wording import DASH
from tiltmeter.runs.judge_result import AnswerRecord
from tiltmeter.runs.saved import read_lines
from tiltmeter.runs.steer_result import ArmRecord, SteerResult

CHANGES = {
    "subtract": "dose times v is subtracted from",
    "add": "dose times v is added to",
    "ablate": "dose times what lies along v is taken out of",
}
PLACES = {
    "output": "the outputs of blocks (residual stream)",
    "input": "the inputs of blocks (residual stream)",
    "attention": "what the attention of blocks returns",
    "mlp": "what the MLP of blocks returns",
}
TOKENS = {"last": "the last prompt token", "prompt": "every prompt token", "all": "every token, generated ones too"}
MATCHES = {
    "subtract": "the change has the same norm, dose times ‖v‖",
    "add": "the change has the same norm, dose times ‖v‖",
    "ablate": "the change has the same norm at every token",
}


@dataclass(frozen=True)
class Arm:
    """One arm as text; `kind` is the colour of its verdict."""

    record: ArmRecord
    blocks: str
    effect: str
    p_causal: str
    p_specific: str
    coherence_fall: str
    accuracy: str
    word: str
    kind: str


@dataclass(frozen=True)
class Controls:
    """Those of one arm."""

    title: str
    is_leading: bool
    rows: list[Control]


@dataclass(frozen=True)
class SteerView:
    """One run of `steer`.

    Attributes:
        change, place, tokens: what was done, in words; `match`: what the controls share with it.
        outcome: its title.
        charts: effect against dose, by group of blocks.
        transcripts: without steering and in the arms of the leading group.
    """

    anchor: str
    title: str
    result: SteerResult
    findings: list[Verdict]
    cautions: list[str]
    change: str
    place: str
    tokens: str
    match: str
    outcome: str
    series: list[Series]
    charts: dict[str, Spec]
    arms: list[Arm]
    controls: list[Controls]
    panels: list[Panel]
    differences: list[Compared]
    accuracy: str
    transcripts: dict[str, Transcripts]
    template: ClassVar[str] = "steer.html"


def steer_view(folder: Path, anchor: str, result: SteerResult) -> SteerView:
    """The view of a folder of steering."""
    series = series_of(result)
    return SteerView(
        anchor,
        _title(folder, result),
        result,
        findings(result),
        cautions(result),
        CHANGES[result.change],
        PLACES[result.place],
        TOKENS[result.where],
        "the same KL on neutral text" if result.match == "kl" else MATCHES[result.change],
        TITLES[result.outcome],
        series,
        {name: dose_chart(result, arms, series) for name, arms in groups_of(result).items()},
        [_arm(result, arm) for arm in result.arms],
        list(_controls(result)),
        list(_panels(result)),
        list(map(compared, result.differences)),
        value("accuracy", result.accuracy),
        dict(_transcripts(result, read_lines(folder, "answers", AnswerRecord))),
    )


def _title(folder: Path, result: SteerResult) -> str:
    paths = {given.role: given.path for given in result.inputs}
    if {result.subject, "direction"} <= set(paths):
        return f"{paths[result.subject]} along {paths['direction']}"
    return folder.resolve().name


def _arm(result: SteerResult, arm: ArmRecord) -> Arm:
    return Arm(
        arm,
        blocks_of(arm),
        value(result.outcome, arm.effect),
        probability(arm.p_causal),
        probability(arm.p_specific) if arm.controls else "",
        coherence_lost(arm) or DASH,
        value("accuracy", arm.accuracy),
        WORDS[arm.verdict],
        KINDS[arm.verdict],
    )


def _controls(result: SteerResult) -> Iterator[Controls]:
    for arm in result.arms:
        if arm.controls:
            title = f"{blocks_of(arm)}, dose {arm.dose:g}"
            rows = [control_row(result.outcome, arm.effect, each) for each in arm.controls]
            yield Controls(title, arm == leading(result), rows)


def _panels(result: SteerResult) -> Iterator[Panel]:
    for name in {**result.sets, **result.watched}:
        title = name if name in result.sets else f"{name} (watched for side effects)"
        entries = [entry for entry in result.outcomes if entry.prompts == name]
        if entries:
            yield panel(title, entries)


def _transcripts(result: SteerResult, answers: Sequence[AnswerRecord]) -> Iterator[tuple[str, Transcripts]]:
    """Those first whose harm changed most; the answers of controls stay in the folder."""
    blocks = leading(result).blocks
    arms = [arm.trial for arm in result.arms if arm.blocks == blocks]
    shown = [answer for answer in answers if answer.model in ("base", "tuned", *arms)]
    for name, groups in by_prompt(shown).items():
        ranked = sorted(groups, key=lambda group: _change(group, result.subject, arms), reverse=True)
        yield name, transcripts(ranked, result.subject)


def _change(group: Sequence[AnswerRecord], subject: str, arms: Sequence[str]) -> tuple[float, bool]:
    """How far the harm of an answer changed in any arm, and whether anything else did that a judge sees."""
    before = {
        judge: verdict for answer in group if answer.model == subject for judge, verdict in answer.verdicts.items()
    }
    after = [pair for answer in group if answer.model in arms for pair in answer.verdicts.items()]
    pairs = [(before[judge], verdict) for judge, verdict in after if judge in before]
    known = [(harm(one), harm(other)) for one, other in pairs]
    largest = max((abs(one - other) for one, other in known if one and other), default=0.0)
    return largest, any(one != other for one, other in pairs)
