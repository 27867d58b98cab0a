"""A matrix of transfers as its page shows it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tiltmeter.report.charts import Spec
from tiltmeter.report.controls import Control, control_row
from tiltmeter.report.judge_wording import TITLES, change, probability, value
from tiltmeter.report.steer import TOKENS
from tiltmeter.report.steer_verdict import KINDS, WORDS, coherence_lost
from tiltmeter.report.transfer_charts import SIGNS, heatmap
from tiltmeter.report.transfer_verdict import cautions, counted, findings, matrix, title_of, ways
from tiltmeter.report.verdict import Verdict
from tiltmeter.report.wording import DASH, listed
from tiltmeter.runs.results import Interval
from tiltmeter.runs.transfer_result import MapRecord, RouteRecord, SubjectRecord, TransferResult

NAMED = 4  # models that a title names
OPEN = 12  # rows up to which details stand open


@dataclass(frozen=True)
class Model:
    """One model and its outcomes as text."""

    name: str
    record: SubjectRecord
    base: str
    tuned: str


@dataclass(frozen=True)
class Cell:
    """One route in a matrix; `kind` is the colour of its verdict."""

    effect: str
    sign: str
    word: str
    kind: str


@dataclass(frozen=True)
class Row:
    """What one model gives: to each model, and on average."""

    source: str
    cells: list[Cell]
    gives: str


@dataclass(frozen=True)
class Matrix:
    """One way; `takes` are the means of its columns."""

    title: str
    chart: Spec
    rows: list[Row]
    takes: list[str]


@dataclass(frozen=True)
class Differences:
    """What is different between there and back by one way, for each pair; whether 0 is outside of the interval."""

    way: str
    cells: list[tuple[str, bool]]


@dataclass(frozen=True)
class Tested:
    """One route with all that was measured."""

    title: str
    record: RouteRecord
    cell: Cell
    p_causal: str
    p_specific: str
    coherence_fall: str
    controls: list[Control]


@dataclass(frozen=True)
class Group:
    """All routes of one way."""

    title: str
    counted: str
    routes: list[Tested]
    is_open: bool


@dataclass(frozen=True)
class TransferView:
    """One run of `transfer`.

    Attributes:
        outcome: its title.
        tokens: where states are edited, in words.
        signs: of verdicts, with their words and colours.
        pairs: of models, first and second, in the order of the cells of `differences`.
    """

    anchor: str
    title: str
    result: TransferResult
    findings: list[Verdict]
    cautions: list[str]
    outcome: str
    tokens: str
    signs: list[Cell]
    models: list[Model]
    matrices: list[Matrix]
    pairs: list[tuple[str, str]]
    differences: list[Differences]
    maps: list[MapRecord]
    has_kl: bool
    has_spans: bool
    groups: list[Group]
    template: ClassVar[str] = "transfer.html"


def transfer_view(folder: Path, anchor: str, result: TransferResult) -> TransferView:
    """The view of a folder of transfers; its answers stay in the folder."""
    return TransferView(
        anchor,
        _title(result),
        result,
        findings(result),
        cautions(result),
        TITLES[result.outcome],
        TOKENS[result.where],
        [Cell("", sign, WORDS[verdict], KINDS[verdict]) for verdict, sign in SIGNS.items()],
        [_model(result, name, model) for name, model in result.models.items()],
        [_matrix(result, way) for way in ways(result)],
        _pairs(result),
        list(_differences(result)),
        result.maps,
        any(found.kl is not None for found in result.maps),
        any(way.startswith("span") for way in ways(result)),
        list(_groups(result)),
    )


def _title(result: TransferResult) -> str:
    names = list(result.models)
    return listed(names) if len(names) <= NAMED else f"{len(names)} models"


def _model(result: TransferResult, name: str, record: SubjectRecord) -> Model:
    base, tuned = (value(result.outcome, each) for each in (record.base_outcome, record.tuned_outcome))
    return Model(name, record, base, tuned)


def _matrix(result: TransferResult, way: str) -> Matrix:
    routes, roles = matrix(result, way), {role.model: role for role in result.roles if role.way == way}
    rows = [
        Row(
            source,
            [_cell(result, routes[source, target]) for target in result.models],
            value(result.outcome, roles[source].donor),
        )
        for source in result.models
    ]
    takes = [value(result.outcome, roles[name].receiver) for name in result.models]
    return Matrix(title_of(result, way), heatmap(result, way), rows, takes)


def _cell(result: TransferResult, route: RouteRecord) -> Cell:
    return Cell(value(result.outcome, route.effect), SIGNS[route.verdict], WORDS[route.verdict], KINDS[route.verdict])


def _pairs(result: TransferResult) -> list[tuple[str, str]]:
    return list(dict.fromkeys((each.first, each.second) for each in result.asymmetries))


def _differences(result: TransferResult) -> Iterator[Differences]:
    found = {(each.first, each.second, each.way): each.difference for each in result.asymmetries}
    for way in ways(result):
        cells = [_signed(result.outcome, found.get((*pair, way))) for pair in _pairs(result)]
        yield Differences(title_of(result, way), cells)


def _signed(outcome: str, interval: Interval | None) -> tuple[str, bool]:
    if interval is None:
        return value(outcome, None), False
    return change(outcome, interval), not interval.low <= 0 <= interval.high


def _groups(result: TransferResult) -> Iterator[Group]:
    for way in dict.fromkeys(route.way for route in result.routes):
        routes = [route for route in result.routes if route.way == way]
        title, is_open = title_of(result, way), len(result.routes) <= OPEN
        yield Group(title, counted(routes), [_tested(result, route) for route in routes], is_open)


def _tested(result: TransferResult, route: RouteRecord) -> Tested:
    own = route.source == route.target
    return Tested(
        f"{route.target}, its own" if own else f"{route.source} to {route.target}",
        route,
        _cell(result, route),
        probability(route.p_causal),
        probability(route.p_specific) if route.controls else DASH,
        coherence_lost(route) or DASH,
        [control_row(result.outcome, route.effect, control) for control in route.controls],
    )
