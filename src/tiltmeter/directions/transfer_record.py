"""What was carried where, as it is saved."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from tiltmeter.activations.separation.stability import cosine
from tiltmeter.activations.specificity.controls import isotropic
from tiltmeter.activations.specificity.wording import sentence
from tiltmeter.directions.arms import Arm
from tiltmeter.directions.battery import Question, Tried
from tiltmeter.directions.experiment import Experiment, Material
from tiltmeter.directions.mapped import Mapped
from tiltmeter.directions.routes import Route, States
from tiltmeter.directions.steer_record import control_record, optional
from tiltmeter.directions.subjects import Outline
from tiltmeter.directions.topology import Sides, asymmetries, roles
from tiltmeter.directions.transfer_request import TransferRequest
from tiltmeter.generation import Answer
from tiltmeter.judge.answers import Key
from tiltmeter.judge.record import Judged, judge_record, set_records
from tiltmeter.runs.record import tool_versions
from tiltmeter.runs.results import Input
from tiltmeter.runs.transfer_result import (
    MapRecord,
    RouteRecord,
    SubjectRecord,
    TransferResult,
)

COSINES = 1000  # random directions


@dataclass(frozen=True)
class Carried:
    """One route, its arm, and what came of it."""

    route: Route
    arm: Arm
    tried: Tried


@dataclass(frozen=True)
class Walked:
    """All that was tried on one target; without models, of which one after another is in memory."""

    subject: SubjectRecord
    question: Question
    maps: Sequence[MapRecord]
    routes: Sequence[RouteRecord]
    sides: Sequence[Sides]
    draws: int
    answers: Mapping[Key, Answer]
    judged: Judged


def map_record(names: tuple[str, str], source: States, target: States, found: Mapped, seed: int) -> MapRecord:
    """A map, and where it carries the source's direction."""
    v, own = source.direction, target.direction
    carried = found.map.carry(torch.cat([v[None], isotropic(v, COSINES, seed)]))
    random = torch.nn.functional.cosine_similarity(carried[1:], own[None])
    return MapRecord(
        source=names[0],
        target=names[1],
        map=found.map.name,
        r2=found.r2,
        r2_shuffled=found.r2_shuffled,
        cosine=cosine(carried[0], own),
        random_cosine=float(random.abs().quantile(0.95)),
        effective_rank=found.map.effective_rank,
        norm_ratio=float(carried[0].norm() / own.norm()),
        penalty_at_edge=found.at_edge,
        kl=found.kl,
        kl_ridge=found.kl_ridge,
    )


def subject_record(found: Outline, states: States, experiment: Experiment, question: Question) -> SubjectRecord:
    """A model, and its outcome without steering."""
    prompts = experiment.material.prompts
    base, tuned = (
        experiment.scored(trial, question.outcome, prompts).mean for trial in (f"{found.name}: base", question.plain)
    )
    return SubjectRecord(
        base=found.subject.base,
        tuned=found.subject.tuned,
        benign=found.subject.benign,
        block=found.block,
        width=states.base.shape[1],
        norm=float(states.direction.norm()),
        base_outcome=optional(base),
        tuned_outcome=optional(tuned),
    )


def walked(
    subject: SubjectRecord,
    experiment: Experiment,
    question: Question,
    maps: Sequence[MapRecord],
    carried: Sequence[Carried],
) -> Walked:
    """Everything of an experiment that is saved."""
    plain = question.values(experiment, question.plain)
    return Walked(
        subject,
        question,
        maps,
        [_route(each, question.outcome) for each in carried],
        [Sides(plain, question.values(experiment, each.arm.name)) for each in carried],
        max(each.tried.draws for each in carried),
        experiment.answers,
        Judged(experiment.verdicts, experiment.checks, {}),
    )


def transfer_result(
    request: TransferRequest,
    inputs: list[Input],
    outlines: Sequence[Outline],
    material: Material,
    walks: Sequence[Walked],
) -> TransferResult:
    """All that the result says."""
    question, names, draws = walks[0].question, [each.name for each in outlines], max(walk.draws for walk in walks)
    verdicts = {key: verdict for walk in walks for key, verdict in walk.judged.verdicts.items()}
    checks = [check for walk in walks for check in walk.judged.checks]
    routes = [route for walk in walks for route in walk.routes]
    sides = {
        (route.source, route.target, route.way): each
        for walk in walks
        for route, each in zip(walk.routes, walk.sides, strict=True)
    }
    return TransferResult(
        inputs=inputs,
        versions=tool_versions(),
        seed=request.seed,
        dtype=request.answering.dtype,
        warnings=list(_warnings(request, outlines, routes, draws)),
        outcome=question.outcome,
        wanted="lower" if question.lower else "higher",
        dose=request.carrying.dose,
        where=request.carrying.where,
        span=request.carrying.span,
        draws=draws,
        common=len(outlines[0].texts),
        models={name: walk.subject for name, walk in zip(names, walks, strict=True)},
        judge=judge_record(request.judge, Judged(verdicts, checks, {})),
        sets=set_records(material.prompts, request.answering.samples),
        watched=set_records(material.watch, request.answering.samples),
        sampling=vars(request.answering.sampling),
        maps=[found for walk in walks for found in walk.maps],
        routes=routes,
        roles=list(roles(sides, names, question.bounds)),
        asymmetries=list(asymmetries(sides, names, question.bounds)),
    )


def _route(each: Carried, outcome: str) -> RouteRecord:
    (arm,) = each.tried.battery.arms
    return RouteRecord(
        source=each.route.source,
        target=each.route.target,
        way=each.route.way,
        effect=optional(arm.measured.effect),
        p_causal=arm.p_causal,
        p_specific=arm.p_specific,
        can_pass=arm.can_pass,
        verdict=arm.verdict,
        sentence=sentence(each.tried.battery, outcome),
        controls=[control_record(control) for control in arm.measured.controls],
        coherence_fall=optional(arm.measured.coherence_fall),
        coherent_on=arm.measured.coherent_on or None,
    )


def _warnings(
    request: TransferRequest, outlines: Sequence[Outline], routes: Sequence[RouteRecord], draws: int
) -> Iterator[str]:
    yield (
        f"each of the {len(routes)} routes is tested by itself: where none is specific, one in twenty may be called so"
    )
    ends = [each.name for each in outlines if each.is_at_end]
    if ends and request.carrying.where != "all":
        yield (
            f"{', '.join(ends)}: at the last block, an edit of prompt tokens changes the first generated token only; "
            "--where all steers every token"
        )
    if all(each.subject.benign is None for each in outlines):
        yield "no benign fine-tune is among the controls: give one, as NAME=BASE,TUNED,BENIGN"
    for each in outlines:
        for tuned in each.templates:
            yield f"{tuned}: its chat template differs from the base's, by which all models read the common prompts"
    if any(route.controls and not route.can_pass for route in routes):
        yield (f"so few draws of each control ({draws}), or so few prompts, cannot make a route specific: see --draws")
