"""`run.yaml`: what was run, in enough detail to run it again."""

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, JsonValue, ValidationError

from tiltmeter.errors import InputError
from tiltmeter.runs.results import SCHEMA, Input, Record

_MOST_BYTES = 4 << 20
PACE = ("workers", "timeout", "retries")


class RunRecord(Record):
    """The verb, its resolved arguments (plain values, ready to call the verb with again) and its provenance."""

    schema_: Literal["tiltmeter/1"] = Field(default=SCHEMA, alias="schema")
    verb: str
    arguments: dict[str, JsonValue]
    inputs: list[Input] = Field(default_factory=list)
    versions: dict[str, str] = Field(default_factory=dict)
    seed: int | None = None

    def to_yaml(self) -> str:
        """The text of `run.yaml`, plain ASCII."""
        return str(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=False, width=120))

    def differences(self, other: "RunRecord") -> Iterator[str]:
        """Each value in which another record differs, by its place: "seed (was 1, is 2)".

        How hard an endpoint is pressed (`PACE`) makes no difference to what is measured.
        """
        mine, theirs = (dict(_leaves(record.model_dump(mode="json"))) for record in (self, other))
        for place in sorted(mine.keys() | theirs.keys()):
            if mine.get(place) != theirs.get(place) and place.rpartition(".")[2] not in PACE:
                yield f"{place} (was {theirs.get(place)}, is {mine.get(place)})"


def _leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Every plain value below a value, with the way to it."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if children is None:
        yield place, value
    for name, child in children or ():
        yield from _leaves(child, f"{place}.{name}" if place else str(name))


def load_run(path: Path) -> RunRecord:
    """Read a `run.yaml` (or the one in a run folder).

    Raises:
        InputError: missing, not YAML, another schema version, or a field that does not fit.
    """
    path = path / "run.yaml" if path.is_dir() else path
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path}: larger than {_MOST_BYTES} bytes: not a run.yaml")
        content: Any = yaml.load(path.read_text(encoding="utf-8"), Loader=_PlainLoader)
    except FileNotFoundError as error:
        raise InputError(f"{path}: not found: not a tiltmeter run") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as YAML: {_first_line(error)}") from error
    check_schema(content, path)
    try:
        return RunRecord.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{path}: {explain(error)}") from error


def tool_versions() -> dict[str, str]:
    """Versions of Python and of the packages that shape a result."""
    versions = {"python": platform.python_version()}
    for package in ("torch", "transformers", "peft", "tiltmeter"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def check_schema(content: object, path: Path) -> dict[str, Any]:
    """The content as a mapping; refuse what was not written by this version of the schema.

    Raises:
        InputError: no mapping, or another `schema`.
    """
    if not isinstance(content, dict) or "schema" not in content:
        raise InputError(f'{path}: not written by tiltmeter: expected a mapping with a "schema" of "{SCHEMA}"')
    if content["schema"] != SCHEMA:
        raise InputError(f'{path}: schema {content["schema"]!r}, but this version reads "{SCHEMA}"')
    return content


def explain(error: ValidationError) -> str:
    """The first fault that pydantic found, in one line: where it is, what is wrong, and how many more there are."""
    first, *others = error.errors(include_url=False, include_context=False)
    where = ".".join(map(str, first["loc"])) or "the whole"
    return f"{where}: {first['msg']}" + (f" (and {len(others)} more)" if others else "")


class _PlainLoader(yaml.SafeLoader):
    """The safe loader without aliases, which can make a small file grow without end."""

    def compose_node(self, parent: Any, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not accepted")
        return super().compose_node(parent, index)


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
