"""Figures of a comparison over the blocks: of a few pairs, or of groups where there are too many pairs."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from tiltmeter.errors import InputError
from tiltmeter.report.compare_pairs import MAIN, shares, update_pairs
from tiltmeter.report.compare_wording import group_name, joined
from tiltmeter.runs.compare_result import CompareResult, Figure, GroupRecord, PairRecord

LINES = 8
NULLS = ("same_spectrum", "shared_initialisation")
ENDS = tuple(f"{null}_{end}" for null in NULLS for end in ("low", "high"))
COLUMNS = ("one", "two", "block", "figure", "value", *ENDS)
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Line:
    """One pair, or the mean over the pairs of two groups, over its blocks."""

    name: str
    blocks: list[int]
    values: dict[Figure, list[float]]


@dataclass(frozen=True)
class Band:
    """Over the blocks, from the least to the largest end of the central 95 % of a null, of all pairs drawn."""

    blocks: list[int]
    low: list[float]
    high: list[float]


@dataclass(frozen=True)
class Curves:
    """What is drawn: lines, and per figure the bands of the nulls; `of` says what the lines are.

    Shared initialisation has a band only of pairs that share theirs.
    """

    of: str
    lines: list[Line]
    bands: dict[Figure, dict[str, Band]]


def find_curves(result: CompareResult, rows: Sequence[Row]) -> Curves | None:
    """Of all pairs up to eight, else of groups if there are few, else of the eight pairs furthest beyond their null."""
    pairs = update_pairs(result)
    if not pairs:
        return None
    of, chosen = _choose(result, pairs)
    drawn = {_key(pair.one, pair.two): pair for members in chosen.values() for pair in members}
    inside = [row for row in rows if row["block"] is not None and row["figure"] in MAIN]
    mine = [row for row in inside if _key(row["one"], row["two"]) in drawn]
    lines = [line for name, members in chosen.items() if (line := _line(name, mine, members)).blocks]
    sharing = {key for key, pair in drawn.items() if shares(pair)}
    return None if not lines else Curves(of, lines, {each: _bands(mine, sharing, each) for each in MAIN})


def check_rows(rows: Sequence[Row], texts: Iterable[str], where: str) -> None:
    """Refuse a table whose cells are not what their columns say.

    Raises:
        InputError: names the row.
    """
    columns = list(texts)
    for number, row in enumerate(rows):
        numbers = (value for name, value in row.items() if name not in (*columns, "block"))
        is_text = all(isinstance(row[name], str) for name in columns)
        is_block = isinstance(row["block"], int | None)
        if not (is_text and is_block and _is_finite(row["value"]) and all(x is None or _is_finite(x) for x in numbers)):
            raise InputError(f"{where}: row {number}: expected text, a block number or null, and finite figures")


def _choose(result: CompareResult, pairs: Sequence[PairRecord]) -> tuple[str, dict[str, list[PairRecord]]]:
    groups = _grouped(result, pairs) if len(pairs) > LINES else {}
    if 0 < len(groups) <= LINES:
        return "groups", groups
    of = "all pairs" if len(pairs) <= LINES else f"the {LINES} of {len(pairs)} pairs furthest beyond their null"
    return of, {joined(pair): [pair] for pair in pairs[:LINES]}


def _grouped(result: CompareResult, pairs: Sequence[PairRecord]) -> dict[str, list[PairRecord]]:
    """Pairs by their groups, those that share an initialisation apart: a mean over both would say nothing."""
    found: dict[str, list[PairRecord]] = {}
    for group in result.group_pairs:
        for pair in _members(result, pairs, group):
            name = f"{group_name(group)}, A shared" if shares(pair) else group_name(group)
            found.setdefault(name, []).append(pair)
    return found


def _members(result: CompareResult, pairs: Sequence[PairRecord], group: GroupRecord) -> list[PairRecord]:
    one, two = result.groups[group.one], result.groups[group.two]
    return [pair for pair in pairs if (pair.one in one and pair.two in two) or (pair.one in two and pair.two in one)]


def _line(name: str, rows: Sequence[Row], pairs: Sequence[PairRecord]) -> Line:
    keys = {_key(pair.one, pair.two) for pair in pairs}
    found: dict[tuple[Figure, int], list[float]] = {}
    for row in rows:
        if _key(row["one"], row["two"]) in keys:
            found.setdefault((row["figure"], row["block"]), []).append(row["value"])
    blocks = sorted({block for _, block in found if all((each, block) in found for each in MAIN)})
    return Line(name, blocks, {each: [fmean(found[each, block]) for block in blocks] for each in MAIN})


def _bands(rows: Sequence[Row], sharing: set[frozenset[str]], which: Figure) -> dict[str, Band]:
    mine = [row for row in rows if row["figure"] == which]
    shared = [row for row in mine if _key(row["one"], row["two"]) in sharing]
    found = {"same_spectrum": _band(mine, NULLS[0]), "shared_initialisation": _band(shared, NULLS[1])}
    return {null: band for null, band in found.items() if band.blocks}


def _band(rows: Sequence[Row], null: str) -> Band:
    ends: dict[int, list[tuple[float, float]]] = {}
    for row in rows:
        low, high = row[f"{null}_low"], row[f"{null}_high"]
        if row["figure"] == "cosine" and high is not None:
            low = -high  # the draws are of its absolute value
        if low is not None and high is not None:
            ends.setdefault(row["block"], []).append((low, high))
    blocks = sorted(ends)
    return Band(blocks, [min(ends[block])[0] for block in blocks], [max(map(_high, ends[block])) for block in blocks])


def _high(ends: tuple[float, float]) -> float:
    return ends[1]


def _key(one: str, two: str) -> frozenset[str]:
    return frozenset((one, two))


def _is_finite(value: object) -> bool:
    return isinstance(value, float | int) and math.isfinite(value)
