"""A walk along a path: what the model finds of each set of examples, and how it answers, at each point."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tiltmeter.behaviour.harmfulness import Judged, judge_answers
from tiltmeter.behaviour.judges import Judge
from tiltmeter.connect.probe import Probe, Reading
from tiltmeter.generation import Sampling
from tiltmeter.geometry.path import WeightPath
from tiltmeter.models import Model
from tiltmeter.progress import track

Key = tuple[Literal["skill", "data"], str]  # what a set of examples is, and its name


@dataclass(frozen=True)
class Questions:
    """Prompts by the name of their set, who judges the answers, and how they are drawn: by the same seeds everywhere.

    Without a judge nothing is asked.
    """

    prompts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    judge: Judge | None = None
    sampling: Sampling = field(default_factory=Sampling)

    def ask(self, model: Model) -> dict[str, Judged]:
        """The judged answers to each set."""
        if self.judge is None:
            return {}
        return {
            name: judge_answers(model, prompts, self.judge, self.sampling) for name, prompts in self.prompts.items()
        }


@dataclass(frozen=True)
class Place:
    """What was found at one place: readings by set of examples, judged answers by set of prompts."""

    readings: Mapping[Key, Reading]
    judged: Mapping[str, Judged]


@dataclass(frozen=True)
class Walk:
    """What was found at the base, and at each point."""

    base: Place
    points: Mapping[float, Place]


def walk(path: WeightPath, points: Sequence[float], probes: Mapping[Key, Probe], questions: Questions) -> Walk:
    """Goes along a path. The base and both ends are visited once more before, for what the probes keep of them."""
    for probe in probes.values():
        probe.keep_base(path.model)
    for s in (0.0, 1.0):
        with path.at(s) as model:
            for probe in probes.values():
                probe.keep_end(model)
    base = _look(path.model, 0.0 if len(path.ends) == 1 else None, probes, questions)
    found = {}
    for s in track(points, "points"):
        if any(path.coefficients(s)):
            with path.at(s) as model:
                found[s] = _look(model, s, probes, questions)
        else:
            found[s] = base
    return Walk(base, found)


def _look(model: Model, s: float | None, probes: Mapping[Key, Probe], questions: Questions) -> Place:
    return Place({name: probe.read(model, s) for name, probe in probes.items()}, questions.ask(model))
