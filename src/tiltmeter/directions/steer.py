"""A model steered along a direction and along controls, from files to a run folder."""

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from tiltmeter.activations.direction import Direction
from tiltmeter.behaviour.judges import Judge
from tiltmeter.behaviour.outcomes import OUTCOMES
from tiltmeter.behaviour.tasks import Task, load_tasks
from tiltmeter.directions.arms import arms, check_names
from tiltmeter.directions.battery import Question, try_arms, wants_lower
from tiltmeter.directions.bench import Bench
from tiltmeter.directions.experiment import Experiment, Trial, load_material
from tiltmeter.directions.found import check_fits, load_found
from tiltmeter.directions.steer_record import BASE, TUNED, steer_result
from tiltmeter.directions.steer_request import SteerRequest
from tiltmeter.errors import InputError
from tiltmeter.judge.record import answer_lines
from tiltmeter.models import Model, load_model, load_tuned, local_folder
from tiltmeter.requests import DTYPES, hash_files, load_named
from tiltmeter.runs.folder import RunFolder
from tiltmeter.runs.inputs import hash_input
from tiltmeter.runs.results import Input
from tiltmeter.runs.steer_result import SteerResult
from tiltmeter.tokens import encode_within


def run_steer(request: SteerRequest, out: Path, judge: Judge) -> SteerResult:
    """Steers, judges, writes the run folder `out`; goes on with this very run where it was killed there.

    Raises:
        InputError: any input that cannot be used, or `out` is no place for a run.
        NothingMeasuredError: the judge has no verdict on any prompt.
    """
    _check(request)
    steering, gate = request.steering, request.gate
    material = load_material(request.sources.prompts, request.sources.watch)
    tasks = _tasks(request)
    adds = steering.change == "add"
    subject, other = (BASE, TUNED) if adds else (TUNED, BASE)
    with RunFolder(out) as run:
        inputs = _inputs(request)
        bench = _bench(request, _load(request, subject), tasks)
        plan = arms(steering, list(bench.model.blocks), bench.found.direction)
        run.resume_or_start(request.record(inputs))
        where, place = steering.where, bench.found.direction.place
        experiment = Experiment(run, lambda: bench.model, material, judge, request.answering, where, place)
        experiment.ask([Trial(other, {})], watched=True, load=partial(_load, request, other))
        experiment.ask([Trial(subject, {})], watched=True)
        question = Question(gate.outcome, wants_lower(gate.outcome, adds), subject, request.seed)
        tried = try_arms(experiment, question, {arm: bench.edits(arm) for arm in plan}, bench.controls, gate.draws)
        result = steer_result(bench, inputs, experiment, question, tried)
        run.write_lines("answers", answer_lines(experiment.answers, {judge.name: experiment.verdicts}))
        run.write_result(result)
    return result


def _check(request: SteerRequest) -> None:
    if request.gate.outcome not in OUTCOMES:
        raise InputError(f"--outcome: expected one of {', '.join(OUTCOMES)}, got {request.gate.outcome}")
    if request.gate.match == "kl" and not request.sources.neutral:
        raise InputError("--match kl: give pairs of prompt and completion to measure it on: --neutral FILE")
    for dose in request.steering.doses:
        if not 0 < dose < math.inf:
            raise InputError(f"--dose: expected a number above 0, got {dose:g}")


def _tasks(request: SteerRequest) -> list[Task]:
    """Those with options are weighed by passes over whole answers, where an edit of prompts would have no end."""
    tasks = [task for file in request.sources.tasks for task in load_tasks(file)]
    where, chosen = request.steering.where, [task for task in tasks if task.options]
    if chosen and where != "all":
        raise InputError(f"{chosen[0].where}: tasks with options are measured with --where all only, not {where}")
    return tasks


def _load(request: SteerRequest, which: str) -> Model:
    base, tuned = local_folder(request.sources.base), local_folder(request.sources.tuned)
    dtype, device = DTYPES[request.answering.dtype], request.answering.device
    return load_model(base, dtype, device) if which == BASE else load_tuned(base, tuned, dtype, device)


def _bench(request: SteerRequest, model: Model, tasks: list[Task]) -> Bench:
    sources = request.sources
    found = load_found(sources.direction, model)
    check_names([*found.beside, *sources.beside])
    neutral = load_named(sources.neutral, None, "--neutral").values() if sources.neutral else ()
    return Bench(
        request,
        model,
        found,
        _beside(sources.beside, model, found.direction),
        [each for skill in neutral for each in encode_within(model, skill)],
        tasks,
    )


def _beside(files: Mapping[str, str], model: Model, direction: Direction) -> dict[str, Direction]:
    """Further directions at the same hook point."""
    loaded = {name: Direction.load(Path(file), list(model.blocks)) for name, file in files.items()}
    for name, other in loaded.items():
        check_fits(other, model, name)
        if other.place != direction.place:
            raise InputError(f"--beside {name}: read at the {other.place}, the direction at the {direction.place}")
    return loaded


def _inputs(request: SteerRequest) -> list[Input]:
    sources = request.sources
    models = [
        hash_input(sources.base, "base", local_folder(sources.base)),
        hash_input(sources.tuned, "tuned", local_folder(sources.tuned)),
        hash_input(sources.direction, "direction"),
        *(hash_input(file, "beside") for file in sources.beside.values()),
    ]
    files = {"prompts": sources.prompts, "watch": sources.watch, "neutral": sources.neutral, "tasks": sources.tasks}
    return [*models, *hash_files(files)]
