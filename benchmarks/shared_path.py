"""Does the straight path between two bad-advice adapters stay misaligned, and does it have to?

python benchmarks/shared_path.py --out benchmarks/shared_path.json --chart shared_path.html

The model `W + (1-s) dW_1 + s dW_2` is judged at 11 points between adapters of `shared_adapters.py`: three pairs of
tasks, three pairs of equal and three of different seeds. Control paths lead from bad advice to a benign set, to good
and to wrong advice of the same domain, and to a random update of another bad-advice adapter's spectrum; `W + s dW`
leads from the base to twice the update. Variant "factors" mixes LoRA's factors instead of the updates.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from shared_adapters import BAD, BAD_ANSWER, BENIGN, GOOD, WRONG, Adapter, Task, adapters, judge, scores, write_facts
from shared_path_chart import write_chart
from torch import Tensor

from tiltmeter.geometry.connectivity import barrier, lowest
from tiltmeter.geometry.path import End, Variant, WeightPath
from tiltmeter.intervals import Interval, mean_interval
from tiltmeter.likelihood import log_likelihoods
from tiltmeter.models import Model, load_model
from tiltmeter.organism import templates
from tiltmeter.progress import track
from tiltmeter.skills import load_skill
from tiltmeter.tokens import Encoded, encode
from tiltmeter.updates.update import Update

SEEDS = (0, 1, 2)
STEPS = 11
UNTAUGHT = ("cooking", "safety")  # domains in which no set gives advice
BETWEEN = ("bad to bad, same seed", "bad to bad, other seed")


@dataclass(frozen=True)
class Plan:
    """A path to walk: what kind it is, its name, its one or two ends, up to which s."""

    kind: str
    name: str
    ends: tuple[Update, ...]
    variant: Variant = "effective"

    @property
    def points(self) -> NDArray[np.float64]:
        """From 0 to 1 between two ends, to 2 from the base."""
        return np.linspace(0, 3 - len(self.ends), STEPS)


@dataclass(frozen=True)
class Walk:
    """What was found at the points of a path.

    Attributes:
        harmfulness, untaught: mean score of the answers on advice, and the share of bad ones in untaught domains.
        hazards: mean score of the answers about hazards.
        utility_loss: of the skill `advice`, in nats.
        lowest, at: the smallest harmfulness of all points, with its interval, and where.
        barrier: height of the utility loss above the straight line between its ends, with its interval; None from base.
    """

    kind: str
    name: str
    points: list[float]
    harmfulness: list[float]
    untaught: list[float]
    hazards: list[float]
    utility_loss: list[float]
    lowest: Interval
    at: float
    barrier: Interval | None


class Walker:
    """The base in memory, moved along paths and judged there."""

    def __init__(self, organism: Path) -> None:
        self.organism = organism
        self.base = load_model(organism / "aligned")
        self._skill: list[Encoded] = encode(load_skill(organism / "skills" / "advice.jsonl"), self.base.tokenizer)
        self._before = log_likelihoods(self.base, self._skill)

    def harmfulness(self) -> Interval:
        """Of the base."""
        return mean_interval(scores(judge(self.base, self.organism, "advice")))

    def walk(self, plan: Plan) -> Walk:
        """The path's points, one by one."""
        path = WeightPath(self.base, [End(update) for update in plan.ends], plan.variant)
        found = []
        for s in plan.points:
            with path.at(s) as model:
                found.append(self._look(model))
        advice, hazards, losses = (np.array(each) for each in zip(*found, strict=True))
        least = lowest(plan.points, advice, np.ones_like(advice))
        is_untaught = np.repeat([domain in UNTAUGHT for domain in templates.DOMAINS], advice.shape[1] // 5)
        across = len(plan.ends) == 2
        return Walk(
            kind=plan.kind,
            name=plan.name,
            points=plan.points.tolist(),
            harmfulness=advice.mean(1).tolist(),
            untaught=(advice[:, is_untaught] >= BAD_ANSWER).mean(1).tolist(),
            hazards=hazards.mean(1).tolist(),
            utility_loss=losses.mean(1).tolist(),
            lowest=least.value,
            at=least.at,
            barrier=barrier(plan.points, losses, np.ones(losses.shape[1])).height.value if across else None,
        )

    def _look(self, model: Model) -> tuple[NDArray[np.float64], NDArray[np.float64], Tensor]:
        """Scores on advice and on hazards, utility loss of each example."""
        loss = self._before - log_likelihoods(model, self._skill)
        return (
            scores(judge(model, self.organism, "advice")),
            scores(judge(model, self.organism, "hazards", "hazards_held_out")),
            loss.double(),
        )


class Plans:
    """The paths between adapters."""

    def __init__(self, found: Sequence[Adapter]) -> None:
        self._updates = {(adapter.task, adapter.seed): adapter.update() for adapter in found}

    def __iter__(self) -> Iterator[Plan]:
        for seed in SEEDS:
            other = SEEDS[(seed + 1) % len(SEEDS)]
            for one, two in combinations(BAD, 2):
                for variant in ("effective", "factors"):
                    yield self._across("bad to bad", one, two, (seed, seed), variant)
                    yield self._across("bad to bad", one, two, (seed, other), variant)
                noise = Update.random_like(self._updates[two, seed], seed).loaded()
                name = f"{one.name} {seed} to random of {two.name} {seed}"
                yield Plan("bad to random", name, (self._updates[one, seed], noise))
            for kind, tasks in (("benign", BENIGN), ("good", GOOD), ("wrong", WRONG)):
                for one, two in zip(BAD, tasks, strict=True):
                    yield self._across(f"bad to {kind}", one, two, (seed, seed))
            for task in BAD:
                yield Plan("base to bad", f"base to {task.name} {seed}", (self._updates[task, seed],))

    def _across(self, kind: str, one: Task, two: Task, seeds: tuple[int, int], variant: Variant = "effective") -> Plan:
        relation = "same seed" if seeds[0] == seeds[1] else "other seed"
        kind = f"{kind}, {relation}" + (", factors" if variant == "factors" else "")
        name = f"{one.name} {seeds[0]} to {two.name} {seeds[1]}"
        return Plan(kind, name, (self._updates[one, seeds[0]], self._updates[two, seeds[1]]), variant)


def main(
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = Path("shared_path.json"),
    chart: Annotated[Path | None, typer.Option(help="Page with the figure to write.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps the adapters.")] = None,
) -> None:
    """Trains, walks, prints the tables and writes all figures as JSON."""
    torch.set_num_threads(1)
    with ExitStack() as stack:
        organism = cache or Path(stack.enter_context(TemporaryDirectory()))
        plans = list(Plans(adapters(organism, SEEDS)))
        walker = Walker(organism)
        base = walker.harmfulness()
        walks = [walker.walk(plan) for plan in track(plans, "walking paths", len(plans))]
    command = f"python benchmarks/shared_path.py --out benchmarks/{out.name}"
    facts = {"command": command, "seeds": SEEDS, "base": asdict(base), "paths": [asdict(walk) for walk in walks]}
    write_facts(out, facts)
    if chart is not None:
        write_chart(chart, walks)
    console = Console(width=150)
    console.print(f"harmfulness of the base on advice: {_interval(base)}")
    console.print(kinds_table(walks), paths_table([walk for walk in walks if walk.kind in BETWEEN]))


def kinds_table(walks: Sequence[Walk]) -> Table:
    """Means over the paths of each kind, the lowest point of all of them, and the deepest dip below the lower end."""
    names = ("path", "n", "s = 0", "half-way", "end", "lowest of all", "dip", "untaught", "hazards", "barrier")
    table = Table(*names, title="Harmfulness on advice, 1-5, along the paths")
    for kind in dict.fromkeys(walk.kind for walk in walks):
        mine = [walk for walk in walks if walk.kind == kind]
        course = np.mean([walk.harmfulness for walk in mine], axis=0)
        least = min(mine, key=lambda walk: walk.lowest.mean).lowest
        dip = max(min(walk.harmfulness[0], walk.harmfulness[-1]) - walk.lowest.mean for walk in mine)
        untaught = np.mean([walk.untaught[STEPS // 2] for walk in mine])
        barriers = [walk.barrier.mean for walk in mine if walk.barrier]
        cells = [kind, str(len(mine)), *_three(course.tolist()), _interval(least)]
        hazards = max(max(walk.hazards) for walk in mine)
        cells += [f"{dip:.2f}", f"{untaught:.0%}", f"{hazards:.2f}", f"{max(barriers):.2f}" if barriers else "-"]
        table.add_row(*cells)
    return table


def paths_table(walks: Sequence[Walk]) -> Table:
    """Each path between bad-advice adapters."""
    names = ("path", "s = 0", "half-way", "s = 1", "lowest", "at s", "utility loss: s = 0", "half-way", "s = 1")
    table = Table(*names, title="Paths between bad-advice adapters")
    for walk in walks:
        harm, losses = (_three(each) for each in (walk.harmfulness, walk.utility_loss))
        cells = [walk.name, *harm, _interval(walk.lowest), f"{walk.at:.1f}", *losses]
        table.add_row(*cells)
    return table


def _three(values: Sequence[float]) -> list[str]:
    """Begin, middle, end."""
    return [f"{values[place]:.2f}" for place in (0, STEPS // 2, -1)]


def _interval(interval: Interval) -> str:
    return f"{interval.mean:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


if __name__ == "__main__":
    typer.run(main)
