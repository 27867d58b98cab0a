"""Directions carried from each model to each other, from files to a run folder."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from pathlib import Path

from tiltmeter.activations.specificity.gate import draws_needed
from tiltmeter.behaviour.judges import Judge
from tiltmeter.behaviour.outcomes import OUTCOMES
from tiltmeter.directions.battery import Question, try_arms, wants_lower
from tiltmeter.directions.captured import Capturing, Reading
from tiltmeter.directions.experiment import Experiment, Material, Trial, load_material
from tiltmeter.directions.mapped import Place, fit_map
from tiltmeter.directions.routes import Draws, Route, States, carried_route, own_route, span_route
from tiltmeter.directions.subjects import Outline, load_base, load_fine_tune, naming, outline, read_states
from tiltmeter.directions.transfer_record import (
    Carried,
    Walked,
    map_record,
    subject_record,
    transfer_result,
    walked,
)
from tiltmeter.directions.transfer_request import TransferRequest
from tiltmeter.errors import InputError
from tiltmeter.judge.record import answer_lines
from tiltmeter.models import local_folder
from tiltmeter.progress import track
from tiltmeter.requests import hash_files, load_named_prompts
from tiltmeter.runs.folder import RunFolder
from tiltmeter.runs.inputs import hash_input
from tiltmeter.runs.results import Input
from tiltmeter.runs.transfer_result import MapRecord, TransferResult

FEWEST = 10  # common prompts


@dataclass(frozen=True)
class Plan:
    """All that is steered along in one target, with the maps that carried it there."""

    maps: Sequence[MapRecord]
    routes: Sequence[Route]


def run_transfer(request: TransferRequest, out: Path, judge: Judge) -> TransferResult:
    """Reads, fits, steers, judges, writes the run folder `out`; goes on with this very run where it was killed there.

    Every direction and every control is made before anything is steered.

    Raises:
        InputError: any input that cannot be used, or `out` is no place for a run.
        NothingMeasuredError: the judge has no verdict on any prompt.
    """
    sources = request.sources
    _check(request)
    common = list(dict.fromkeys(each for of_set in load_named_prompts(sources.common).values() for each in of_set))
    _check_count(common)
    material = load_material(sources.prompts, sources.watch)
    with RunFolder(out) as run:
        inputs = _inputs(request)
        outlines = [outline(name, each, common, request.carrying.block) for name, each in sources.models.items()]
        run.resume_or_start(request.record(inputs))
        capturing = Capturing(run, Reading("last", "output", request.carrying.batch_size))
        read = {
            each.name: read_states(request, capturing, f"model-{number}", each)
            for number, each in enumerate(outlines, start=1)
        }
        plans = [_plan(request, each, read) for each in outlines]
        walks = [
            _walk(request, run, material, judge, each, read[each.name], plan)
            for each, plan in zip(outlines, plans, strict=True)
        ]
        result = transfer_result(request, inputs, outlines, material, walks)
        for_lines = {key: answer for walk in walks for key, answer in walk.answers.items()}
        verdicts = {key: verdict for walk in walks for key, verdict in walk.judged.verdicts.items()}
        run.write_lines("answers", answer_lines(for_lines, {judge.name: verdicts}))
        run.write_result(result)
    return result


def _check(request: TransferRequest) -> None:
    models, carrying = request.sources.models, request.carrying
    if len(models) < 2:
        raise InputError(f"expected two models or more, got {len(models)}")
    for name in models:
        if not name or "," in name or ":" in name:  # which stand between the parts of a trial's name
            raise InputError(f"{name}: expected a name without comma or colon")
    if request.gate.outcome not in OUTCOMES:
        raise InputError(f"--outcome: expected one of {', '.join(OUTCOMES)}, got {request.gate.outcome}")
    if len(set(carrying.maps)) < len(carrying.maps):
        raise InputError(f"--map: given twice among {', '.join(carrying.maps)}")
    if not 0 < carrying.dose < math.inf:
        raise InputError(f"--dose: expected a number above 0, got {carrying.dose:g}")


def _check_count(common: Sequence[str]) -> None:
    if len(common) < FEWEST:
        raise InputError(f"--common: expected at least {FEWEST} different prompts, got {len(common)}")


def _inputs(request: TransferRequest) -> list[Input]:
    models = [
        hash_input(source, f"{name}: {role}", local_folder(source))
        for name, subject in request.sources.models.items()
        for role, source in vars(subject).items()
        if source is not None
    ]
    sources = request.sources
    return [*models, *hash_files({"common": sources.common, "prompts": sources.prompts, "watch": sources.watch})]


def _plan(request: TransferRequest, target: Outline, read: Mapping[str, States]) -> Plan:
    """Every route to one target, in the order in which they are tried."""
    name, own, size = target.name, read[target.name], request.carrying.span
    draws = Draws(request.gate.draws or draws_needed(1), request.seed)
    with naming(name):
        routes = [own_route(name, own, draws)]
        routes += [span_route((name, name), own, own, None, size, draws)] if size else []
    place = cache(partial(_place, request, target))
    pairs = list(product((source for source in read if source != name), request.carrying.maps))
    maps = []
    for source, kind in track(pairs, f"maps to {name}", len(pairs)):
        names, states = (source, name), read[source]
        with naming(f"{source} to {name}, {kind}"):
            found = fit_map(kind, states.base, own.base, place, request.seed)
            maps.append(map_record(names, states, own, found, request.seed))
            routes.append(carried_route(names, states, own, found.map, draws))
            routes += [span_route(names, states, own, found.map, size, draws)] if size else []
    return Plan(maps, routes)


def _walk(
    request: TransferRequest,
    run: RunFolder,
    material: Material,
    judge: Judge,
    target: Outline,
    states: States,
    plan: Plan,
) -> Walked:
    """Everything that is tried on one target."""
    subject, outcome = target.subject, request.gate.outcome
    plain = f"{target.name}: tuned"
    load = partial(load_fine_tune, request, subject, subject.tuned)
    experiment = Experiment(run, load, material, judge, request.answering, request.carrying.where, "output")
    experiment.ask([Trial(f"{target.name}: base", {})], watched=True, load=partial(load_base, request, subject))
    experiment.ask([Trial(plain, {})], watched=True)
    question = Question(outcome, wants_lower(outcome, adds=False), plain, request.seed)
    carried = [_try(request, experiment, question, target, route) for route in plan.routes]
    return walked(subject_record(target, states, experiment, question), experiment, question, plan.maps, carried)


def _try(
    request: TransferRequest, experiment: Experiment, question: Question, target: Outline, route: Route
) -> Carried:
    """One route, which is a battery of its own."""
    arm = route.arm(target.number, target.block, request.carrying.dose)
    tried = try_arms(
        experiment, question, {arm: route.edits(arm)}, lambda each, _: route.controls(each), request.gate.draws
    )
    return Carried(route, arm, tried)


def _place(request: TransferRequest, target: Outline) -> Place:
    return Place(load_base(request, target.subject), target.texts, target.block)
