"""What the requests of several verbs share: how passes run, and reading what they name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt, TypeAdapter

from tiltmeter.curvature.fisher import Fisher, Labels, Reduction
from tiltmeter.errors import InputError
from tiltmeter.models import Model
from tiltmeter.runs.inputs import hash_input
from tiltmeter.runs.record import RunRecord, tool_versions
from tiltmeter.runs.results import Input
from tiltmeter.skills import Skill, load_prompts, load_skill

Dtype = Literal["float32", "float64", "bfloat16"]
DTYPES: dict[Dtype, torch.dtype] = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Passes:
    """How the passes over a skill run; see `Fisher`. `memory` is in GiB."""

    labels: Labels = "data"
    reduction: Reduction = "sum"
    max_length: Annotated[int, Field(ge=2)] | None = None
    batch_size: PositiveInt = 8
    memory: NonNegativeFloat = 4.0

    def fisher(self, base: Model, skill: Skill) -> Fisher:
        """The Fisher information of a skill at a model."""
        return Fisher(
            base,
            skill,
            self.labels,
            self.reduction,
            batch_size=self.batch_size,
            max_length=self.max_length,
            memory=int(self.memory * 2**30),
        )


def load_named(sources: Sequence[str], columns: Sequence[str] | None, option: str) -> dict[str, Skill]:
    """Sets of pairs by name, for an option of the command line.

    Raises:
        InputError: none given, two of the same name, or one that cannot be read.
    """
    loaded = {skill.name: skill for skill in (load_skill(source, columns) for source in sources)}
    if len(loaded) < len(sources):
        raise InputError(f"{option}: two of the same name among {list(sources)}: rename a file")
    if not loaded:
        raise InputError(f"expected at least one {option} FILE")
    return loaded


def load_named_prompts(files: Sequence[str]) -> dict[str, list[str]]:
    """Prompts to answer and judge, by the name of their file; none where there is no file.

    Raises:
        InputError: two of the same name, or one that cannot be read.
    """
    prompts = {Path(file).stem: load_prompts(file) for file in files}
    if len(prompts) < len(files):
        raise InputError(f"two sets of prompts of the same name among {list(files)}: rename a file")
    return prompts


def hash_files(files: Mapping[str, Sequence[str]]) -> list[Input]:
    """Every file by its role, with its hash. A Hub set has no file to hash."""
    return [hash_input(file, role) for role, named in files.items() for file in named if Path(file).exists()]


def run_record(verb: str, request: object, inputs: list[Input], seed: int) -> RunRecord:
    """What `run.yaml` says of a request: a dataclass of plain values, ready to be made again."""
    arguments = TypeAdapter(type(request)).dump_python(request, mode="json")
    return RunRecord(verb=verb, arguments=arguments, inputs=inputs, versions=tool_versions(), seed=seed)
