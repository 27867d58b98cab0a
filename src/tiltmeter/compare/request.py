"""One comparison as it was asked for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field, PositiveFloat

from tiltmeter.geometry.similarity import Dims
from tiltmeter.requests import run_record
from tiltmeter.runs.record import RunRecord
from tiltmeter.runs.results import Input
from tiltmeter.updates.files import Reading


@dataclass(frozen=True)
class CompareRequest:
    """One comparison: paths or Hub ids as the user gave them, and how to measure.

    Attributes:
        base: the model that all updates change.
        updates: name -> checkpoint or PEFT adapter of it.
        groups: name -> names of updates.
        initial: name of an update -> its adapter before training, where its initialisation changed the base.
        against_base: compare each update with the base's weights too, all of which are read.
        dims, draws, accuracy, seed: see `compare`.
        io: how tensors are read.
    """

    base: str
    updates: Mapping[str, str]
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    initial: Mapping[str, str] = field(default_factory=dict)
    against_base: bool = False
    dims: Dims = field(default_factory=Dims)
    draws: Annotated[int, Field(ge=2)] = 64
    accuracy: PositiveFloat = 0.01
    io: Reading = "mmap"
    seed: Annotated[int, Field(ge=0)] = 0

    def record(self, inputs: list[Input]) -> RunRecord:
        """What `run.yaml` says of this request."""
        return run_record("compare", self, inputs, self.seed)
