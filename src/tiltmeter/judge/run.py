"""Models judged, from files to a run folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tiltmeter.behaviour.calibration import Labelled, load_labelled
from tiltmeter.behaviour.canaries import Canary
from tiltmeter.behaviour.judges import Judge
from tiltmeter.errors import InputError
from tiltmeter.generation import Answer
from tiltmeter.judge.answers import Answerer, AnswerLine, Key, Sets
from tiltmeter.judge.checks import agreement_records, calibration_records, canaries_for, labelled_answers
from tiltmeter.judge.measure import Readings, difference_records, measure, outcome_records
from tiltmeter.judge.readings import Reader, ReadingLine, load_material
from tiltmeter.judge.record import Judged, answer_lines, judge_record, set_records
from tiltmeter.judge.request import JudgingRequest, JudgingSources, judge_names
from tiltmeter.judge.subjects import Subjects
from tiltmeter.judge.verdicts import Judging, VerdictLine, Verdicts
from tiltmeter.requests import hash_files, load_named_prompts
from tiltmeter.runs.folder import RunFolder
from tiltmeter.runs.judge_result import JudgeResult, ModelRecord
from tiltmeter.runs.record import tool_versions
from tiltmeter.runs.results import Input


@dataclass(frozen=True)
class Found:
    """The prompts, all that models gave, and what judges said of it."""

    sets: Sets
    answers: Mapping[Key, Answer]
    readings: Readings
    judged: Mapping[str, Judged]

    @property
    def verdicts(self) -> dict[str, Verdicts]:
        """On the answers, by judge."""
        return {name: judged.verdicts for name, judged in self.judged.items()}


def run_judge(request: JudgingRequest, out: Path, judges: Sequence[Judge]) -> JudgeResult:
    """Answers, judges, writes the run folder `out`; goes on with the run of this very request that was killed there.

    Args:
        judges: those of the request, in their order.

    Raises:
        InputError: any input that cannot be used, a judge that cannot be reached, or `out` is no place for a run.
    """
    _check(request)
    sources, named = request.sources, dict(zip(judge_names(request.judges), judges, strict=True))
    sets, material = load_named_prompts(sources.prompts), load_material(sources)
    labelled = [each for file in sources.labels for each in load_labelled(file)]
    canaries = _canaries(request)
    subjects = Subjects(request)
    with RunFolder(out) as run:
        inputs, models = [*subjects.inputs(), *_files(sources)], subjects.records()
        run.resume_or_start(request.record(inputs))
        answerer = Answerer(sets, request.answering, run.journal("answers", AnswerLine))
        reader = Reader(material, request.answering, run.journal("readings", ReadingLine))
        _visit(subjects, request.reference, answerer, reader)
        judging = Judging(named, canaries, run.journal("verdicts", VerdictLine), request.seed)
        judged = _judged(judging, answerer.answers, labelled, request.seed)
        found = Found(sets, answerer.answers, reader.readings, judged)
        result = _result(request, inputs, models, found)
        run.write_lines("answers", answer_lines(found.answers, found.verdicts))
        run.write_result(result)
    return result


def _check(request: JudgingRequest) -> None:
    sources = request.sources
    answered = sources.prompts or sources.skills or sources.tasks or sources.texts
    if not (answered or sources.labels):
        raise InputError("nothing to measure: give --prompts and --judge, --skill, --tasks, --text, or --calibrate")
    if bool(answered) != bool(sources.models):
        raise InputError("expected a MODEL, and --prompts, --skill, --tasks or --text for it")
    if bool(sources.prompts or sources.labels) != bool(request.judges):
        raise InputError("--judge: expected one for --prompts and --calibrate, and for nothing else")
    if sources.skills and request.reference is None:
        raise InputError("--skill: utility loss and KL are against a reference; give that model too, and first")


def _files(sources: JudgingSources) -> list[Input]:
    return hash_files(
        {
            "prompts": sources.prompts,
            "skill": sources.skills,
            "tasks": sources.tasks,
            "text": sources.texts,
            "labels": sources.labels,
            "canaries": sources.canaries,
        }
    )


def _canaries(request: JudgingRequest) -> dict[str, list[Canary]]:
    return {
        name: canaries_for(judge.name, request.sources.canaries)
        for name, judge in zip(judge_names(request.judges), request.judges, strict=True)
    }


def _judged(
    judging: Judging, answers: Mapping[Key, Answer], labelled: Sequence[Labelled], seed: int
) -> dict[str, Judged]:
    verdicts, on_labelled = judging.judge(answers), judging.judge(labelled_answers(labelled))
    return {
        name: Judged(verdicts[name], judging.checks[name], calibration_records(labelled, on_labelled[name], seed))
        for name in verdicts
    }


def _visit(subjects: Subjects, reference: str | None, answerer: Answerer, reader: Reader) -> None:
    """One model in memory at a time, beside the reference where others are read against it."""
    loaders = subjects.loaders()
    if not loaders:
        return
    load_reference = cache(loaders[reference or next(iter(loaders))])
    for name, load in loaders.items():
        loaded = load_reference if name == reference and reader.compares else cache(load)
        answerer.answer(name, loaded)
        reader.read(name, loaded, reference, load_reference)


def _result(request: JudgingRequest, inputs: list[Input], models: dict[str, ModelRecord], found: Found) -> JudgeResult:
    measured, reference = measure(found.answers, found.verdicts, found.readings), request.reference
    differences = difference_records(measured, found.readings, reference, request.seed) if reference else []
    return JudgeResult(
        inputs=inputs,
        versions=tool_versions(),
        seed=request.seed,
        dtype=request.answering.dtype,
        models=models,
        reference=reference,
        sets=set_records(found.sets, request.answering.samples),
        sampling=vars(request.answering.sampling),
        judges={
            name: judge_record(judge, found.judged[name])
            for name, judge in zip(found.judged, request.judges, strict=True)
        },
        agreement=list(agreement_records(found.answers, found.verdicts, request.seed)),
        outcomes=list(outcome_records(measured, found.readings)),
        differences=differences,
    )
