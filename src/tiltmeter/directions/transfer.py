"""Directions carried from each model to each other, from files to a run folder."""

from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path

from tiltmeter.activations.capture import prompts_only
from tiltmeter.activations.hook_points import chosen_blocks
from tiltmeter.behaviour.judges import Judge
from tiltmeter.behaviour.outcomes import OUTCOMES
from tiltmeter.directions.battery import Question, try_arms, wants_lower
from tiltmeter.directions.captured import Capturing, Reading
from tiltmeter.directions.experiment import Experiment, Material, Trial
from tiltmeter.directions.mapped import Mapped, Place, fit_map
from tiltmeter.directions.routes import Route, States, carried_route, own_route, span_route
from tiltmeter.directions.transfer_record import Carried, Read, Walked, transfer_result
from tiltmeter.directions.transfer_request import MapName, Subject, TransferRequest
from tiltmeter.errors import InputError
from tiltmeter.judge.record import answer_lines
from tiltmeter.models import Model, load_model, load_tokenizer, load_tuned, local_folder
from tiltmeter.requests import DTYPES, hash_files, load_named_prompts
from tiltmeter.runs.folder import RunFolder
from tiltmeter.runs.inputs import hash_input
from tiltmeter.runs.results import Input
from tiltmeter.runs.transfer_result import TransferResult

FEWEST = 10  # common prompts


def run_transfer(request: TransferRequest, out: Path, judge: Judge) -> TransferResult:
    """Reads, fits, steers, judges, writes the run folder `out`; goes on with this very run where it was killed there.

    Raises:
        InputError: any input that cannot be used, or `out` is no place for a run.
        NothingMeasuredError: the judge has no verdict on any prompt.
    """
    sources = request.sources
    common = list(dict.fromkeys(each for of_set in load_named_prompts(sources.common).values() for each in of_set))
    prompts = load_named_prompts(sources.prompts)
    _check(request, common)
    with RunFolder(out) as run:
        inputs = _inputs(request)
        run.resume_or_start(request.record(inputs))
        capturing = Capturing(run, Reading("last", "output", request.carrying.batch_size))
        read = {
            name: _read(request, capturing, f"model-{number}", subject, common)
            for number, (name, subject) in enumerate(sources.models.items(), start=1)
        }
        walked = [_walk(request, run, Material(prompts, {}), judge, read, name, common) for name in sources.models]
        result = transfer_result(request, inputs, len(common), read, walked)
        for_lines = {key: answer for each in walked for key, answer in each.experiment.answers.items()}
        verdicts = {key: verdict for each in walked for key, verdict in each.experiment.verdicts.items()}
        run.write_lines("answers", answer_lines(for_lines, {judge.name: verdicts}))
        run.write_result(result)
    return result


def _check(request: TransferRequest, common: list[str]) -> None:
    models = request.sources.models
    if len(models) < 2:
        raise InputError(f"expected two models or more, got {len(models)}")
    if request.gate.outcome not in OUTCOMES:
        raise InputError(f"--outcome: expected one of {', '.join(OUTCOMES)}, got {request.gate.outcome}")
    if len(set(request.carrying.maps)) < len(request.carrying.maps):
        raise InputError(f"--map: given twice among {', '.join(request.carrying.maps)}")
    if len(common) < FEWEST:
        raise InputError(f"--common: expected at least {FEWEST} different prompts, got {len(common)}")
    for subject in models.values():
        load_tokenizer(local_folder(subject.base))


def _inputs(request: TransferRequest) -> list[Input]:
    models = [
        hash_input(source, f"{name}: {role}", local_folder(source))
        for name, subject in request.sources.models.items()
        for role, source in vars(subject).items()
        if source is not None
    ]
    return [*models, *hash_files({"common": request.sources.common, "prompts": request.sources.prompts})]


def _read(request: TransferRequest, capturing: Capturing, label: str, subject: Subject, common: list[str]) -> Read:
    base = _load_base(request, subject)
    texts = prompts_only(base, common)
    (block,) = chosen_blocks(base, [request.carrying.block])
    loaders: dict[str, Callable[[], Model]] = {
        "base": lambda: base,
        "tuned": partial(_load_tuned, request, subject, subject.tuned),
    }
    if subject.benign is not None:
        loaders["benign"] = partial(_load_tuned, request, subject, subject.benign)
    found = {
        role: capturing.read(f"{label}-{role}", load, texts, [block]).per_prompt(block)
        for role, load in loaders.items()
    }
    return Read(subject, States(**found), list(base.blocks).index(block), block)


def _walk(
    request: TransferRequest,
    run: RunFolder,
    material: Material,
    judge: Judge,
    read: Mapping[str, Read],
    name: str,
    common: list[str],
) -> Walked:
    """Everything that is tried on one target."""
    target, how = read[name], request.carrying
    plain, tuned = f"{name}: base", f"{name}: tuned"
    load = cache(partial(_load_tuned, request, target.subject, target.subject.tuned))
    experiment = Experiment(run, load, material, judge, request.answering, how.where, "output")
    experiment.ask([Trial(plain, {})], watched=False, load=partial(_load_base, request, target.subject))
    experiment.ask([Trial(tuned, {})], watched=False)
    question = Question(request.gate.outcome, wants_lower(request.gate.outcome, adds=False), tuned, request.seed)
    place = cache(partial(_place, request, target, common))
    maps = {
        (source, kind): fit_map(kind, read[source].states.base, target.states.base, place, request.seed)
        for source in read
        for kind in how.maps
        if source != name
    }
    carried = []
    for route in _routes(request, read, name, maps):
        arm = route.arm(target.number, target.block, how.dose)
        tried = try_arms(experiment, question, {arm: route.edits(arm)}, route.controls, request.gate.draws)
        carried.append(Carried(route, arm, tried))
    return Walked(name, experiment, question, maps, carried)


def _routes(
    request: TransferRequest, read: Mapping[str, Read], name: str, maps: Mapping[tuple[str, MapName], Mapped]
) -> Iterator[Route]:
    own, size, seed = read[name].states, request.carrying.span, request.seed
    yield own_route(name, own, seed)
    if size:
        yield span_route((name, name), own, own, None, size, seed)
    for (source, kind), found in maps.items():
        names, states = (source, name), read[source].states
        yield carried_route(names, states, own, found.map, seed, shuffles=kind == "ridge")
        if size:
            yield span_route(names, states, own, found.map, size, seed)


def _place(request: TransferRequest, target: Read, common: list[str]) -> Place:
    base = _load_base(request, target.subject)
    return Place(base, prompts_only(base, common), target.block)


def _load_base(request: TransferRequest, subject: Subject) -> Model:
    answering = request.answering
    return load_model(local_folder(subject.base), DTYPES[answering.dtype], answering.device)


def _load_tuned(request: TransferRequest, subject: Subject, tuned: str) -> Model:
    answering = request.answering
    base, folder = local_folder(subject.base), local_folder(tuned)
    return load_tuned(base, folder, DTYPES[answering.dtype], answering.device)
