"""A comparison as it is saved: the entries of `result.json`, and the rows of its tables."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from tiltmeter.compare.request import CompareRequest
from tiltmeter.geometry.comparison import Comparison, PairComparison
from tiltmeter.geometry.figures import Summary
from tiltmeter.geometry.nulls import NULLS
from tiltmeter.geometry.ordering import order
from tiltmeter.geometry.similarity import FIGURES
from tiltmeter.models import is_adapter
from tiltmeter.runs.compare_result import (
    CompareResult,
    DimsRecord,
    Figure,
    FigureRecord,
    GroupFigure,
    GroupRecord,
    NullRecord,
    Ordering,
    PairRecord,
    Reference,
    RowSpaceRecord,
    UpdateRecord,
)
from tiltmeter.runs.record import tool_versions
from tiltmeter.runs.results import Input
from tiltmeter.updates.files import read_json
from tiltmeter.updates.update import Update

ORDERED_BY: Figure = "overlap_left"  # left subspaces do not depend on a shared initialisation of A


def result(
    request: CompareRequest,
    inputs: list[Input],
    updates: Mapping[str, Update],
    folders: Mapping[str, Path],
    found: Comparison,
) -> CompareResult:
    """The whole of `result.json`."""
    records = {name: _update(name, update, found, folders.get(name)) for name, update in updates.items()}
    pairs = [_pair(names, pair) for names, pair in found.pairs.items()]
    return CompareResult(
        inputs=inputs,
        versions=tool_versions(),
        seed=request.seed,
        dtype="float64",
        dims=DimsRecord(**vars(request.dims)),
        draws=request.draws,
        updates=records,
        pairs=pairs,
        groups={name: list(members) for name, members in request.groups.items()},
        group_pairs=list(_group_pairs(request.groups, pairs)),
        ordering=_ordering(list(folders), pairs),
        warnings=list(_warnings(request, records, pairs)),
    )


def change_rows(found: Comparison) -> Iterator[dict[str, Any]]:
    """One row per update and module that it changes."""
    for name, changes in found.changes.items():
        for module, change in changes.items():
            yield {"update": name, "module": module, "norm": change.norm, "rank": change.rank, "error": change.error}


def module_rows(found: Comparison, blocks: Mapping[str, int | None]) -> Iterator[dict[str, Any]]:
    """One row per pair, module and figure."""
    for (one, two), pair in found.pairs.items():
        for module in pair.rows:
            for figure, row in _rows(pair.modules[module]).items():
                yield {"one": one, "two": two, "module": module, "block": blocks[module], "figure": figure, **row}


def block_rows(found: Comparison) -> Iterator[dict[str, Any]]:
    """One row per pair, block and figure, with the central 95 % of each null."""
    for (one, two), pair in found.pairs.items():
        for block, mean in sorted(pair.blocks.items()):
            low, high = mean.figures.ranges()
            for f, (figure, row) in enumerate(_rows(mean.figures.summary()).items()):
                for q, null in enumerate(NULLS):
                    row |= {f"{null}_low": _finite(low[q, f]), f"{null}_high": _finite(high[q, f])}
                yield {"one": one, "two": two, "block": block, "figure": figure, **row}


def _rows(summary: Summary) -> dict[str, dict[str, Any]]:
    """Figure -> value, closed form, and mean and p-value under each null."""
    found = {}
    for f, figure in enumerate(FIGURES):
        row = {"value": float(summary.values[f]), "closed_form": _finite(summary.closed[f])}
        for q, null in enumerate(NULLS):
            row |= {null: _finite(summary.means[q, f]), f"{null}_p": _finite(summary.p[q, f])}
        found[figure] = row
    return found


def _update(name: str, update: Update, found: Comparison, folder: Path | None) -> UpdateRecord:
    changes = found.changes[name]
    others = {module for other, each in found.changes.items() if other != name for module in each}
    ranks = [change.rank for change in changes.values()] or [0]
    return UpdateRecord(
        kind=update.kind,
        norm=math.hypot(*(change.norm for change in changes.values())),
        modules=len(changes),
        ranks=(min(ranks), max(ranks)),
        error=max((change.error for change in changes.values()), default=0.0),
        only_here=[module for module in changes if module not in others],
        not_covered=dict(update.not_covered),
        trained_on=None if folder is None else _trained_on(folder),
    )


def _trained_on(folder: Path) -> str | None:
    """The base that an adapter's configuration names: text to compare, never followed."""
    if not is_adapter(folder):
        return None
    fields = read_json(folder / "adapter_config.json")
    base, revision = fields.get("base_model_name_or_path"), fields.get("revision")
    return " at ".join(str(part) for part in (base, revision) if part) or None


