"""What steering did, as it is saved."""

from collections.abc import Iterator, Sequence

import numpy as np

from tiltmeter.activations.neutral import WIDEST
from tiltmeter.activations.specificity.arm import DrawnControl, SingleControl
from tiltmeter.activations.specificity.wording import sentence
from tiltmeter.directions.arms import Arm
from tiltmeter.directions.battery import Control, Question, Tried
from tiltmeter.directions.bench import Bench
from tiltmeter.directions.experiment import Edits, Experiment
from tiltmeter.intervals import Interval, mean_interval
from tiltmeter.judge.measure import difference_records, measure, outcome_records
from tiltmeter.judge.record import Judged, judge_record, set_records
from tiltmeter.progress import track
from tiltmeter.runs import results
from tiltmeter.runs.record import tool_versions
from tiltmeter.runs.results import Input, interval_record
from tiltmeter.runs.steer_result import ArmRecord, ControlRecord, SteerResult

BASE, TUNED = "base", "tuned"
KL_DRAWS = 5  # of each random kind


def steer_result(
    bench: Bench, inputs: list[Input], experiment: Experiment, question: Question, tried: Tried
) -> SteerResult:
    """All that the result says."""
    request, material = bench.request, experiment.material
    shown = {BASE, TUNED, *(arm.name for arm in tried.controls)}
    answers = {key: answer for key, answer in experiment.answers.items() if key[0] in shown}
    measured = measure(answers, {experiment.judge: experiment.verdicts}, {})
    samples = request.answering.samples
    return SteerResult(
        inputs=inputs,
        versions=tool_versions(),
        seed=request.seed,
        dtype=request.answering.dtype,
        warnings=list(_warnings(bench, inputs, tried)),
        subject="base" if request.steering.change == "add" else "tuned",
        change=request.steering.change,
        where=request.steering.where,
        place=bench.found.direction.place,
        outcome=question.outcome,
        wanted="lower" if question.lower else "higher",
        match=request.gate.match,
        draws=tried.draws,
        verdict=tried.battery.verdict,
        sentence=sentence(tried.battery, question.outcome),
        reaches_first_token_only=_reaches_first_token_only(bench, list(tried.controls)),
        judge=judge_record(request.judge, Judged(experiment.verdicts, experiment.checks, {})),
        sets=set_records(material.prompts, samples),
        watched=set_records(material.watch, samples),
        sampling=vars(request.answering.sampling),
        norms={block: bench.found.direction.norm(block) for block in bench.found.direction.vectors},
        arms=list(_arms(bench, tried)),
        outcomes=list(outcome_records(measured, {})),
        differences=difference_records(measured, {}, question.plain, request.seed),
        accuracy=_accuracy(bench, {}),
    )


def _arms(bench: Bench, tried: Tried) -> Iterator[ArmRecord]:
    pairs = list(zip(tried.controls.items(), tried.battery.arms, strict=True))
    for (arm, controls), found in track(pairs, "side effects", len(pairs)):
        effect, fall = found.measured.effect, found.measured.coherence_fall
        yield ArmRecord(
            trial=arm.name,
            blocks=list(arm.numbers),
            dose=arm.dose,
            effect=optional(effect),
            p_causal=found.p_causal,
            p_specific=found.p_specific,
            can_pass=found.can_pass,
            verdict=found.verdict,
            controls=[control_record(control) for control in found.measured.controls],
            coherence_fall=optional(fall),
            coherent_on=found.measured.coherent_on or None,
            kl=bench.kl(bench.edits(arm)) if bench.neutral else None,
            controls_kl=optional(_controls_kl(bench, controls)),
            accuracy=_accuracy(bench, bench.edits(arm)),
        )


def control_record(found: DrawnControl | SingleControl) -> ControlRecord:
    """A control as it is saved."""
    if isinstance(found, DrawnControl):
        return ControlRecord(kind=found.kind, draws=found.draws, mean=found.mean, p95=found.p95, p=found.p)
    return ControlRecord(kind=found.kind, draws=1, excess=optional(found.excess), p=found.p)


def _controls_kl(bench: Bench, controls: Sequence[Control]) -> Interval | None:
    """Over the first draws of each random kind."""
    some = [control.edits for control in controls if control.draw is not None and control.draw <= KL_DRAWS]
    return mean_interval(np.array([bench.kl(each) for each in some])) if some and bench.neutral else None


def _accuracy(bench: Bench, change: Edits) -> results.Interval | None:
    return interval_record(bench.accuracy(change)) if bench.tasks else None


def optional(interval: Interval | None) -> results.Interval | None:
    """The saved form of an interval that may not be known."""
    return None if interval is None else interval_record(interval)


def _reaches_first_token_only(bench: Bench, arms: Sequence[Arm]) -> bool:
    """In some arm: behind the keys and values of the last block, no later token sees the edit."""
    is_behind = bench.found.direction.place != "input"
    last = (len(bench.model.blocks) - 1,)
    return bench.request.steering.where != "all" and is_behind and any(arm.numbers == last for arm in arms)


def _warnings(bench: Bench, inputs: Sequence[Input], tried: Tried) -> Iterator[str]:
    own = {given.role: given.files for given in inputs}
    if any(given.files != own[given.role] for given in bench.found.inputs if given.role in (BASE, TUNED)):
        yield "the direction was found between other models than these, and so were the states that controls come from"
    if bench.found.folder is None:
        yield (
            "the direction is a file alone: controls with the activations' covariance and from permuted labels need "
            "the run folder of tiltmeter direction"
        )
    off = sum(each.scale in (1 / WIDEST, WIDEST) for controls in tried.controls.values() for each in controls)
    if off:
        yield f"{off} controls do not come to the direction's KL at {1 / WIDEST:g} to {WIDEST:g} times its norm"
    others = [*bench.found.beside, *bench.beside]
    if not others:
        yield "no direction of a benign fine-tune is among the controls: give one to tiltmeter direction --beside"
    if tried.draws and not tried.battery.can_pass:
        yield f"{tried.draws} draws of each control, or so few prompts, cannot make any arm specific: see --draws"
