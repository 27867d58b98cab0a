"""A comparison like a real one, written through the project's own API without an update."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, cast

from fake_runs import VERSIONS
from tiltmeter.geometry.ordering import order
from tiltmeter.runs import RunFolder, RunRecord
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
    RowSpaceRecord,
    UpdateRecord,
)
from tiltmeter.runs.results import Input

CHANCE: dict[Figure, float] = {
    "cosine": 0.002,
    "component_cosine_left": 0.07,
    "component_cosine_right": 0.07,
    "angle_left": 81.0,
    "angle_right": 81.0,
    "overlap_left": 0.04,
    "overlap_right": 0.04,
    "weighted_overlap_left": 0.02,
    "weighted_overlap_right": 0.02,
}
BY_ROWS: dict[Figure, float] = {"cosine": 0.005, "angle_right": 47.0, "overlap_right": 0.48}
LEAST = 1 / 101
NAMES = ("med", "fin", "sum", "code")


def null(mean: float, p: float) -> NullRecord:
    """A null whose central 95 % reach a tenth to both sides."""
    return NullRecord(mean=mean, low=0.9 * mean, high=1.1 * mean, p=p)


def figure(which: Figure, value: float, p: float, shared: bool | None) -> FigureRecord:
    """One figure beside its nulls; `shared` is None where the two are not both low rank."""
    chance, rows = CHANCE[which], BY_ROWS.get(which, CHANCE[which])
    reference = "shared_initialisation" if shared else "same_spectrum"
    return FigureRecord(
        value=value,
        std=0.1 * abs(value),
        closed_form=None if which.startswith("angle") else chance,
        random=None if which.startswith("weighted") else null(chance, p),
        same_spectrum=null(chance, LEAST if shared and which in BY_ROWS else p),
        shared_initialisation=None if shared is None else null(rows if shared else chance, p),
        reference=cast(Any, reference),
        ratio=abs(value) / (rows if shared else chance),
    )


def pair(
    one: str, two: str, *, shared: bool | None = False, p: float = 0.5, rows: float = 0.08, **values: float
) -> PairRecord:
    """Two updates that are as similar as their null, and `p` of every figure, unless values say otherwise.

    `FIGURE_p` is the p of one figure.
    """
    usual: dict[Figure, float] = {**CHANCE, **(BY_ROWS if shared else {})}
    found = {
        which: figure(which, values.get(which, usual[which]), values.get(f"{which}_p", p), shared) for which in CHANCE
    }
    overlap = RowSpaceRecord(
        overlap=0.95 if shared else rows, independent=0.077, factor_cosine=0.96 if shared else 0.01, shared=bool(shared)
    )
    return PairRecord(
        one=one, two=two, modules=21, blocks=3, row_spaces=None if shared is None else overlap, figures=found
    )


def empty(one: str, two: str) -> PairRecord:
    """Two updates that have no module of a block in common."""
    return PairRecord(one=one, two=two, modules=1, blocks=0, row_spaces=None, figures={})


def pairs() -> list[PairRecord]:
    """med, fin and sum share an initialisation; med and fin are alike beyond it."""
    alike = {"cosine": 0.2, "overlap_left": 0.36, "overlap_right": 0.6, "angle_left": 60.0, "angle_right": 38.0}
    return [
        pair("med", "fin", shared=True, p=LEAST, **alike),
        pair("med", "sum", shared=True),
        pair("med", "code"),
        pair("fin", "sum", shared=True, cosine=-0.02, cosine_p=LEAST),
        pair("fin", "code"),
        pair("sum", "code"),
    ]


def update(kind: str = "adapter", **changes: Any) -> UpdateRecord:
    """One update of 21 modules."""
    fields: dict[str, Any] = {"kind": kind, "norm": 3.1, "modules": 21, "ranks": (8, 8), "error": 0.0}
    return UpdateRecord(**{**fields, "trained_on": "org/base at main", **changes})


def group(one: str, two: str, left: Sequence[float], shared: int = 0) -> GroupRecord:
    """Pairs of two groups with these left overlaps; other figures as by chance."""
    values = {which: [CHANCE[which]] * len(left) for which in CHANCE} | {"overlap_left": list(left)}
    figures: dict[Figure, GroupFigure] = {
        which: GroupFigure(
            mean=sum(found) / len(found),
            least=min(found),
            greatest=max(found),
            null=CHANCE[which],
            ratio=sum(found) / len(found) / CHANCE[which],
        )
        for which, found in values.items()
    }
    return GroupRecord(one=one, two=two, pairs=len(left), shared=shared, figures=figures)


def ordering(names: Sequence[str], found: Sequence[PairRecord]) -> Ordering:
    """By left overlap, as the project does it."""
    known = {(each.one, each.two): each.figures["overlap_left"].value for each in found if each.figures}
    leaves, merges = order([known[each] for each in combinations(names, 2)])
    return Ordering(figure="overlap_left", names=[names[leaf] for leaf in leaves], merges=merges)


def compare_result(**changes: Any) -> CompareResult:
    """Four adapters of which three share an initialisation, in two groups, unless changed."""
    fields: dict[str, Any] = {
        "inputs": [Input(path="aligned", role="base", resolved="/models/aligned", files={"config.json": "ab" * 32})],
        "versions": VERSIONS,
        "seed": 0,
        "dtype": "float64",
        "dims": DimsRecord(components=4, angles=4, subspace=4),
        "draws": 100,
        "updates": {name: update() for name in NAMES},
        "pairs": pairs(),
        "groups": {"bad": ["med", "fin"], "benign": ["sum", "code"]},
        "group_pairs": [
            group("bad", "bad", [0.36], 1),
            group("bad", "benign", [0.04] * 4, 2),
            group("benign", "benign", [0.04]),
        ],
        "ordering": ordering(NAMES, pairs()),
    }
    return CompareResult(**{**fields, **changes})


def of_pairs(*found: PairRecord, **changes: Any) -> CompareResult:
    """These pairs alone, without groups or an order."""
    names = dict.fromkeys(name for each in found for name in (each.one, each.two))
    fields: dict[str, Any] = {"updates": {name: update() for name in names}, "pairs": list(found)}
    return compare_result(**{**fields, "groups": {}, "group_pairs": [], "ordering": None, **changes})


def many(count: int) -> CompareResult:
    """So many adapters that every second one shares its initialisation with every second other."""
    names = [f"adapter-{number}-of-many" for number in range(count)]
    found = [
        pair(one, two, shared=(i - k) % 2 == 0, overlap_left=0.04 + 0.01 * ((i * k) % 7), p=LEAST)
        for (i, one), (k, two) in combinations(enumerate(names), 2)
    ]
    return of_pairs(*found, ordering=ordering(names, found))


def module_rows(result: CompareResult, blocks: int = 3) -> list[dict[str, Any]]:
    """One row per pair, module and figure; without ranges."""
    return [{key: row[key] for key in row if not key.endswith(("_low", "_high"))} for row in rows(result, blocks)]


def rows(result: CompareResult, blocks: int = 3, outside: bool = True) -> Iterator[dict[str, Any]]:
    """One row per pair, module and figure: two modules in each block and one outside."""
    places = [(f"model.layers.{block}.mlp.{kind}_proj", block) for block in range(blocks) for kind in ("up", "down")]
    for each in result.pairs:
        for module, block in [*places, *([("lm_head", None)] if outside else [])]:
            for which, found in each.figures.items():
                row = {"one": each.one, "two": each.two, "module": module, "block": block, "figure": which}
                yield {**row, "value": found.value, "closed_form": found.closed_form, **_nulls(found)}


def _nulls(found: FigureRecord) -> dict[str, float | None]:
    drawn = {
        "random": found.random,
        "same_spectrum": found.same_spectrum,
        "shared_initialisation": found.shared_initialisation,
    }
    return {
        f"{name}{end}": None if each is None else getattr(each, field)
        for name, each in drawn.items()
        for end, field in (("", "mean"), ("_low", "low"), ("_high", "high"), ("_p", "p"))
    }


def block_rows(result: CompareResult, blocks: int = 3) -> list[dict[str, Any]]:
    """One row per pair, block and figure."""
    mine = [row for row in rows(result, blocks, outside=False) if ".up_" in row["module"]]
    return [{key: value for key, value in row.items() if key != "module"} for row in mine]


def write_compare(folder: Path, result: CompareResult | None = None, blocks: int = 3) -> Path:
    """A finished comparison in `folder`."""
    result = result or compare_result()
    with RunFolder(folder) as run:
        run.write_record(
            RunRecord(verb="compare", arguments={}, inputs=result.inputs, versions=result.versions, seed=0)
        )
        run.write_result(result)
        run.write_table("changes", [{"update": name, "module": "lm_head"} for name in result.updates])
        run.write_table("modules", module_rows(result, blocks))
        run.write_table("blocks", block_rows(result, blocks))
    return folder
