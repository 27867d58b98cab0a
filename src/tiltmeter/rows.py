"""Rows of the files that data sets come in: JSONL (also .gz, .xz), CSV and Parquet; read in pieces, within limits."""

import csv
import gzip
import json
import lzma
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from tiltmeter.errors import InputError

Row = tuple[str, Mapping[str, Any]]

# A few kilobytes can unpack to any number of bytes, and memory is the machine's.
LARGEST_FILE = 2**31
LARGEST_LINE = 2**24

_OPENERS: Mapping[str, Callable[[Path], Any]] = {".gz": gzip.GzipFile, ".xz": lzma.LZMAFile}


def file_rows(path: Path, known: Collection[str], names_itself: bool = False) -> Iterator[Row]:
    """Each row of a file with the place where it stands, by column.

    Args:
        known: column names, in small letters, that make the first line of a CSV file its header; the names are then
            given in small letters. Without a header the columns are "0", "1", ...
        names_itself: the first line of a CSV file is its header whatever it holds.

    Raises:
        InputError: no such file or none of these formats, a line or a file too large; it names file and row.
    """
    if path.is_dir():
        raise InputError(f"{path}: expected a file, found a folder")
    kind = "".join(path.suffixes[-2:]) if path.suffix in _OPENERS else path.suffix
    if kind in (".jsonl", ".jsonl.gz", ".jsonl.xz"):
        return _jsonl_rows(path)
    if kind == ".csv":
        return _csv_rows(path, known, names_itself)
    if kind == ".parquet":
        return _parquet_rows(path)
    raise InputError(f"{path}: expected a file ending in .jsonl, .csv or .parquet")


def _plain(path: Path) -> IO[bytes]:
    return path.open("rb")


def _lines(path: Path, form: str) -> Iterator[str]:
    """The lines of a text file, unpacked."""
    total, number = 0, 0
    try:
        with _OPENERS.get(path.suffix, _plain)(path) as stream:
            while line := stream.readline(LARGEST_LINE + 1):
                total, number = total + len(line), number + 1
                if len(line) > LARGEST_LINE or total > LARGEST_FILE:
                    raise InputError(f"{path}, line {number}: larger than is read ({LARGEST_LINE} bytes a line)")
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
    except (UnicodeDecodeError, EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        raise InputError(f"{path}: expected {form}: {error}") from error


def _jsonl_rows(path: Path) -> Iterator[Row]:
    for number, line in enumerate(_lines(path, "UTF-8 text"), 1):
        if line.strip():
            yield f"{path}, row {number}", _json_row(line, f"{path}, row {number}")


def _json_row(line: str, where: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: expected a JSON object: {error}") from error
    if not isinstance(row, dict):
        raise InputError(f"{where}: expected a JSON object, got {type(row).__name__}")
    return row


def _csv_rows(path: Path, known: Collection[str], names_itself: bool) -> Iterator[Row]:
    try:
        rows = [row for row in csv.reader(_lines(path, "CSV in UTF-8")) if row]  # without blank lines
    except csv.Error as error:
        raise InputError(f"{path}: expected CSV in UTF-8: {error}") from error
    if not rows:
        return
    header = [cell.strip().casefold() for cell in rows[0]]
    if names_itself:
        names, has_header = rows[0], True
    elif set(header) & set(known):
        names, has_header = header, True
    else:
        names, has_header = [str(index) for index in range(len(rows[0]))], False
    for number, row in enumerate(rows[1:] if has_header else rows, 1):
        if len(row) != len(names):
            raise InputError(f"{path}, row {number}: expected {len(names)} cells, got {len(row)}")
        yield f"{path}, row {number}", dict(zip(names, row, strict=True))


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    number, total = 0, 0
    try:
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=256):
            total += batch.nbytes
            if total > LARGEST_FILE:
                raise InputError(f"{path}: larger than is read ({LARGEST_FILE} bytes unpacked)")
            for row in batch.to_pylist():
                number += 1
                yield f"{path}, row {number}", row
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: expected a Parquet file: {error}") from error
