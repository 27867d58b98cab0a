"""Models judged, from files to a run folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tiltmeter.behaviour.judges import Judge
from tiltmeter.errors import InputError
from tiltmeter.generation import Answer
from tiltmeter.judge.answers import Answerer, AnswerLine, Key, Sets
from tiltmeter.judge.measure import Readings, difference_records, measure, outcome_records
from tiltmeter.judge.readings import Reader, ReadingLine, load_material
from tiltmeter.judge.record import answer_lines, judge_records, set_records
from tiltmeter.judge.request import JudgingRequest, JudgingSources, judge_names
from tiltmeter.judge.subjects import Subjects
from tiltmeter.judge.verdicts import VerdictLine, Verdicts, judge_all
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
    verdicts: Mapping[str, Verdicts]
    readings: Readings


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
    subjects = Subjects(request)
    with RunFolder(out) as run:
        inputs, models = [*subjects.inputs(), *_files(sources)], subjects.records()
        run.resume_or_start(request.record(inputs))
        answerer = Answerer(sets, request.answering, run.journal("answers", AnswerLine))
        reader = Reader(material, request.answering, run.journal("readings", ReadingLine))
        _visit(subjects, request.reference, answerer, reader)
        verdicts = judge_all(named, answerer.answers, run.journal("verdicts", VerdictLine))
        found = Found(sets, answerer.answers, verdicts, reader.readings)
        result = _result(request, inputs, models, found)
        run.write_lines("answers", answer_lines(found.answers, verdicts))
        run.write_result(result)
    return result


def _check(request: JudgingRequest) -> None:
    sources = request.sources
    if not (sources.prompts or sources.skills or sources.tasks or sources.texts):
        raise InputError("nothing to measure: give --prompts and --judge, --skill, --tasks or --text")
    if bool(sources.prompts) != bool(request.judges):
        raise InputError("--prompts, --judge: expected both")
    if sources.skills and request.reference is None:
        raise InputError("--skill: utility loss and KL are against a reference; give that model too, and first")


def _files(sources: JudgingSources) -> list[Input]:
    return hash_files(
        {"prompts": sources.prompts, "skill": sources.skills, "tasks": sources.tasks, "text": sources.texts}
    )


def _visit(subjects: Subjects, reference: str | None, answerer: Answerer, reader: Reader) -> None:
    """One model in memory at a time, beside the reference where others are read against it."""
    loaders = subjects.loaders()
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
        judges=judge_records(request, found.verdicts),
        outcomes=list(outcome_records(measured, found.readings)),
        differences=differences,
    )
