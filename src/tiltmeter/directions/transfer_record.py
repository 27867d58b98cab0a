"""What was carried where, as it is saved: routes, maps, and who gives and who takes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray

from tiltmeter.activations.controls import isotropic
from tiltmeter.activations.specificity_wording import sentence
from tiltmeter.activations.stability import cosine
from tiltmeter.directions.arms import Arm
from tiltmeter.directions.battery import Question, Tried
from tiltmeter.directions.experiment import Experiment
from tiltmeter.directions.mapped import Mapped
from tiltmeter.directions.routes import Route, States
from tiltmeter.directions.steer_record import control_record, optional
from tiltmeter.directions.transfer_request import MapName, Subject, TransferRequest
from tiltmeter.intervals import mean_interval
from tiltmeter.judge.record import Judged, judge_record, set_records
from tiltmeter.runs import results
from tiltmeter.runs.record import tool_versions
from tiltmeter.runs.results import Input
from tiltmeter.runs.transfer_result import (
    Asymmetry,
    MapRecord,
    Role,
    RouteRecord,
    SubjectRecord,
    TransferResult,
)

COSINES = 1000  # random directions


@dataclass(frozen=True)
class Read:
    """What was read of one model: its states at a block, and the block's number and name."""

    subject: Subject
    states: States
    number: int
    block: str


@dataclass(frozen=True)
class Carried:
    """One route, its arm, and what came of it."""

    route: Route
    arm: Arm
    tried: Tried


@dataclass(frozen=True)
class Walked:
    """All that was tried on one target; maps by source and kind."""

    target: str
    experiment: Experiment
    question: Question
    maps: Mapping[tuple[str, MapName], Mapped]
    carried: Sequence[Carried]

    def effects(self, each: Carried) -> Float[NDArray[np.float64], " P"]:
        """How far the outcome goes the wanted way, by prompt; NaN where it is not known."""
        question = self.question
        plain, steered = (question.values(self.experiment, name) for name in (question.plain, each.arm.name))
        return plain - steered


def transfer_result(
    request: TransferRequest, inputs: list[Input], common: int, read: Mapping[str, Read], walked: Sequence[Walked]
) -> TransferResult:
    """All that the result says."""
    question, experiment = walked[0].question, walked[0].experiment
    verdicts = {key: verdict for each in walked for key, verdict in each.experiment.verdicts.items()}
    checks = [check for each in walked for check in each.experiment.checks]
    routes = [_route(walk, each) for walk in walked for each in walk.carried]
    effects = {
        (each.route.source, each.route.target, each.route.way): walk.effects(each)
        for walk in walked
        for each in walk.carried
    }
    return TransferResult(
        inputs=inputs,
        versions=tool_versions(),
        seed=request.seed,
        dtype=request.answering.dtype,
        warnings=list(_warnings(request, routes)),
        outcome=question.outcome,
        wanted="lower" if question.lower else "higher",
        dose=request.carrying.dose,
        where=request.carrying.where,
        draws=max(each.tried.draws for walk in walked for each in walk.carried),
        common=common,
        models={walk.target: _subject(walk, read[walk.target]) for walk in walked},
        judge=judge_record(request.judge, Judged(verdicts, checks, {})),
        sets=set_records(experiment.material.prompts, request.answering.samples),
        sampling=vars(request.answering.sampling),
        maps=[_map(walk.target, key, found, read, request.seed) for walk in walked for key, found in walk.maps.items()],
        routes=routes,
        roles=list(_roles(effects, list(read))),
        asymmetries=list(_asymmetries(effects, list(read))),
    )


def _subject(walk: Walked, read: Read) -> SubjectRecord:
    outcome, prompts = walk.question.outcome, walk.experiment.material.prompts
    base, tuned = (
        walk.experiment.scored(f"{walk.target}: {role}", outcome, prompts).mean for role in ("base", "tuned")
    )
    return SubjectRecord(
        base=read.subject.base,
        tuned=read.subject.tuned,
        benign=read.subject.benign,
        block=read.block,
        width=read.states.base.shape[1],
        norm=float(read.states.direction.norm()),
        base_outcome=optional(base),
        tuned_outcome=optional(tuned),
    )


def _map(target: str, key: tuple[str, MapName], found: Mapped, read: Mapping[str, Read], seed: int) -> MapRecord:
    source, kind = key
    v, own = (read[name].states.direction for name in (source, target))
    carried = found.map.carry(torch.cat([v[None], isotropic(v, COSINES, seed)]))
    cosines = torch.nn.functional.cosine_similarity(carried, own[None])
    return MapRecord(
        source=source,
        target=target,
        map=kind,
        r2=found.r2,
        r2_shuffled=found.r2_shuffled,
        cosine=cosine(carried[0], own),
        random_cosine=float(cosines[1:].abs().quantile(0.95)),
        effective_rank=found.map.effective_rank,
        norm_ratio=float(carried[0].norm() / own.norm()),
        penalty_at_edge=found.at_edge,
        kl=found.kl,
    )


def _route(walk: Walked, each: Carried) -> RouteRecord:
    (arm,), measured = each.tried.battery.arms, each.tried.battery.arms[0].measured
    return RouteRecord(
        source=each.route.source,
        target=each.route.target,
        way=each.route.way,
        effect=optional(measured.effect),
        p_causal=arm.p_causal,
        p_specific=arm.p_specific,
        can_pass=arm.can_pass,
        verdict=arm.verdict,
        sentence=sentence(each.tried.battery, walk.question.outcome),
        controls=[control_record(control) for control in measured.controls],
        coherence_fall=optional(measured.coherence_fall),
    )


Effects = Mapping[tuple[str, str, str], Float[NDArray[np.float64], " P"]]  # by source, target and way


def _roles(effects: Effects, names: Sequence[str]) -> Iterator[Role]:
    """Means over the other models, by prompt; each prompt's effects stay together in the interval."""
    for way in _ways(effects):
        for name in names:
            gives = [found for (source, target, by), found in effects.items() if (source, by) == (name, way)]
            takes = [found for (source, target, by), found in effects.items() if (target, by) == (name, way)]
            yield Role(model=name, way=way, donor=_mean(gives), receiver=_mean(takes))


def _asymmetries(effects: Effects, names: Sequence[str]) -> Iterator[Asymmetry]:
    for way in _ways(effects):
        for first, second in combinations(names, 2):
            difference = effects[first, second, way] - effects[second, first, way]
            found = _mean([difference])
            if found is not None:
                yield Asymmetry(first=first, second=second, way=way, difference=found)


def _ways(effects: Effects) -> list[str]:
    """Those that lead from one model to another."""
    return list(dict.fromkeys(way for source, target, way in effects if source != target))


def _mean(effects: Sequence[NDArray[np.float64]]) -> results.Interval | None:
    by_prompt = np.mean(np.stack(effects), axis=0)
    known = by_prompt[~np.isnan(by_prompt)]
    return optional(mean_interval(known)) if len(known) else None


def _warnings(request: TransferRequest, routes: Sequence[RouteRecord]) -> Iterator[str]:
    yield (
        f"each of the {len(routes)} routes is tested by itself: where none is specific, one in twenty may be called so"
    )
    if all(subject.benign is None for subject in request.sources.models.values()):
        yield "no benign fine-tune is among the controls: give one, as NAME=BASE,TUNED,BENIGN"
