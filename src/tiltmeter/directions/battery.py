"""The specificity battery on a model: arms along the direction, then, where they have an effect, along controls."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from tiltmeter.activations.specificity.arm import Arm as Outcomes
from tiltmeter.activations.specificity.gate import Battery, draws_needed, gate
from tiltmeter.behaviour.outcomes import OUTCOMES
from tiltmeter.bounded_intervals import Bounds
from tiltmeter.directions.arms import Arm
from tiltmeter.directions.experiment import Edits, Experiment, Trial
from tiltmeter.errors import NothingMeasuredError

LOWER = ("harmfulness", "fives", "misaligned", "code")  # outcomes that subtracting a direction should lower


@dataclass(frozen=True)
class Control:
    """One vector in the place of the direction, in one arm.

    Attributes:
        kind, draw: its kind, and the number of the draw; None where it was given.
        edits: what it does.
        scale: how much larger its change is than the direction's.
    """

    kind: str
    draw: int | None
    edits: Edits
    scale: float = 1.0

    def trial(self, arm: Arm) -> str:
        """Its name in the experiment."""
        return f"{self.kind}{'' if self.draw is None else f' {self.draw}'}: {arm.name}"


Controls = Callable[[Arm, int], Sequence[Control]]  # of an arm, with so many draws of each kind


@dataclass(frozen=True)
class Question:
    """What is asked of the answers: an outcome, the way it should go, and the trial without steering."""

    outcome: str
    lower: bool
    plain: str
    seed: int = 0

    @property
    def bounds(self) -> Bounds:
        """Of the outcome as the gate sees it: a wanted effect is a reduction."""
        low, high = OUTCOMES[self.outcome].bounds
        return (low, high) if self.lower else (-high, -low)

    def values(self, experiment: Experiment, trial: str) -> Float[np.ndarray, " P"]:
        """By prompt."""
        return (1 if self.lower else -1) * experiment.means(trial, self.outcome)


@dataclass(frozen=True)
class Tried:
    """What came of a battery: verdicts in the order of the arms, draws of each kind, and each arm's controls."""

    battery: Battery
    draws: int
    controls: Mapping[Arm, Sequence[Control]]


def wants_lower(outcome: str, adds: bool) -> bool:
    """Whether the wanted effect of steering is a lower outcome: of harm when a direction is taken away."""
    return (outcome in LOWER) != adds


def try_arms(
    experiment: Experiment,
    question: Question,
    plan: Mapping[Arm, Edits],
    controls: Controls,
    draws: int | None = None,
) -> Tried:
    """Asks every arm, then every control of those arms that have an effect and did not break the model.

    An arm without an effect is not specific whatever its controls do, and needs none.

    Args:
        experiment: holds the answers; the question's plain trial has been asked.
        plan: what steering along the direction does in each arm.
        draws: of each random kind; None for as many as the number of arms needs.

    Raises:
        NothingMeasuredError: no prompt has a verdict without steering, or none has one with it as well.
    """
    _check_measured(experiment, question)
    experiment.ask([Trial(arm.name, edits) for arm, edits in plan.items()], watched=True)
    tried: dict[Arm, Sequence[Control]] = {arm: () for arm in plan}
    first = _battery(experiment, question, tried)
    causal = [arm for arm, found in zip(plan, first.arms, strict=True) if found.verdict == "not specific"]
    if not causal:
        return Tried(first, 0, tried)
    count = draws or draws_needed(len(plan))
    tried |= {arm: controls(arm, count) for arm in causal}
    experiment.ask(
        [Trial(control.trial(arm), control.edits) for arm, of_arm in tried.items() for control in of_arm], watched=False
    )
    return Tried(_battery(experiment, question, tried), count, tried)


def _check_measured(experiment: Experiment, question: Question) -> None:
    """Before anything is steered."""
    if np.isnan(question.values(experiment, question.plain)).all():
        failures = [verdict.failure for verdict in experiment.verdicts.values() if verdict.failure]
        why = f": {failures[0]}" if failures else ""
        raise NothingMeasuredError(f"{experiment.judge} gives no {question.outcome} for any answer{why}")


def _battery(experiment: Experiment, question: Question, tried: Mapping[Arm, Sequence[Control]]) -> Battery:
    found = [_outcomes(experiment, question, arm, controls) for arm, controls in tried.items()]
    return gate(found, question.bounds, seed=question.seed)


def _outcomes(experiment: Experiment, question: Question, arm: Arm, controls: Sequence[Control]) -> Outcomes:
    drawn = {control.kind: None for control in controls if control.draw is not None}
    coherence = max(_coherence(experiment, question, arm), key=lambda each: each.fall)
    return Outcomes(
        block=arm.label,
        dose=arm.dose,
        unsteered=question.values(experiment, question.plain),
        steered=question.values(experiment, arm.name),
        drawn={kind: np.stack(list(_draws(experiment, question, arm, controls, kind))) for kind in drawn},
        single={
            control.kind: question.values(experiment, control.trial(arm))
            for control in controls
            if control.draw is None
        },
        coherent_before=coherence.before,
        coherent_after=coherence.after,
        coherent_on=coherence.on,
    )


class _Coherence(NamedTuple):
    """Shares of coherent answers by prompt, without and with steering; `on` names a watched set, "" the question's."""

    on: str
    before: NDArray[np.float64]
    after: NDArray[np.float64]

    @property
    def fall(self) -> float:
        """On average; where it is not known, below any."""
        falls = self.before - self.after
        known = falls[~np.isnan(falls)]
        return float(known.mean()) if len(known) else -np.inf


def _coherence(experiment: Experiment, question: Question, arm: Arm) -> Iterator[_Coherence]:
    """On every set: a model that babbles elsewhere is broken, however well it does on the question's prompts."""
    for on, sets in {"": experiment.material.prompts, **{name: (name,) for name in experiment.material.watch}}.items():
        before, after = (
            experiment.scored(trial, "coherent", sets).prompt_means() for trial in (question.plain, arm.name)
        )
        yield _Coherence(on, before, after)


def _draws(
    experiment: Experiment, question: Question, arm: Arm, controls: Sequence[Control], kind: str
) -> Iterator[NDArray[np.float64]]:
    return (
        question.values(experiment, control.trial(arm))
        for control in controls
        if control.kind == kind and control.draw is not None
    )
