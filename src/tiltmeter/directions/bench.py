"""The model on the bench: the direction that it is steered along, the controls, and what else steering does to it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tiltmeter.activations.direction import Direction
from tiltmeter.activations.neutral import matching_scale, steering_kl
from tiltmeter.activations.steering import steered
from tiltmeter.behaviour.capability import task_accuracy
from tiltmeter.behaviour.tasks import Task
from tiltmeter.directions.arms import Arm, Vectors, drawn, edits, given
from tiltmeter.directions.battery import Control
from tiltmeter.directions.experiment import Edits
from tiltmeter.directions.found import Found
from tiltmeter.directions.steer_request import SteerRequest
from tiltmeter.generation import GREEDY
from tiltmeter.intervals import Interval
from tiltmeter.models import Model
from tiltmeter.progress import track
from tiltmeter.tokens import Encoded


@dataclass(frozen=True)
class Bench:
    """Attributes:
    model: that is steered.
    found, beside: the direction, and further ones by name.
    neutral: pairs for the KL divergence; tasks: for accuracy. Empty where they are not asked for.
    """

    request: SteerRequest
    model: Model
    found: Found
    beside: Mapping[str, Direction]
    neutral: Sequence[Encoded]
    tasks: Sequence[Task]

    def edits(self, arm: Arm, along: Vectors | None = None, scale: float = 1.0) -> Edits:
        """What an arm does, along the direction or along a control."""
        return edits(self.request.steering.change, arm, self.found.direction.vectors, along, scale)

    def controls(self, arm: Arm, draws: int) -> list[Control]:
        """Every control of an arm, as far from the model as the direction is."""
        listed, scale = list(self._vectors(arm, draws)), self._scale(arm)
        made = []
        for kind, draw, along in track(listed, f"controls of {arm.name}", len(listed)):
            factor = scale(along)
            made.append(Control(kind, draw, self.edits(arm, along, factor), factor))
        return made

    def kl(self, change: Edits) -> float:
        """Of the model from itself when it is changed, on the neutral pairs; nats per token."""
        place, size = self.found.direction.place, self.request.answering.batch_size
        return steering_kl(self.model, self.neutral, change, self.request.steering.where, place, size)

    def accuracy(self, change: Edits) -> Interval:
        """Share of the tasks that the changed model does right."""
        answering = self.request.answering
        how = replace(GREEDY, max_new_tokens=answering.sampling.max_new_tokens)
        with steered(self.model, change, self.request.steering.where, self.found.direction.place):
            return task_accuracy(self.model, self.tasks, how, answering.batch_size).accuracy

    def _vectors(self, arm: Arm, draws: int) -> Iterator[tuple[str, int | None, Vectors]]:
        for kind, of_kind in drawn(self.found, arm, draws, self.request.seed).items():
            yield from ((kind, number, along) for number, along in enumerate(of_kind, start=1))
        for name, along in given(self.found, arm, list(self.model.blocks), self.beside):
            yield name, None, along

    def _scale(self, arm: Arm) -> Callable[[Vectors], float]:
        """By how much a control's change is to be larger than the direction's."""
        if self.request.gate.match == "norm":
            return lambda along: 1.0
        target = self.kl(self.edits(arm))
        return lambda along: matching_scale(lambda scale: self.kl(self.edits(arm, along, scale)), target)
