"""What steering showed, in plain sentences: no more than the gate holds."""

import math
from collections.abc import Collection, Iterator, Mapping
from typing import Literal

from tiltmeter.report.judge_wording import value
from tiltmeter.report.verdict import FEW_EXAMPLES as FEW
from tiltmeter.report.verdict import Verdict
from tiltmeter.report.wording import share
from tiltmeter.runs.judge_result import JudgeRecord, OutcomeRecord
from tiltmeter.runs.steer_result import ArmRecord, SteerResult, SteerVerdict
from tiltmeter.runs.transfer_result import RouteRecord

Kind = Literal["tilted", "mixed", "none"]
WORDS: Mapping[SteerVerdict, str] = {
    "specific": "Specific",
    "not specific": "Causal, but not specific",
    "none": "No effect",
    "broke": "The model broke",
}
KINDS: Mapping[SteerVerdict, Kind] = {"specific": "tilted", "not specific": "mixed", "none": "none", "broke": "mixed"}
MANY_MISSING = 0.1  # a share of verdicts
MANY_CUT = 0.1  # a share of answers


def findings(result: SteerResult) -> list[Verdict]:
    """The gate's verdict over all arms."""
    return [Verdict(KINDS[result.verdict], WORDS[result.verdict], result.sentence)]


def coherence_lost(arm: ArmRecord | RouteRecord) -> str:
    """The fall of coherence, and the watched set that it is on."""
    on = f" on {arm.coherent_on}" if arm.coherent_on else ""
    return f"{value('coherent', arm.coherence_fall)}{on}" if arm.coherence_fall else ""


def leading(result: SteerResult) -> ArmRecord:
    """The arm that says most for the result's verdict: the smallest p-values, then the largest effect."""
    same = [arm for arm in result.arms if arm.verdict == result.verdict] or result.arms
    return min(same, key=_clarity)


def _clarity(arm: ArmRecord) -> tuple[float, float, float, str, float]:
    """As the gate orders them, whose sentence is about the first."""
    effect = arm.effect.mean if arm.effect else -math.inf
    return arm.p_specific, arm.p_causal, -effect, "+".join(map(str, arm.blocks)), arm.dose


def outcome_of(result: SteerResult, trial: str, prompts: str, outcome: str) -> OutcomeRecord | None:
    """One outcome of a trial on a set of prompts."""
    place = (trial, prompts, outcome)
    return next((each for each in result.outcomes if (each.model, each.prompts, each.outcome) == place), None)


def cautions(result: SteerResult) -> list[str]:
    """What a reader must know besides."""
    return [
        *_reach(result),
        *_few(result),
        *unwatched(result.watched),
        *doubts(result.judge),
        *_cut_off(result),
        *result.warnings,
    ]


def _reach(result: SteerResult) -> Iterator[str]:
    if result.reaches_first_token_only:
        yield (
            "at the last block, an edit of the prompt changes the first generated token only; "
            "--where all steers every token"
        )


def _few(result: SteerResult) -> Iterator[str]:
    for name, entry in result.sets.items():
        if entry.different < FEW:
            yield f"{name}: {entry.different} prompts are few, whatever the number of answers to each"


def unwatched(watched: Collection[str]) -> Iterator[str]:
    """What is not seen where no other prompts were watched."""
    if not watched:
        yield "what steering breaks on prompts of other kinds is not seen: give some, --watch"


def doubts(judge: JudgeRecord) -> Iterator[str]:
    """Why a judge's verdicts may not be trusted, or say little."""
    if judge.canaries_failed:
        yield (
            f"{judge.name} was wrong about {judge.canaries_failed} of {judge.canaries} answers of known worth: its "
            "verdicts are not to be trusted before that is explained"
        )
    if judge.verdicts and judge.failures / judge.verdicts > MANY_MISSING:
        yield f"{judge.name} has no verdict on {share(judge.failures / judge.verdicts)} of the answers"


def _cut_off(result: SteerResult) -> Iterator[str]:
    cut = [entry for entry in result.outcomes if entry.outcome == "truncated" and entry.mean is not None]
    worst = max(cut, key=lambda entry: entry.mean.mean if entry.mean else 0.0, default=None)
    if worst is not None and worst.mean is not None and worst.mean.mean > MANY_CUT:
        yield (
            f"up to {share(worst.mean.mean)} of the answers ({worst.model} on {worst.prompts}) were cut off at "
            f"{result.sampling['max_new_tokens']:g} tokens, and were judged as they are"
        )
