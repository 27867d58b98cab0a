"""A comparison as its page shows it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

from tiltmeter.report import compare_charts as charts
from tiltmeter.report.charts import Spec
from tiltmeter.report.compare_curves import COLUMNS, Curves, check_rows, find_curves
from tiltmeter.report.compare_pairs import FIGURES, MAIN, base_pairs, ordered_updates, origins, shares, update_pairs
from tiltmeter.report.compare_verdict import Finding, explain_nulls, explain_p, findings
from tiltmeter.report.wording import listed
from tiltmeter.runs.compare_result import CompareResult, Figure, FigureRecord, PairRecord, UpdateRecord
from tiltmeter.runs.saved import read_table

MODULES = ("one", "two", "module", "block", "figure", "value", "same_spectrum", "shared_initialisation")
MATRICES: tuple[Figure, ...] = ("cosine", "overlap_left", "overlap_right")
NAMED = 3  # updates that a title names
OPEN = 12  # pairs up to which tables stand open


@dataclass(frozen=True)
class UpdateRow:
    """One update in the order of the matrices; `origin` numbers the set with which it shares an initialisation."""

    name: str
    record: UpdateRecord
    groups: list[str]
    origin: int | None


@dataclass(frozen=True)
class Matrix:
    """A matrix of similarity."""

    title: str
    chart: Spec


@dataclass(frozen=True)
class CurveChart:
    """One figure over the blocks."""

    figure: Figure
    title: str
    chart: Spec


@dataclass(frozen=True)
class FigureTable:
    """One figure of every pair, with all its nulls."""

    title: str
    rows: list[tuple[PairRecord, FigureRecord]]


@dataclass(frozen=True)
class ModuleFigure:
    """One figure in one module over the pairs that have it: mean, least and greatest; mean of the pairs' nulls."""

    mean: float
    low: float
    high: float
    null: float | None


@dataclass(frozen=True)
class ModuleRow:
    """One module; `figures` in the order of the main figures."""

    module: str
    block: int | None
    pairs: int
    figures: list[ModuleFigure]


@dataclass(frozen=True)
class CompareView:
    """One comparison."""

    anchor: str
    title: str
    result: CompareResult
    findings: list[Finding]
    notes: list[str]
    names: dict[Figure, str]
    updates: list[UpdateRow]
    matrices: list[Matrix]
    tree: Spec | None
    curves: Curves | None
    curve_charts: list[CurveChart]
    colours: list[str]
    tables: list[FigureTable]
    modules: list[ModuleRow]
    is_small: bool
    template: ClassVar[str] = "compare.html"


def compare_view(folder: Path, anchor: str, result: CompareResult) -> CompareView:
    """The view of one run folder.

    Raises:
        InputError: a table that does not hold what it should.
    """
    pairs = update_pairs(result)
    blocks = _rows(folder, "blocks", COLUMNS, ("one", "two", "figure")) if pairs else []
    modules = _rows(folder, "modules", MODULES, ("one", "two", "module", "figure")) if pairs else []
    curves = find_curves(result, blocks)
    return CompareView(
        anchor,
        _title(result),
        result,
        findings(result),
        [explain_nulls(result), explain_p(result)],
        {each: FIGURES[each] for each in MAIN},
        _updates(result),
        [Matrix(FIGURES[each], charts.matrix(result, each)) for each in MATRICES]
        if len(result.updates) > 2 and pairs
        else [],
        charts.tree(result),
        curves,
        _curve_charts(curves) if curves else [],
        [f"--series-{shade}" for shade in charts.SERIES],
        [_table(each, [*pairs, *base_pairs(result)]) for each in FIGURES] if pairs else [],
        _modules(result, modules),
        len(pairs) <= OPEN,
    )


def _title(result: CompareResult) -> str:
    names = [name for name, update in result.updates.items() if update.kind != "weights"]
    base = next((f" of {given.path}" for given in result.inputs if given.role == "base"), "")
    return f"{f'{listed(names)}: ' if len(names) <= NAMED else ''}{len(names)} updates{base}"


def _rows(folder: Path, name: str, columns: Sequence[str], texts: Sequence[str]) -> list[dict[str, Any]]:
    rows = read_table(folder, name, columns)
    check_rows(rows, texts, str(folder / f"{name}.parquet"))
    return rows


def _updates(result: CompareResult) -> list[UpdateRow]:
    sets = origins(update_pairs(result))
    return [
        UpdateRow(
            name,
            result.updates[name],
            [group for group, members in result.groups.items() if name in members],
            next((number for number, each in enumerate(sets, start=1) if name in each), None),
        )
        for name in ordered_updates(result)
    ]


def _curve_charts(curves: Curves) -> list[CurveChart]:
    return [CurveChart(each, FIGURES[each], charts.curves(curves.lines, curves.bands[each], each)) for each in MAIN]


def _table(which: Figure, pairs: Sequence[PairRecord]) -> FigureTable:
    return FigureTable(FIGURES[which], [(pair, pair.figures[which]) for pair in pairs])


def _modules(result: CompareResult, rows: Sequence[Mapping[str, Any]]) -> list[ModuleRow]:
    """Over the pairs of updates; the base's own weights left out."""
    weights = {name for name, update in result.updates.items() if update.kind == "weights"}
    nulls = {
        (pair.one, pair.two): "shared_initialisation" if shares(pair) else "same_spectrum"
        for pair in result.pairs
        if not weights & {pair.one, pair.two}
    }
    found: dict[tuple[str, int | None], dict[str, list[tuple[float, float | None]]]] = {}
    for row in rows:
        if (row["one"], row["two"]) in nulls:
            pairs = found.setdefault((row["module"], row["block"]), {}).setdefault(row["figure"], [])
            pairs.append((row["value"], row[nulls[row["one"], row["two"]]]))
    return [_module(module, block, figures) for (module, block), figures in found.items() if {*MAIN} <= {*figures}]


def _module(module: str, block: int | None, figures: Mapping[str, Sequence[tuple[float, float | None]]]) -> ModuleRow:
    return ModuleRow(module, block, len(figures[MAIN[0]]), [_module_figure(figures[each]) for each in MAIN])


def _module_figure(pairs: Sequence[tuple[float, float | None]]) -> ModuleFigure:
    values, nulls = [value for value, _ in pairs], [null for _, null in pairs if null is not None]
    return ModuleFigure(fmean(values), min(values), max(values), fmean(nulls) if nulls else None)
