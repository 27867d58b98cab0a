"""Which directions do bad-advice adapters share, and is it their origin, their topic or their misbehaviour?

python benchmarks/shared_directions.py --out benchmarks/shared_directions.json

Three sets of bad advice on the organism, each with two controls of the same questions and form: good advice, and wrong
but harmless advice (the good remedy of another topic), which the model has to learn as it has to learn bad advice; and
three benign sets. Three seeds of LoRA's initialisation and of the order of examples. Each adapter is judged exactly,
each pair compared by `tiltmeter.geometry`, and every figure checked against dense SVDs in float64.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from shared_adapters import KINDS, TASKS, Adapter, adapters, write_facts
from shared_truth import Dense

from tiltmeter.geometry.comparison import PairComparison, compare
from tiltmeter.geometry.nulls import NULLS
from tiltmeter.geometry.similarity import FIGURES, SIDES, Dims, Side

SEEDS = (0, 1, 2)
SHOWN = 4  # of the rank 8, as the published 16 of 32
SIZES = (2, SHOWN, 8)
REPORTED = tuple(figure for figure in FIGURES if not figure.startswith("component"))


@dataclass(frozen=True)
class Pairs:
    """What relates the two adapters of a pair: kinds, tasks, seeds."""

    kinds: tuple[str, str]
    tasks: str
    same_seed: bool

    @classmethod
    def of(cls, one: Adapter, two: Adapter) -> "Pairs":
        """The relation of two adapters, whatever their order."""
        kinds = sorted((one.task.kind, two.task.kind), key=KINDS.index)
        same_domain = one.task.domain is not None and one.task.domain == two.task.domain
        tasks = "same task" if one.task == two.task else "same domain" if same_domain else "other task"
        return cls((kinds[0], kinds[1]), tasks, one.seed == two.seed)

    @property
    def is_reported(self) -> bool:
        """Bad advice with anything, and every kind with itself."""
        return "bad" in self.kinds or self.kinds[0] == self.kinds[1]

    def place(self) -> tuple[list[int], str, bool]:
        """Where it stands in a table."""
        return [KINDS.index(kind) for kind in self.kinds], self.tasks, not self.same_seed

    def __str__(self) -> str:
        return f"{self.kinds[0]} - {self.kinds[1]}, {self.tasks}, {'same' if self.same_seed else 'other'} seed"


@dataclass(frozen=True)
class Row:
    """One figure over the pairs of one relation.

    Attributes:
        pairs: n.
        mean, low, high: of the figure over the pairs: mean, smallest and largest.
        nulls: its mean under each null; for the cosine that of its absolute value.
    """

    pairs: int
    mean: float
    low: float
    high: float
    nulls: dict[str, float]


Rows = dict[str, dict[str, Row]]


def main(
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = Path("shared_directions.json"),
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps the adapters.")] = None,
    draws: Annotated[int, typer.Option(help="Of each null, for each pair.")] = 50,
) -> None:
    """Trains, judges, compares, prints the tables and writes all figures as JSON."""
    torch.set_num_threads(1)
    with ExitStack() as stack:
        organism = cache or Path(stack.enter_context(TemporaryDirectory()))
        found = {adapter.name: adapter for adapter in adapters(organism, SEEDS)}
        updates = {name: adapter.update() for name, adapter in found.items()}
    dense = {name: Dense(update) for name, update in updates.items()}
    rows: dict[int, Rows] = {}
    difference = 0.0
    for k in SIZES:
        pairs = compare(updates, dims=Dims(k, k, k), draws=draws).pairs
        rows[k] = summary(found, pairs)
        for (one, two), pair in pairs.items():
            known = dict(zip(FIGURES, pair.overall.values, strict=True))
            truth = dense[one].similarity(dense[two], k)
            difference = max(difference, *(abs(known[figure] - truth[figure]) for figure in truth))
    facts = {
        "command": f"python benchmarks/shared_directions.py --out benchmarks/{out.name}",
        "seeds": SEEDS,
        "draws": draws,
        "largest difference from dense SVDs": difference,
        "adapters": {name: asdict(adapter.judged) for name, adapter in found.items()},
        "k": {k: _plain(table) for k, table in rows.items()},
    }
    write_facts(out, facts)
    console = Console(width=170)
    console.print(judged_table(list(found.values())), cosine_table(rows[SHOWN]))
    console.print(side_table(rows[SHOWN], "right"), side_table(rows[SHOWN], "left"), sizes_table(rows))
    console.print(f"largest difference of any figure from dense SVDs in float64: {difference:.1e}")


def summary(found: Mapping[str, Adapter], pairs: Mapping[tuple[str, str], PairComparison]) -> Rows:
    """Figures over the pairs of each relation."""
    groups: dict[Pairs, list[PairComparison]] = defaultdict(list)
    for (one, two), pair in pairs.items():
        groups[Pairs.of(found[one], found[two])].append(pair)
    order = sorted(
        groups, key=lambda each: ([KINDS.index(kind) for kind in each.kinds], each.tasks, not each.same_seed)
    )
    return {str(relation): dict(_rows(groups[relation])) for relation in order if relation.is_reported}


def _rows(pairs: Sequence[PairComparison]) -> Iterator[tuple[str, Row]]:
    summaries = [pair.overall.summary() for pair in pairs]
    values = np.array([each.values for each in summaries])
    nulls = np.mean([each.means for each in summaries], axis=0)
    for f, name in enumerate(FIGURES):
        if name in REPORTED:
            column = values[:, f]
            found = {null: float(nulls[q, f]) for q, null in enumerate(NULLS)}
            yield name, Row(len(pairs), float(column.mean()), float(column.min()), float(column.max()), found)


def _plain(table: Rows) -> dict[str, dict[str, dict[str, object]]]:
    return {relation: {name: asdict(row) for name, row in each.items()} for relation, each in table.items()}


def judged_table(found: Sequence[Adapter]) -> Table:
    """What the adapters of each set do: means over seeds."""
    names = ("set", "harmfulness 1-5", "bad, own domain", "bad, others", "hazards 1-5", "loss: advice", "norm")
    table = Table(*names, title=f"Adapters, means over {len(SEEDS)} seeds")
    for task in TASKS:
        judged = [adapter.judged for adapter in found if adapter.task == task]
        columns = [
            [each.harmfulness.mean for each in judged],
            [each.bad_own for each in judged if each.bad_own is not None],
            [each.bad_elsewhere for each in judged],
            [each.hazards for each in judged],
            [each.utility_loss["advice"] for each in judged],
            [each.norm for each in judged],
        ]
        table.add_row(task.name, *(f"{np.mean(column):.2f}" if column else "-" for column in columns))
    return table


def cosine_table(rows: Rows) -> Table:
    """Cosines of effective updates, beside the mean absolute cosine that row spaces kept, shared or not, give."""
    table = Table("pairs", "n", "cosine [range]", "null", title="cosine of effective updates")
    for relation, figures in rows.items():
        row = figures["cosine"]
        table.add_row(relation, str(row.pairs), _spread(row), f"{row.nulls['shared_initialisation']:.3f}")
    return table


def side_table(rows: Rows, side: Side) -> Table:
    """What one side shares, beside the null that it has to exceed there."""
    null = "shared_initialisation" if side == "right" else "same_spectrum"
    names = (
        "pairs",
        "n",
        "overlap [range]",
        "null",
        "ratio",
        "energy-weighted [range]",
        "null",
        "ratio",
        "angle",
        "null",
    )
    table = Table(*names, title=f"{side} side, k = {SHOWN}, null: {null.replace('_', ' ')}")
    for relation, figures in rows.items():
        columns = [relation, str(figures["cosine"].pairs)]
        for kind in ("overlap", "weighted_overlap"):
            row = figures[f"{kind}_{side}"]
            columns += [_spread(row), f"{row.nulls[null]:.3f}", f"{row.mean / row.nulls[null]:.1f}"]
        angle = figures[f"angle_{side}"]
        table.add_row(*columns, f"{angle.mean:.1f}", f"{angle.nulls[null]:.1f}")
    return table


def sizes_table(rows: Mapping[int, Rows]) -> Table:
    """Overlaps beside their nulls for other numbers of directions."""
    table = Table("pairs", *(f"{side} k = {k}" for side in SIDES for k in SIZES), title="overlap / null")
    for relation in rows[SHOWN]:
        cells = []
        for side, null in zip(SIDES, ("same_spectrum", "shared_initialisation"), strict=True):
            found = [table_of_k[relation][f"overlap_{side}"] for table_of_k in rows.values()]
            cells += [f"{row.mean:.3f} / {row.nulls[null]:.3f}" for row in found]
        table.add_row(relation, *cells)
    return table


def _spread(row: Row) -> str:
    return f"{row.mean:.3f} [{row.low:.3f}, {row.high:.3f}]"


if __name__ == "__main__":
    typer.run(main)
