"""Records that survive a kill, one line each, in a file that only grows."""

import math
import os
import time
from pathlib import Path
from typing import Generic, TypeVar

from tiltmeter.errors import InputError
from tiltmeter.runs.manifest import JOURNAL, sync_folder, to_json
from tiltmeter.runs.results import Record
from tiltmeter.runs.saved import read_records

R = TypeVar("R", bound=Record)
SYNC_AFTER = 0.2  # seconds


class Journal(Generic[R]):
    """The records of one kind that an unfinished run has written so far.

    A record survives a kill of the process once `append` returns; a power cut may take those of the last moments. A
    line that was cut off is dropped when the journal is opened again. `RunFolder.journal` opens it, and removes it once
    the run has come to its end.

    Args:
        folder: the run folder.
        name: of the journal, one per kind of record.
        kind: the record's class.

    Attributes:
        records: what stood in the journal when it was opened.

    Raises:
        InputError: a line that is no such record, by number; the disk refuses.
    """

    def __init__(self, folder: Path, name: str, kind: type[R]) -> None:
        self._path = folder / f"{JOURNAL}{name}.jsonl"
        try:
            self._path.touch()
            sync_folder(folder)
            _drop_torn_line(self._path)
        except OSError as error:
            raise InputError(f"{self._path}: cannot be written: {error.strerror}") from error
        self.records: list[R] = read_records(self._path, kind)
        self._synced = -math.inf

    def append(self, *records: R) -> None:
        """Write records behind the others; wait for the disk where it was not waited for just now.

        Raises:
            InputError: the disk refuses.
        """
        lines = b"".join(to_json(record.model_dump(mode="json")).encode("ascii") + b"\n" for record in records)
        try:
            with self._path.open("ab") as stream:
                stream.write(lines)
                stream.flush()
                self._sync(stream.fileno())
        except OSError as error:
            raise InputError(f"{self._path}: cannot be written: {error.strerror}") from error

    def _sync(self, descriptor: int) -> None:
        """Waiting takes milliseconds, as long as an exact judge needs for hundreds of answers."""
        if time.monotonic() - self._synced > SYNC_AFTER:
            os.fsync(descriptor)
            self._synced = time.monotonic()


def _drop_torn_line(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.truncate(stream.read().rfind(b"\n") + 1)
