"""`manifest.json`: which files a run wrote, and their hashes."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Literal

from pydantic import Field, ValidationError, field_validator

from tiltmeter.errors import InputError
from tiltmeter.runs.record import check_schema, explain
from tiltmeter.runs.results import SCHEMA, Record

MANIFEST = "manifest.json"
LOCK = ".tiltmeter.lock"
PART = ".tiltmeter-part-"
JOURNAL = ".tiltmeter-journal-"


class Manifest(Record):
    """The files of a run, named relative to its folder.

    Attributes:
        complete: the run came to its end; false while it is under way or after it was killed.
        files: name -> sha256; null for a file that was announced but not finished.
    """

    schema_: Literal["tiltmeter/1"] = Field(default=SCHEMA, alias="schema")
    complete: bool
    files: dict[str, str | None]

    @field_validator("files")
    @classmethod
    def _stay_inside(cls, files: dict[str, str | None]) -> dict[str, str | None]:
        for name in files:
            check_name(name)
        return files


def check_name(name: str) -> PurePosixPath:
    """A file name relative to a run folder.

    Raises:
        InputError: empty, absolute, or leading out of the folder.
    """
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise InputError(f"{name!r}: not a file name inside a run folder")
    return path


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a run folder.

    Raises:
        InputError: missing, broken, or of another schema version.
    """
    path = folder / MANIFEST
    content = read_json(path)
    check_schema(content, path)
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{path}: {explain(error)}") from error


def read_json(path: Path) -> object:
    """The content of a JSON file.

    Raises:
        InputError: missing, unreadable, or not JSON; NaN and Infinity are not JSON.
    """
    try:
        content: object = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError as error:
        raise InputError(f"{path}: not found: not a finished tiltmeter run") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON: {error}") from error
    return content


def to_json(content: object, *, indent: int | None = None) -> str:
    """JSON in plain ASCII.

    Raises:
        ValueError: NaN or Inf.
    """
    return json.dumps(content, allow_nan=False, ensure_ascii=True, indent=indent)


@contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """Write a file that appears whole or not at all: a temporary file beside it, fsync, rename.

    Raises:
        InputError: the disk is full, the folder is read-only, ...
    """
    part = path.with_name(f"{PART}{path.name}")
    try:
        part.unlink(missing_ok=True)  # of a killed writer
        with part.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the names of a folder's files."""
    if os.name == "posix":  # elsewhere a folder cannot be opened
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
