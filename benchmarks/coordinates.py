"""What coordinates and Gram cost, as ratios to one plain forward+backward over the same examples, in one run.

python benchmarks/coordinates.py --out benchmarks/coordinates.json

Random Llama of width 256 with 4 blocks, 32 examples of 128 tokens, float32, one thread. Tasks take turns within each
round, and a ratio is taken within a round. Seconds are CPU seconds of the process, which other programs on the machine
disturb less than wall time; with one thread they are the wall time of a quiet machine. Peak memory is that of the
resident set (VmHWM, reset before the run) above what is resident when the run begins: model, data and updates. It is
taken in a round of its own, before which freed memory is given back to the system; that cold round's ratio, which holds
the price of fresh pages on the machine, stands in a column of its own. Linux with glibc only, for the memory.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import transformers
import typer
from rich.console import Console
from rich.table import Table
from tqdm import tqdm
from workload import (
    PLAIN,
    STUDY_K,
    Prepare,
    Run,
    Size,
    all_tasks,
    keep_freed_memory,
    linear_tasks,
    measure,
    projected,
    random_model,
    random_skill,
    random_updates,
)

from tiltmeter.curvature.fisher import Fisher

BARS = {
    "coordinates of one adapter (rank 8)": 0.9,
    "coordinates of one dense update": 1.05,
    "coordinates of eight dense updates": 1.15,
    "Gram of every module": 1.2,
}
ROUNDS = {1: 2, 2: 1, 4: 0, 8: 0}  # of the second table by factor, after the cold one
SCALED = {
    "examples": Size(),
    "tokens": Size(),
    "width": Size(examples=4),  # 64 times the weights at 8 times the width
}
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Row:
    """One task: its ratio to the plain pass (median of rounds, and in the cold one), CPU seconds and peak bytes."""

    name: str
    ratio: float
    cold: float
    low: float
    high: float
    seconds: float
    peak: int
    rounds: int
    bar: float | None = None


@dataclass(frozen=True)
class ScaledRow:
    """One task at one size; `growth` is its CPU seconds over those at factor 1, `expected` what linear growth is."""

    grown: str
    factor: int
    name: str
    ratio: float
    seconds: float
    growth: float
    expected: int
    peak: int


def main(
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = Path("coordinates.json"),
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of the first table.")] = 7,
    peers: Annotated[Path | None, typer.Option(help="A Python interpreter that has bergson.")] = None,
    scaling: Annotated[bool, typer.Option(help="Measure the second table too.")] = True,
) -> None:
    """Measures cost and memory of coordinates and Gram, prints two tables and writes them as JSON."""
    torch.set_num_threads(1)
    keep_freed_memory()
    load = [os.getloadavg()[0]]
    rows = first_table(rounds) + (peer_rows(peers, rounds) if peers else [])
    load.append(os.getloadavg()[0])
    scaled = scaled_table() if scaling else []
    load.append(os.getloadavg()[0])
    facts = {
        "command": " ".join(["python", *sys.argv]).replace(str(peers), "PYTHON"),
        "machine": machine() | {"load": load},
        "rows": [asdict(row) for row in rows],
        "scaling": [asdict(row) for row in scaled],
    }
    out.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    show(rows, scaled)


def first_table(rounds: int) -> list[Row]:
    """Every task at the standard size; the slow projection in one round."""
    model = random_model(Size())
    fisher = Fisher(model, random_skill(Size()))
    tasks = all_tasks(model, fisher)
    runs = interleaved(tasks, rounds)
    (dense,) = random_updates(model, fisher.modules, 1, rank=None)
    slow: dict[str, Prepare] = {
        PLAIN: tasks[PLAIN],
        f"the study's projected score to {STUDY_K} (one round)": lambda: partial(projected, fisher, dense),
    }
    return summary(runs) + summary(interleaved(slow, 0))[1:]


def peer_rows(python: Path, rounds: int) -> list[Row]:
    """bergson's rows, from a process of its own with a plain pass of its own."""
    path = os.pathsep.join([str(HERE.parent / "src"), str(HERE)])
    command = [str(python), str(HERE / "peers_bergson.py"), str(rounds)]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    runs = {name: [Run(**run) for run in each] for name, each in found["runs"].items()}
    own, score = summary(runs)
    version = found["version"]
    return [
        replace(score, name=f"bergson {version}: score of one dense query"),
        replace(own, name=f"bergson {version}: plain forward+backward of its process"),
    ]


