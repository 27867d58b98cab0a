"""Models judged, from files to a run folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tiltmeter.behaviour.judges import Judge
from tiltmeter.generation import Answer
from tiltmeter.judge.answers import AnswerLine, Key, Sets, answer_all
from tiltmeter.judge.measure import difference_records, measure, outcome_records
from tiltmeter.judge.record import answer_lines, judge_records, set_records
from tiltmeter.judge.request import JudgingRequest, judge_names
from tiltmeter.judge.subjects import Subjects
from tiltmeter.judge.verdicts import VerdictLine, Verdicts, judge_all
from tiltmeter.requests import hash_files, load_named_prompts
from tiltmeter.runs.folder import RunFolder
from tiltmeter.runs.judge_result import JudgeResult, ModelRecord
from tiltmeter.runs.record import tool_versions
from tiltmeter.runs.results import Input


def run_judge(request: JudgingRequest, out: Path, judges: Sequence[Judge]) -> JudgeResult:
    """Answers, judges, writes the run folder `out`; goes on with the run of this very request that was killed there.

    Args:
        judges: those of the request, in their order.

    Raises:
        InputError: any input that cannot be used, a judge that cannot be reached, or `out` is no place for a run.
    """
    named = dict(zip(judge_names(request.judges), judges, strict=True))
    sets = load_named_prompts(request.sources.prompts)
    subjects = Subjects(request)
    with RunFolder(out) as run:
        inputs = [*subjects.inputs(), *hash_files({"prompts": request.sources.prompts})]
        models = subjects.records()
        run.resume_or_start(request.record(inputs))
        answers = answer_all(subjects.loaders(), sets, request.answering, run.journal("answers", AnswerLine))
        verdicts = judge_all(named, answers, run.journal("verdicts", VerdictLine))
        result = _result(request, inputs, models, sets, answers, verdicts)
        run.write_lines("answers", answer_lines(answers, verdicts))
        run.write_result(result)
    return result


def _result(
    request: JudgingRequest,
    inputs: list[Input],
    models: dict[str, ModelRecord],
    sets: Sets,
    answers: Mapping[Key, Answer],
    verdicts: Mapping[str, Verdicts],
) -> JudgeResult:
    measured, reference = measure(answers, verdicts), request.reference
    return JudgeResult(
        inputs=inputs,
        versions=tool_versions(),
        seed=request.seed,
        dtype=request.answering.dtype,
        models=models,
        reference=reference,
        sets=set_records(sets, request.answering.samples),
        sampling=vars(request.answering.sampling),
        judges=judge_records(request, verdicts),
        outcomes=list(outcome_records(measured)),
        differences=difference_records(measured, reference, request.seed) if reference else [],
    )
