"""A model answers prompts while it is steered in one way after another; a judge judges the answers."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float

from tiltmeter.activations.hook_points import Place
from tiltmeter.activations.steering import Edit, Where, steered
from tiltmeter.behaviour.judges import Judge, Verdict
from tiltmeter.behaviour.outcomes import Scored, score
from tiltmeter.errors import InputError
from tiltmeter.generation import Answer
from tiltmeter.judge.answers import Answerer, AnswerLine, Key, Sets
from tiltmeter.judge.checks import canaries_for
from tiltmeter.judge.request import Answering
from tiltmeter.judge.verdicts import Judging, VerdictLine
from tiltmeter.models import Model
from tiltmeter.progress import track
from tiltmeter.requests import load_named_prompts
from tiltmeter.runs.folder import RunFolder

Edits = Mapping[str, Edit]


@dataclass(frozen=True)
class Trial:
    """One way to steer: a name of its own, and what is done to the hidden states of blocks; nothing for none."""

    name: str
    edits: Edits


@dataclass(frozen=True)
class Material:
    """Prompts that the question is about, and others that are watched for side effects; by name of their set."""

    prompts: Sets
    watch: Sets


def load_material(prompts: Sequence[str], watch: Sequence[str]) -> Material:
    """From files or public sets.

    Raises:
        InputError: one that cannot be read, none at all of the first kind, the same name twice.
    """
    if not prompts:
        raise InputError("expected at least one --prompts FILE")
    material = Material(load_named_prompts(prompts), load_named_prompts(watch))
    both = material.prompts.keys() & material.watch.keys()
    if both:
        raise InputError(f"--prompts, --watch: both have a set {min(both)}: rename a file")
    return material


class Experiment:
    """Trials on one model, all with the same prompts and seeds.

    Each answer and each verdict is kept when it comes: a run that goes on after a kill asks what is missing only.

    Args:
        run: the run folder, started.
        load: gives the model; called when the first answer is missing.
        where, place: which hidden states are edited; see `steered`.

    Attributes:
        material: the prompts.
        judge: its name.
        answers: every one so far, and `verdicts` on them.
        checks: what the judge said of answers of known worth.
    """

    def __init__(
        self,
        run: RunFolder,
        load: Callable[[], Model],
        material: Material,
        judge: Judge,
        answering: Answering,
        where: Where,
        place: Place,
    ) -> None:
        self.answers: dict[Key, Answer] = {}
        self.verdicts: dict[Key, Verdict] = {}
        self._load, self._where, self._place = cache(load), where, place
        self.material = material
        journal = run.journal("answers", AnswerLine)
        self._answerers = {
            is_watched: Answerer(sets, answering, journal)
            for is_watched, sets in ((False, material.prompts), (True, material.watch))
        }
        canaries = {judge.name: canaries_for(judge.name, ())}
        seed = answering.sampling.seed
        self._judging = Judging({judge.name: judge}, canaries, run.journal("verdicts", VerdictLine), seed)
        self.judge, self._samples = judge.name, answering.samples
        self.checks = self._judging.checks[judge.name]

    def ask(self, trials: Sequence[Trial], watched: bool, load: Callable[[], Model] | None = None) -> None:
        """Let the model answer in each trial, then have all the answers judged.

        Args:
            trials: each with a name that no other trial of the experiment has.
            watched: also answer the prompts that are watched for side effects.
            load: another model in the place of the experiment's.
        """
        for trial in track(trials, "steering", len(trials)):
            for is_watched, answerer in self._answerers.items():
                if watched or not is_watched:
                    answerer.answer(trial.name, load or self._load, self._context(trial.edits))
        every = {key: answer for each in self._answerers.values() for key, answer in each.answers.items()}
        new = {key: answer for key, answer in every.items() if key not in self.answers}
        self.answers.update(new)
        self.verdicts.update(self._judging.judge(new)[self.judge])

    def means(self, trial: str, outcome: str) -> Float[np.ndarray, " P"]:
        """An outcome's mean over each prompt's answers, for the prompts that the question is about; NaN for none."""
        return self.scored(trial, outcome, self.material.prompts).prompt_means()

    def scored(self, trial: str, outcome: str, sets: Iterable[str]) -> Scored:
        """An outcome of a trial on some sets of prompts."""
        every = {**self.material.prompts, **self.material.watch}
        keys = [
            (trial, name, row, sample)
            for name in sets
            for row in range(len(every[name]))
            for sample in range(self._samples)
        ]
        return score(outcome, [self.verdicts[key] for key in keys], [self.answers[key].prompt for key in keys])

    def _context(self, edits: Edits) -> Callable[[Model], AbstractContextManager[None]]:
        return lambda model: steered(model, edits, self._where, self._place)
