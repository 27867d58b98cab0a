"""The folder that one run writes: created, locked, filled, sealed with a manifest."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, TypeAlias, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from pydantic import BaseModel
from safetensors.numpy import save as save_arrays

from tiltmeter.errors import InputError
from tiltmeter.runs.inputs import hash_file
from tiltmeter.runs.journal import Journal
from tiltmeter.runs.manifest import JOURNAL, LOCK, MANIFEST, PART, Manifest, atomic, check_name, read_manifest, to_json
from tiltmeter.runs.record import RunRecord, load_run
from tiltmeter.runs.results import Record, Result

R = TypeVar("R", bound=Record)
Table: TypeAlias = pa.Table | list[dict[str, Any]]


class RunFolder:
    """One writer's hold on a run folder.

        with RunFolder(path) as run:
            run.write_record(record)
            run.write_result(result)

    Opening takes the lock and changes nothing else, so that bad input leaves an earlier run in place; `write_record`
    removes that earlier run, `resume_or_start` goes on with it where it did not finish. Each file appears whole or not
    at all, journals line by line. Leaving without an error seals the folder: the manifest then holds the hash of every
    file. Files that no tiltmeter run wrote are never touched.

    Raises:
        InputError: the folder holds files but no run, another process writes to it, or the disk refuses.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path / LOCK, timeout=0)
        self._files: dict[str, str | None] = {}
        self._folders: set[str] = set()
        self._started = False
        self._is_new = False

    def __enter__(self) -> "RunFolder":
        self._is_new = not self.path.exists()
        if not self._is_new and not self.path.is_dir():
            raise InputError(f"{self.path}: expected a folder, found a file")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            _check_ours(self.path)
            self._lock.acquire()
        except Timeout as error:
            raise InputError(f"{self.path}: another process is writing to this run folder") from error
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written: {error.strerror}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._started:
                self._seal()
        finally:
            self._lock.release()
            if self._is_new and not self._started:
                (self.path / LOCK).unlink(missing_ok=True)
                self.path.rmdir()

    def write_record(self, record: RunRecord) -> None:
        """Start the run: remove what an earlier run left here, then write `run.yaml`."""
        _remove_earlier(self.path)
        self._started = True
        self._write_manifest(complete=False)
        self._write("run.yaml", record.to_yaml().encode("ascii"))

    def resume_or_start(self, record: RunRecord) -> bool:
        """Go on with the unfinished run of this very record, else start as `write_record` does.

        Files and sub-folders of the unfinished run stay and may be written again; its journals hold their records.

        Returns:
            Whether there was a run to go on with.

        Raises:
            InputError: an unfinished run with other arguments, inputs or versions; it says which.
        """
        unfinished = _unfinished(self.path)
        if unfinished is None:
            self.write_record(record)
            return False
        if differences := list(record.differences(unfinished)):
            raise InputError(
                f"{self.path}: holds an unfinished run that differs in {_first(differences)}: finish it with "
                f"tiltmeter run {self.path / 'run.yaml'}, choose another folder, or delete this one"
            )
        _remove_parts(self.path)
        self._files = dict.fromkeys(read_manifest(self.path).files)
        self._folders = {name.removesuffix("/") for name in self._files if name.endswith("/")}
        self._started = True
        return True

    def journal(self, name: str, kind: type[R]) -> Journal[R]:
        """A journal, with what this run had written to it before it was killed; gone once the folder is sealed."""
        assert self._started, "write_record comes first"
        return Journal(self.path, name, kind)

    def write_result(self, result: Result) -> None:
        """Write `result.json`."""
        self._write("result.json", to_json(result.model_dump(mode="json"), indent=1).encode("ascii") + b"\n")

    def write_table(self, name: str, table: Table) -> None:
        """Write `NAME.parquet` from an Arrow table or from rows."""
        table = pa.Table.from_pylist(table) if isinstance(table, list) else table
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        self._write(f"{name}.parquet", sink.getvalue().to_pybytes())

    def write_arrays(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write `NAME.safetensors`."""
        whole = {key: np.ascontiguousarray(array) for key, array in arrays.items()}
        self._write(f"{name}.safetensors", save_arrays(whole))

    def write_lines(self, name: str, rows: Iterable[BaseModel]) -> None:
        """Write `NAME.jsonl`, one record a line."""
        lines = (to_json(row.model_dump(mode="json")).encode("ascii") + b"\n" for row in rows)
        self._write(f"{name}.jsonl", b"".join(lines))

    def folder(self, name: str) -> Path:
        """A sub-folder for other writers (a model's own `save_pretrained`, a run of its own); sealed with the rest."""
        assert self._started, "write_record comes first"
        path = self.path / check_name(name)
        if name not in self._folders and path.exists():
            raise InputError(f"{path}: in the way, and not written by tiltmeter")
        self._folders.add(name)
        self._files[f"{name}/"] = None
        self._write_manifest(complete=False)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def _write(self, name: str, content: bytes) -> None:
        assert self._started, "write_record comes first"
        path = self.path / check_name(name)
        if name not in self._files:
            if path.exists() or path.is_symlink():
                raise InputError(f"{path}: in the way, and not written by tiltmeter")
            self._files[name] = None
            self._write_manifest(complete=False)
        with atomic(path) as stream:
            stream.write(content)

    def _write_manifest(self, complete: bool) -> None:
        content = Manifest(complete=complete, files=self._files).model_dump(mode="json")
        with atomic(self.path / MANIFEST) as stream:
            stream.write(to_json(content, indent=1).encode("ascii") + b"\n")

    def _seal(self) -> None:
        names = {name for name in self._files if not name.endswith("/")}
        for folder in self._folders:
            below = (path for path in (self.path / folder).rglob("*") if path.is_file() and path.name != LOCK)
            names.update(path.relative_to(self.path).as_posix() for path in below)
        self._files = {name: hash_file(self.path / name) for name in sorted(names)}
        self._write_manifest(complete=True)
        _remove_journals(self.path)


def _check_ours(path: Path) -> None:
    names = {
        entry.name for entry in path.iterdir() if entry.name != LOCK and not entry.name.startswith((PART, JOURNAL))
    }
    if not names:
        return
    if MANIFEST not in names:
        raise InputError(f"{path}: not empty, and no tiltmeter run: choose a new folder")
    read_manifest(path)


def _unfinished(path: Path) -> RunRecord | None:
    """The record of the unfinished run in a folder, None where there is none, or it had only begun."""
    if not (path / MANIFEST).exists() or read_manifest(path).complete or not (path / "run.yaml").exists():
        return None
    return load_run(path)


def _first(texts: Sequence[str]) -> str:
    return "; ".join(texts[:3]) + (f" and {len(texts) - 3} more" if len(texts) > 3 else "")


def _remove_parts(path: Path) -> None:
    for part in path.glob(f"{PART}*"):
        part.unlink()


def _remove_journals(path: Path) -> None:
    for journal in path.glob(f"{JOURNAL}*"):
        journal.unlink()


def _remove_earlier(path: Path) -> None:
    """Delete what the manifest of an earlier run lists, and the temporary file and journals of a killed one."""
    _remove_parts(path)
    _remove_journals(path)
    if not (path / MANIFEST).exists():
        return
    names = read_manifest(path).files
    for name in names:
        target = path / name
        if not target.parent.resolve().is_relative_to(path.resolve()):
            raise InputError(f"{target}: the manifest names a file behind a link that leads out of the run folder")
        if name.endswith("/"):
            shutil.rmtree(target, ignore_errors=True)
        else:
            target.unlink(missing_ok=True)
    _remove_empty(path, names)


def _remove_empty(path: Path, names: Iterable[str]) -> None:
    """Remove the sub-folders that held the files `names`, where nothing else is in them."""
    parents = {parent for name in names for parent in PurePosixPath(name).parents if parent.parts}
    for folder in sorted((path / parent for parent in parents), reverse=True):
        if folder.is_dir() and {entry.name for entry in folder.iterdir()} <= {LOCK}:
            (folder / LOCK).unlink(missing_ok=True)
            folder.rmdir()
