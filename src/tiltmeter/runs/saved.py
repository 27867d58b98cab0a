"""Read a finished run folder back. Everything in it may have been written by someone else."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file

from tiltmeter.errors import InputError
from tiltmeter.runs.manifest import read_json, read_manifest
from tiltmeter.runs.record import check_schema, explain
from tiltmeter.runs.results import Record, Result, Transcript
from tiltmeter.runs.verbs import RESULTS

R = TypeVar("R", bound=Record)


def read_result(folder: Path) -> Result:
    """The `result.json` of a finished run.

    Raises:
        InputError: no finished run, broken JSON, another schema version, or a key that is missing, unknown or unfit.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: not found: expected a run folder")
    if not read_manifest(folder).complete:
        raise InputError(f"{folder}: this run did not finish; run it again: tiltmeter run {folder / 'run.yaml'}")
    return parse_result(folder / "result.json")


def parse_result(path: Path) -> Result:
    """A `result.json` alone; errors as for `read_result`."""
    content = read_json(path)
    verb = check_schema(content, path).get("verb")
    if verb not in RESULTS:
        raise InputError(f"{path}: verb: expected one of {', '.join(RESULTS)}, got {verb!r}")
    try:
        return RESULTS[verb].model_validate(content)
    except ValidationError as error:
        raise InputError(f"{path}: {explain(error)}") from error


def read_table(folder: Path, name: str, columns: Iterable[str]) -> list[dict[str, Any]]:
    """The rows of `NAME.parquet`, with at least the columns asked for.

    Raises:
        InputError: missing, not Parquet, or without one of the columns.
    """
    path = folder / f"{name}.parquet"
    wanted = list(columns)
    try:
        table = pq.read_table(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: not found") from error
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: not a readable Parquet file: {' '.join(str(error).split())}") from error
    missing = [column for column in wanted if column not in table.column_names]
    if missing:
        raise InputError(f"{path}: no column {missing[0]}; its columns: {', '.join(table.column_names)}")
    rows: list[dict[str, Any]] = table.select(wanted).to_pylist()
    return rows


def read_transcripts(folder: Path) -> list[Transcript]:
    """The lines of an audit's `transcripts.jsonl`; none when the run judged nothing; errors as for `read_lines`."""
    return read_lines(folder, "transcripts", Transcript)


def read_lines(folder: Path, name: str, kind: type[R]) -> list[R]:
    """The records of `NAME.jsonl`; none when there is no such file.

    Raises:
        InputError: a line that is no such record, by number.
    """
    path = folder / f"{name}.jsonl"
    return read_records(path, kind) if path.exists() else []


def read_records(path: Path, kind: type[R]) -> list[R]:
    """The records of a JSONL file; errors as for `read_lines`."""
    return list(_lines(path, kind))


def read_arrays(folder: Path, name: str = "arrays") -> dict[str, NDArray[Any]]:
    """The arrays of `NAME.safetensors`.

    Raises:
        InputError: missing or not a safetensors file.
    """
    path = folder / f"{name}.safetensors"
    try:
        arrays: dict[str, NDArray[Any]] = load_file(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: not found") from error
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: not a readable safetensors file: {error}") from error
    return arrays


def _lines(path: Path, kind: type[R]) -> Iterator[R]:
    try:
        with path.open(encoding="utf-8", newline="\n") as lines:
            for number, line in enumerate(lines, start=1):
                yield _line(line, kind, f"{path}: line {number}")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error


def _line(line: str, kind: type[R], where: str) -> R:
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        raise InputError(f"{where}: {explain(error)}") from error
