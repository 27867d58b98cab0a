"""Is a run folder still what its run wrote, and are its inputs still what it read?"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tiltmeter.errors import InputError
from tiltmeter.runs.inputs import hash_file, hash_input
from tiltmeter.runs.manifest import LOCK, MANIFEST, Manifest, read_manifest
from tiltmeter.runs.record import load_run
from tiltmeter.runs.results import Input
from tiltmeter.runs.saved import parse_result

Kind = Literal["missing", "changed", "extra", "unfinished", "unreadable", "input changed", "input gone"]


@dataclass(frozen=True)
class Problem:
    """One way in which a run folder is not what it should be; `path` is relative to it, or an input's path."""

    kind: Kind
    path: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.path}: {self.detail}"


def verify(folder: Path) -> list[Problem]:
    """Every problem of a run folder and of the runs inside it; none when all is as its run left it.

    Raises:
        InputError: no run folder at all (no readable manifest).
    """
    manifest = read_manifest(folder)
    problems = [] if manifest.complete else [Problem("unfinished", MANIFEST, "the run did not come to its end")]
    problems += _outputs(folder, manifest)
    inputs: dict[str, Input] = {}
    for inner in [folder, *_runs_inside(folder)]:
        problems += _contents(folder, inner, inputs)
    return problems + [problem for given in inputs.values() for problem in changes(given)]


def _outputs(folder: Path, manifest: Manifest) -> Iterator[Problem]:
    for name, expected in manifest.files.items():
        path = folder / name
        if expected is None or path.is_symlink():
            yield Problem("changed", name, "never finished" if expected is None else "replaced by a link")
        elif not path.is_file():
            yield Problem("missing", name, "the manifest lists it, the folder does not hold it")
        elif (found := hash_file(path)) != expected:
            yield Problem("changed", name, f"sha256 {found[:12]}..., the manifest has {expected[:12]}...")
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_dir() and path.name != LOCK and name != MANIFEST and name not in manifest.files:
            yield Problem("extra", name, "not written by this run")


def _runs_inside(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.rglob(MANIFEST) if path.parent != folder)


def _contents(top: Path, folder: Path, inputs: dict[str, Input]) -> Iterator[Problem]:
    """Do record and result fit the schema? Collects the inputs that they name."""
    try:
        inputs.update((given.model_dump_json(), given) for given in load_run(folder / "run.yaml").inputs)
    except InputError as error:
        yield Problem("unreadable", (folder / "run.yaml").relative_to(top).as_posix(), str(error))
    try:
        parse_result(folder / "result.json")
    except InputError as error:
        yield Problem("unreadable", (folder / "result.json").relative_to(top).as_posix(), str(error))


def changes(given: Input) -> Iterator[Problem]:
    """What is no longer as it was in one input of a run."""
    where = Path(given.resolved)
    if not where.exists():
        yield Problem("input gone", given.path, f"{given.role}: nothing at {given.resolved}")
        return
    try:
        found = hash_input(given.path, given.role, where).files
    except InputError as error:
        yield Problem("input changed", given.path, str(error))
        return
    for name in sorted(given.files.keys() | found.keys()):
        if name not in found:
            yield Problem("input gone", given.path, f"{given.role}: {name} is no longer there")
        elif name not in given.files:
            yield Problem("input changed", given.path, f"{given.role}: {name} was not there before")
        elif found[name] != given.files[name]:
            yield Problem("input changed", given.path, f"{given.role}: {name} has another content")
