"""Which direction is wanted, where it is read, and how it is tested."""

from dataclasses import dataclass, field

from pydantic import PositiveInt

from tiltmeter.directions.captured import Reading
from tiltmeter.requests import Dtype, run_record
from tiltmeter.runs.record import RunRecord
from tiltmeter.runs.results import Input


@dataclass(frozen=True)
class DirectionSources:
    """What goes in: paths or Hub ids as the user gave them.

    Attributes:
        base, tuned: the base model, and a checkpoint or a PEFT adapter of it.
        prompts: files of prompts, or public sets by name; of pairs where the tokens of the answer are read.
        beside: other fine-tunes of the base by name, above all a benign one.
    """

    base: str
    tuned: str
    prompts: tuple[str, ...]
    beside: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Tests:
    """Folds of cross-fitting, permutations of the null, draws of halves."""

    folds: PositiveInt = 5
    permutations: PositiveInt = 499
    draws: PositiveInt = 100
    seed: int = 0


@dataclass(frozen=True)
class DirectionRequest:
    """One direction: its sources, where it is read, how it is tested.

    Attributes:
        blocks: numbers of blocks, negative ones from the end; None for all.
        weights: also read the update, to say what it writes along the direction.
    """

    sources: DirectionSources
    blocks: tuple[int, ...] | None = None
    reading: Reading = field(default_factory=Reading)
    tests: Tests = field(default_factory=Tests)
    weights: bool = True
    dtype: Dtype = "float32"
    device: str = "cpu"

    def record(self, inputs: list[Input]) -> RunRecord:
        """What `run.yaml` says of this request."""
        return run_record("direction", self, inputs, self.tests.seed)
