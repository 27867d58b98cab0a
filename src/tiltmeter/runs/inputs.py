"""Hash what goes into a run."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from tiltmeter.errors import InputError
from tiltmeter.runs.results import Input


def hash_file(path: Path) -> str:
    """sha256 of a file in hexadecimal, read in pieces.

    Raises:
        InputError: it is no ordinary file or cannot be read.
    """
    if not path.is_file():
        raise InputError(f"{path}: cannot be hashed: expected an ordinary file")
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def hash_input(given: str | Path, role: str, found: Path | None = None) -> Input:
    """The record of an input: every file of a folder, hidden ones and those behind links included.

    Args:
        given: what the user wrote.
        found: the path it stands for, where that differs (a Hub id's snapshot folder).

    Raises:
        InputError: missing, empty, unreadable, a link that goes nowhere or in a circle, a name that is not UTF-8.
    """
    path = Path(given) if found is None else found
    if not path.exists():
        raise InputError(f"{path}: not found")
    files = dict(_files(path)) if path.is_dir() else {path.name: path}
    if not files:
        raise InputError(f"{path}: the folder holds no file")
    for name in [*files, str(given), str(path.resolve())]:
        if not name.isascii() and any("\ud800" <= letter <= "\udfff" for letter in name):
            raise InputError(f"{name!r}: the file name is not UTF-8")
    hashes = {name: hash_file(files[name]) for name in sorted(files)}
    return Input(path=str(given), role=role, resolved=str(path.resolve()), files=hashes)


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Name relative to the folder (with "/") and path of every file below."""
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=_refuse):
        for name in folders:
            child = Path(parent, name)
            if child.is_symlink() and child.resolve() in [Path(parent).resolve(), *Path(parent).resolve().parents]:
                raise InputError(f"{child}: the link leads back to a folder that holds it")
        for name in names:
            yield Path(parent, name).relative_to(folder).as_posix(), Path(parent, name)


def _refuse(error: OSError) -> None:
    raise InputError(f"{error.filename}: cannot be listed: {error.strerror}") from error
