"""What the requests of several verbs share: how passes run, and reading what they name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt, TypeAdapter

from tiltmeter.curvature.fisher import Fisher, Labels, Reduction
from tiltmeter.errors import InputError
from tiltmeter.models import Model, is_adapter, local_folder
from tiltmeter.public_sets.catalogue import PAIR_SETS, PROMPT_SETS
from tiltmeter.public_sets.finding import Found, find_public
from tiltmeter.public_sets.loading import public_prompts, public_skill
from tiltmeter.rows import Row
from tiltmeter.runs.inputs import hash_input
from tiltmeter.runs.record import RunRecord, tool_versions
from tiltmeter.runs.results import Input
from tiltmeter.skills import Skill, load_prompts, load_skill
from tiltmeter.updates.update import Update

Dtype = Literal["float32", "float64", "bfloat16"]
OF_PROMPTS = ("prompts", "watch", "common")  # roles of files that hold prompts alone
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


def load_named(
    sources: Sequence[str],
    columns: Sequence[str] | None,
    option: str,
    reshape: Callable[[Row], Row] | None = None,
) -> dict[str, Skill]:
    """Sets of pairs by name, for an option of the command line; `beavertails` is public (see `public_sets`).

    With `reshape` (see `load_skill`) every source is a file or a Hub set.

    Raises:
        InputError: none given, two of the same name, or one that cannot be read.
    """
    loaded = {skill.name: skill for skill in (_skill(source, columns, reshape) for source in sources)}
    if len(loaded) < len(sources):
        raise InputError(f"{option}: two of the same name among {list(sources)}: rename a file")
    if not loaded:
        raise InputError(f"expected at least one {option} FILE")
    return loaded


def _skill(source: str, columns: Sequence[str] | None, reshape: Callable[[Row], Row] | None) -> Skill:
    found = find_public(source, PAIR_SETS)
    return public_skill(found) if found and reshape is None else load_skill(source, columns, reshape=reshape)


def load_named_prompts(sources: Sequence[str]) -> dict[str, list[str]]:
    """Prompts to answer and judge, by the name of their file or public set; none where there is no source.

    Args:
        sources: each a file of prompts, the name of a public set (`advbench`), or name and file (`advbench=FILE`).

    Raises:
        InputError: two of the same name, or one that cannot be read or found.
    """
    prompts = dict(map(_prompts, sources))
    if len(prompts) < len(sources):
        raise InputError(f"two sets of prompts of the same name among {list(sources)}: rename a file")
    return prompts


def _prompts(source: str) -> tuple[str, list[str]]:
    found = find_public(source, PROMPT_SETS)
    return (found.name, public_prompts(found)) if found else (Path(source).stem, load_prompts(source))


def read_update(base: Path, tuned: Path, initial: str | None = None) -> Update:
    """The update from base to tuned, whichever kind `tuned` is; `initial` as for `Update.from_adapter`."""
    if is_adapter(tuned):
        return Update.from_adapter(tuned, base, None if initial is None else local_folder(initial))
    if initial is not None:
        raise InputError(f"{tuned}: an initial adapter was given, but this is no adapter")
    return Update.between(base, tuned)


def hash_files(files: Mapping[str, Sequence[str]]) -> list[Input]:
    """Every file by its role, with its hash. A Hub set that is no public set of ours has no file to hash."""
    return [made for role, named in files.items() for source in named if (made := _hash(source, role))]


def _hash(source: str, role: str) -> Input | None:
    found = find_public(source, PROMPT_SETS if role in OF_PROMPTS else PAIR_SETS)
    if found:
        return _hash_public(found, role)
    return hash_input(source, role) if Path(source).exists() else None


def _hash_public(found: Found, role: str) -> Input:
    """With links as they are: the snapshot folder of the Hub's cache bears the revision's name."""
    resolved = str(found.path.absolute())
    return hash_input(found.source, role, found.path).model_copy(update={"resolved": resolved})


def run_record(verb: str, request: object, inputs: list[Input], seed: int) -> RunRecord:
    """What `run.yaml` says of a request: a dataclass of plain values, ready to be made again."""
    arguments = TypeAdapter(type(request)).dump_python(request, mode="json")
    return RunRecord(verb=verb, arguments=arguments, inputs=inputs, versions=tool_versions(), seed=seed)
