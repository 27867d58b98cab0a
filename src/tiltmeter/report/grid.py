"""Modules arranged by block and kind."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from tiltmeter.errors import InputError

COLUMNS = ("skill", "module", "block", "exact", "normalised", "floor", "trace")
_FIGURES = COLUMNS[3:]


@dataclass(frozen=True)
class Cell:
    """One kind of module in one block: the means over its modules."""

    modules: list[str]
    exact: float
    normalised: float
    floor: float
    trace: float


@dataclass(frozen=True)
class Grid:
    """`cells[block][kind]`, None where a block has no such module; `outside` are the modules in no block."""

    blocks: list[int]
    kinds: list[str]
    cells: list[list[Cell | None]]
    outside: list[dict[str, Any]]


def arrange(rows: Sequence[dict[str, Any]]) -> Grid:
    """Rows of one skill's `modules` table as a grid, blocks in order, kinds in order of appearance.

    The kind is the last part of the name inside the block (`q_proj`), or that whole name where blocks hold several
    modules of the same last part; the numbers of experts become `*`, and such modules share a cell.
    """
    inside = [row for row in rows if row["block"] is not None]
    shorts = _shortened([_inner_name(row) for row in inside])
    groups: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for row in inside:
        groups.setdefault((row["block"], shorts[_inner_name(row)]), []).append(row)
    blocks = sorted({block for block, _ in groups})
    kinds = list(dict.fromkeys(kind for _, kind in groups))
    cells = [[_cell(groups.get((block, kind), [])) for kind in kinds] for block in blocks]
    return Grid(blocks, kinds, cells, [row for row in rows if row["block"] is None])


def check_rows(rows: Sequence[dict[str, Any]], where: str) -> None:
    """Refuse a table whose cells are not what their columns say.

    Raises:
        InputError: names the row.
    """
    for number, row in enumerate(rows):
        texts = isinstance(row["skill"], str) and isinstance(row["module"], str)
        numbers = all(isinstance(row[name], float | int) and abs(row[name]) < float("inf") for name in _FIGURES)
        if not (texts and numbers and isinstance(row["block"], int | None)):
            raise InputError(f"{where}: row {number}: expected text, a block number or null, and finite figures")


def _inner_name(row: dict[str, Any]) -> str:
    """The module's name after its block's number, numbers of experts replaced."""
    _, found, rest = row["module"].partition(f".{row['block']}.")
    return re.sub(r"\.\d+(?=\.|$)", ".*", rest if found else row["module"])


def _shortened(names: Sequence[str]) -> dict[str, str]:
    unique = {name: name.rpartition(".")[2] for name in names}
    count = Counter(unique.values())
    return {name: last if count[last] == 1 else name for name, last in unique.items()}


def _cell(rows: Sequence[dict[str, Any]]) -> Cell | None:
    if not rows:
        return None
    means = {name: fmean(row[name] for row in rows) for name in _FIGURES}
    return Cell(modules=[row["module"] for row in rows], **means)