def scaled_table() -> list[ScaledRow]:
    """The linear tasks with examples, tokens and width grown alone; the largest sizes in one cold round."""
    rows = []
    for grown, smallest in SCALED.items():
        first: dict[str, Row] = {}
        for factor, rounds in ROUNDS.items():
            size = replace(smallest, **{grown: getattr(smallest, grown) * factor})
            model = random_model(size)
            fisher = Fisher(model, random_skill(size))
            runs = interleaved(linear_tasks(model, fisher), rounds, f"{grown} x {factor}")
            for row in summary(runs):
                base = first.setdefault(row.name, row)
                growth, expected = row.seconds / base.seconds, factor**2 if grown == "width" else factor
                rows.append(ScaledRow(grown, factor, row.name, row.ratio, row.seconds, growth, expected, row.peak))
    return rows


def interleaved(
    tasks: Mapping[str, Prepare], rounds: int, what: str = "rounds", measure: Callable[[Prepare, bool], Run] = measure
) -> dict[str, list[Run]]:
    """Runs of each task; every round runs each once. The first round is cold, and its seconds do not count."""
    runs: dict[str, list[Run]] = {name: [] for name in tasks}
    for index in tqdm(range(rounds + 1), what, file=sys.stderr):
        for name, task in tasks.items():
            runs[name].append(measure(task, index == 0))
    return runs


def summary(runs: Mapping[str, Sequence[Run]]) -> list[Row]:
    """Ratios to the first task, taken within rounds; the peak is that of the cold round. One round alone is both."""
    plain = next(iter(runs.values()))
    warm = slice(1 if len(plain) > 1 else 0, None)
    rows = []
    for name, each in runs.items():
        pairs = zip(each[warm], plain[warm], strict=True)
        ratios = [run.seconds / unit.seconds for run, unit in pairs]
        seconds = statistics.median(run.seconds for run in each[warm])
        middle = statistics.median(ratios)
        cold = each[0].seconds / plain[0].seconds
        low, high = min(ratios), max(ratios)
        rows.append(Row(name, middle, cold, low, high, seconds, each[0].peak, len(ratios), BARS.get(name)))
    return rows


def machine() -> dict[str, object]:
    """What the figures depend on, without names."""
    return {
        "cpus": os.cpu_count(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "dtype": "float32",
    }


def show(rows: Sequence[Row], scaled: Sequence[ScaledRow]) -> None:
    """Prints both tables."""
    console = Console(width=None if sys.stdout.isatty() else 140)
    columns = ["", "ratio", "lowest", "highest", "bar", "cold", "CPU s", "peak MB"]
    cells = (
        [r.name, *_two_places(r.ratio, r.low, r.high), _bar(r), *_two_places(r.cold, r.seconds), _megabytes(r.peak)]
        for r in rows
    )
    console.print(_table(f"relative to {PLAIN}, medians of rounds", columns, cells))
    columns = ["grown", "factor", "", "ratio at that size", "CPU s", "growth", "linear is", "peak MB"]
    cells = (
        [
            s.grown,
            str(s.factor),
            s.name,
            f"{s.ratio:.2f}",
            f"{s.seconds:.2f}",
            f"{s.growth:.1f}",
            str(s.expected),
            _megabytes(s.peak),
        ]
        for s in scaled
    )
    if scaled:
        console.print(_table("each grown alone; for width, linear in the number of weights", columns, cells))


def _table(title: str, columns: Iterable[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(title=title)
    for column in columns:
        table.add_column(column, justify="left" if column in ("", "grown") else "right")
    for row in rows:
        table.add_row(*row)
    return table


def _bar(row: Row) -> str:
    if row.bar is None:
        return ""
    return f"{row.bar:.2f} {'met' if row.ratio <= row.bar else 'MISSED'}"


def _two_places(*numbers: float) -> list[str]:
    return [f"{number:.2f}" for number in numbers]


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.0f}"


if __name__ == "__main__":
    typer.run(main)
