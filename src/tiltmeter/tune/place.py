"""The run folder of a fine-tune, as the processes that train together see it."""

from pathlib import Path
from types import TracebackType
from typing import TypeAlias

from tiltmeter.runs.folder import RunFolder, Table
from tiltmeter.runs.record import RunRecord
from tiltmeter.runs.results import Result
from tiltmeter.training.processes import is_main


class Looker:
    """The folder in a process that writes nothing to it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> "Looker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves it to the main process."""

    def resume_or_start(self, record: RunRecord) -> bool:
        """The main process decides."""
        return False

    def folder(self, name: str) -> Path:
        """Where the main process makes it."""
        return self.path / name

    def write_table(self, name: str, table: Table) -> None:
        """The main process does."""

    def write_result(self, result: Result) -> None:
        """The main process does."""


Place: TypeAlias = RunFolder | Looker


def place_for(path: Path) -> Place:
    """The run folder in the main process, and a look at it in the others."""
    return RunFolder(path) if is_main() else Looker(path)
