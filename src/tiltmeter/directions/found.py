"""A direction that an earlier run found, and what the run kept for controls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from tiltmeter.activations.capture import Activations
from tiltmeter.activations.direction import Direction
from tiltmeter.directions.captured import read_activations
from tiltmeter.directions.direction import BESIDE, DIRECTION, SAVED
from tiltmeter.errors import InputError
from tiltmeter.models import Model
from tiltmeter.runs.direction_result import DirectionResult
from tiltmeter.runs.results import Input
from tiltmeter.runs.saved import read_result


@dataclass(frozen=True)
class Found:
    """A direction, the other directions of its run by name, and the run's folder and inputs where there is a run."""

    direction: Direction
    beside: Mapping[str, Direction] = field(default_factory=dict)
    folder: Path | None = None
    inputs: Sequence[Input] = ()

    @cached_property
    def activations(self) -> tuple[Activations, Activations] | None:
        """Of base and tuned; None where the direction is a file alone."""
        if self.folder is None:
            return None
        return read_activations(self.folder, "base"), read_activations(self.folder, "tuned-0")

    def pair(self, block: str) -> tuple[Float[Tensor, "N d"], Float[Tensor, "N d"]] | None:
        """Both models' activations at a block, one row a prompt."""
        found = self.activations
        return None if found is None else (found[0].per_prompt(block), found[1].per_prompt(block))


def load_found(source: str, model: Model) -> Found:
    """The direction of a run folder of `direction`, or of a file.

    Raises:
        InputError: neither, or vectors that do not fit the model.
    """
    path = Path(source)
    found = _from_run(path) if path.is_dir() else Found(Direction.load(path, list(model.blocks)))
    for name, direction in {source: found.direction, **found.beside}.items():
        check_fits(direction, model, name)
    return found


def check_fits(direction: Direction, model: Model, name: str) -> None:
    """Whether a direction's vectors can be added to the model's states.

    Raises:
        InputError: a block that the model does not have, another width, a vector of zeros.
    """
    unknown = [block for block in direction.vectors if block not in model.blocks]
    if unknown:
        raise InputError(f"{name}: has a vector for {unknown[0]}, the model has blocks {', '.join(model.blocks)}")
    width = model.module.config.get_text_config().hidden_size
    for block, vector in direction.vectors.items():
        if len(vector) != width:
            raise InputError(f"{name}: {block}: a vector of width {len(vector)}, the model's states have {width}")
        if not vector.any():
            raise InputError(f"{name}: {block}: a vector of zeros: nothing to steer along")


def _from_run(folder: Path) -> Found:
    result = read_result(folder)
    if not isinstance(result, DirectionResult):
        raise InputError(f"{folder}: expected a run of direction, found one of {result.verb}")
    beside = [Direction.load(path) for path in sorted((folder / SAVED).glob(f"{BESIDE}*.safetensors"))]
    named = {each.about.get("name", str(number)): each for number, each in enumerate(beside, start=1)}
    return Found(Direction.load(folder / SAVED / DIRECTION), named, folder, result.inputs)
