"""What models make of given texts, beside a reference: skills, tasks with an answer, plain texts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeAlias

from tiltmeter.behaviour.capability import task_accuracy
from tiltmeter.behaviour.perplexity import perplexity
from tiltmeter.behaviour.tasks import Task, load_tasks
from tiltmeter.behaviour.utility import CompletionFigure, base_kl, utility_loss
from tiltmeter.errors import InputError
from tiltmeter.generation import GREEDY
from tiltmeter.judge.request import Answering, JudgingSources
from tiltmeter.judge.texts import load_texts
from tiltmeter.models import Model
from tiltmeter.progress import track
from tiltmeter.requests import load_named
from tiltmeter.runs.journal import Journal
from tiltmeter.runs.results import Record
from tiltmeter.skills import Skill
from tiltmeter.tokens import encode_within

Kind: TypeAlias = Literal["utility_loss", "kl", "accuracy", "loss"]
Key: TypeAlias = tuple[Kind, str, str]  # kind, set, model
Load: TypeAlias = Callable[[], Model]


class ReadingLine(Record):
    """A figure of one model on N examples, tasks or texts: of each its value, and how many tokens it has.

    Attributes:
        kind: "utility_loss" and "kl" against the reference, in nats, summed over tokens; "accuracy", 1 where right;
            "loss" of a text, in nats, summed over tokens.
        weights: tokens; 1 for a task.
    """

    kind: Kind
    name: str
    model: str
    values: list[float]
    weights: list[float]

    @property
    def key(self) -> Key:
        """Which figure it is."""
        return self.kind, self.name, self.model


@dataclass(frozen=True)
class Material:
    """What models are to read, by name."""

    skills: Mapping[str, Skill] = field(default_factory=dict)
    tasks: Mapping[str, Sequence[Task]] = field(default_factory=dict)
    texts: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def keys(self, model: str, reference: str | None) -> Iterator[Key]:
        """Every figure of a model."""
        if model != reference:
            yield from ((kind, name, model) for name in self.skills for kind in ("utility_loss", "kl"))
        yield from (("accuracy", name, model) for name in self.tasks)
        yield from (("loss", name, model) for name in self.texts)


def load_material(sources: JudgingSources) -> Material:
    """Skills, tasks and texts of a request.

    Raises:
        InputError: a file that cannot be read, or two of the same name.
    """
    skills = load_named(sources.skills, sources.columns, "--skill") if sources.skills else {}
    tasks = {Path(file).stem: load_tasks(file) for file in sources.tasks}
    texts = {Path(file).stem: load_texts(file) for file in sources.texts}
    for option, given, found in (("--tasks", sources.tasks, tasks), ("--text", sources.texts, texts)):
        if len(found) < len(given):
            raise InputError(f"{option}: two of the same name among {list(given)}: rename a file")
    return Material(skills, tasks, texts)


class Reader:
    """Lets models read; a run that goes on after a kill reads only what is missing."""

    def __init__(self, material: Material, answering: Answering, journal: Journal[ReadingLine]) -> None:
        self.readings = {line.key: line for line in journal.records}
        self._material, self._answering, self._journal = material, answering, journal

    @property
    def compares(self) -> bool:
        """Whether models are read against the reference."""
        return bool(self._material.skills)

    def read(self, model: str, load: Load, reference: str | None, load_reference: Load) -> None:
        """All figures of a model; neither it nor the reference is loaded where nothing is missing."""
        missing = [key for key in self._material.keys(model, reference) if key not in self.readings]
        for kind, name, _ in track(missing, f"{model} reads"):
            values, weights = self._figure(kind, name, load, load_reference)
            line = ReadingLine(kind=kind, name=name, model=model, values=values, weights=weights)
            self._journal.append(line)
            self.readings[line.key] = line

    def _figure(self, kind: Kind, name: str, load: Load, load_reference: Load) -> tuple[list[float], list[float]]:
        match kind:
            case "accuracy":
                return self._accuracy(load(), self._material.tasks[name])
            case "loss":
                found = perplexity(load(), self._material.texts[name])
                return found.losses.tolist(), found.tokens.tolist()
        figure = self._against(kind, load_reference(), load(), self._material.skills[name])
        return figure.by_example.tolist(), figure.tokens.tolist()

    def _against(self, kind: Kind, reference: Model, model: Model, skill: Skill) -> CompletionFigure:
        encoded = encode_within(reference, skill)
        return (utility_loss if kind == "utility_loss" else base_kl)(reference, model, encoded)

    def _accuracy(self, model: Model, tasks: Sequence[Task]) -> tuple[list[float], list[float]]:
        how = replace(GREEDY, max_new_tokens=self._answering.sampling.max_new_tokens)
        right = task_accuracy(model, tasks, how, self._answering.batch_size).right
        return right.tolist(), [1.0] * len(right)