def _pair(names: tuple[str, str], pair: PairComparison) -> PairRecord:
    rows = pair.row_spaces
    reference: Reference = "shared_initialisation" if pair.shares_initialisation else "same_spectrum"
    return PairRecord(
        one=names[0],
        two=names[1],
        modules=len(pair.modules),
        blocks=len(pair.blocks),
        row_spaces=None
        if rows is None
        else RowSpaceRecord(
            overlap=rows.overlap,
            independent=rows.independent,
            factor_cosine=rows.cosine,
            shared=pair.shares_initialisation,
        ),
        figures=_figures(pair, reference) if pair.blocks else {},
    )


def _figures(pair: PairComparison, reference: Reference) -> dict[Figure, FigureRecord]:
    overall = pair.overall
    summary, ranges = overall.summary(), overall.ranges()
    spread = np.std([mean.figures.values for mean in pair.blocks.values()], axis=0)
    found: dict[Figure, FigureRecord] = {}
    for f, figure in enumerate(FIGURES):
        nulls: dict[str, Any] = {null: _null(summary, ranges, q, f) for q, null in enumerate(NULLS)}
        mean = summary.means[NULLS.index(reference), f]
        found[cast(Figure, figure)] = FigureRecord(
            value=summary.values[f],
            std=spread[f],
            closed_form=_finite(summary.closed[f]),
            reference=reference,
            ratio=abs(summary.values[f]) / mean if mean else None,
            **nulls,
        )
    return found


def _null(summary: Summary, ranges: NDArray[np.float64], q: int, f: int) -> NullRecord | None:
    if math.isnan(summary.means[q, f]):
        return None
    low, high = ranges[:, q, f]
    return NullRecord(mean=summary.means[q, f], low=low, high=high, p=summary.p[q, f])


def _group_pairs(groups: Mapping[str, Sequence[str]], pairs: Sequence[PairRecord]) -> Iterator[GroupRecord]:
    for one, two in combinations_with_replacement(groups, 2):
        both = [pair for pair in pairs if _joins(pair, groups[one], groups[two]) and pair.figures]
        if both:
            shared = sum(pair.row_spaces is not None and pair.row_spaces.shared for pair in both)
            figures = {figure: _group_figure([pair.figures[figure] for pair in both]) for figure in both[0].figures}
            yield GroupRecord(one=one, two=two, pairs=len(both), shared=shared, figures=figures)


def _joins(pair: PairRecord, one: Sequence[str], two: Sequence[str]) -> bool:
    return (pair.one in one and pair.two in two) or (pair.one in two and pair.two in one)


def _group_figure(figures: Sequence[FigureRecord]) -> GroupFigure:
    values = [figure.value for figure in figures]
    nulls = [null.mean for figure in figures if (null := getattr(figure, figure.reference)) is not None]
    null = float(np.mean(nulls))
    return GroupFigure(
        mean=float(np.mean(values)),
        least=min(values),
        greatest=max(values),
        null=null,
        ratio=float(np.mean(np.abs(values))) / null if null else None,
    )


def _ordering(names: Sequence[str], pairs: Sequence[PairRecord]) -> Ordering | None:
    """Of all updates; None for two of them, or where some pair has nothing in common."""
    known = {frozenset((pair.one, pair.two)): pair.figures[ORDERED_BY].value for pair in pairs if pair.figures}
    wanted = [frozenset((one, two)) for i, one in enumerate(names) for two in names[i + 1 :]]
    if len(names) < 3 or not all(pair in known for pair in wanted):
        return None
    leaves, merges = order([known[pair] for pair in wanted])
    return Ordering(figure=ORDERED_BY, names=[names[leaf] for leaf in leaves], merges=merges)


def _warnings(
    request: CompareRequest, updates: Mapping[str, UpdateRecord], pairs: Sequence[PairRecord]
) -> Iterator[str]:
    bases = {record.trained_on for record in updates.values() if record.trained_on}
    if len(bases) > 1:
        named = "; ".join(f"{name} on {record.trained_on}" for name, record in updates.items() if record.trained_on)
        yield f"adapters name different bases: {named}: their updates are of one space only if these are one model"
    for name, each in updates.items():
        if each.error > request.accuracy:
            yield (
                f"{name}: leading directions have a residual of {each.error:.2g} of their singular value, more than "
                f"--accuracy {request.accuracy:g}: its singular values lie close together"
            )
        if each.ranks[0] < request.dims.most:
            yield f"{name}: ranks from {each.ranks[0]}: there, fewer than {request.dims.most} directions enter"
        if each.only_here:
            yield f"{name}: {len(each.only_here)} modules that no other update changes, such as {each.only_here[0]}"
    compared = {frozenset((pair.one, pair.two)) for pair in pairs if pair.figures}
    for i, one in enumerate(updates):
        for two in list(updates)[i + 1 :]:
            if frozenset((one, two)) not in compared:
                yield f"{one} and {two}: no module in a block that both change: nothing to compare"


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
