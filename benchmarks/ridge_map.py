"""What all penalties of a ridge map cost beside scikit-learn's RidgeCV: width 2048 on both sides, 1,000 prompts.

python benchmarks/ridge_map.py --out benchmarks/ridge_map.json

Both choose among the same penalties by exact leave-one-out errors over all outputs, in float64, by turns in one
process, on one thread; CPU seconds of the process. Singular values of the source fall as a power law, and the target
is linear in it up to noise. A second target of the same source needs no second factorisation.
"""

import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import sklearn
import torch
import typer
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import RidgeCV
from threadpoolctl import threadpool_limits
from torch import Tensor
from tqdm import trange

from tiltmeter.activations.maps.ridge import RidgeFit, RidgeSource, fit_ridge

OURS, SECOND, THEIRS = "one SVD, all penalties", "a second target of the source", "RidgeCV"


@dataclass(frozen=True)
class Row:
    """Median CPU seconds; the ratio to RidgeCV in the same round: median, lowest and highest."""

    name: str
    seconds: float
    ratio: float
    low: float
    high: float


@dataclass(frozen=True)
class Agreement:
    """Of both: the penalty, relative difference of errors at most, of coefficients by norm."""

    penalty: float
    same_penalty: bool
    errors: float
    coefficients: float


def main(
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = Path("ridge_map.json"),
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, after a cold one.")] = 5,
    prompts: int = 1000,
    width: int = 2048,
) -> None:
    """Measures, prints the table and writes it as JSON."""
    torch.set_num_threads(1)
    source, target = activations(prompts, width)
    with threadpool_limits(1):
        ours = fit_ridge(source, target)
        factorised = RidgeSource(source)
        tasks: dict[str, Callable[[], object]] = {
            OURS: lambda: fit_ridge(source, target),
            SECOND: lambda: factorised.fit(target),
            THEIRS: lambda: RidgeCV(ours.penalties).fit(source.numpy(), target.numpy()),
        }
        seconds = np.array([[timed(task) for task in tasks.values()] for _ in trange(rounds + 1, desc="rounds")])[1:]
        agreement = agree(ours, source, target)
    ratios = seconds / seconds[:, [-1]]
    rows = [
        Row(name, float(np.median(spent)), float(np.median(ratio)), float(ratio.min()), float(ratio.max()))
        for name, spent, ratio in zip(tasks, seconds.T, ratios.T, strict=True)
    ]
    show(rows)
    facts = {
        "command": f"python {' '.join(sys.argv)}",
        "machine": machine(),
        "prompts": prompts,
        "width": width,
        "penalties": len(ours.penalties),
        "rounds": rounds,
        "agreement": asdict(agreement),
        "rows": [asdict(row) for row in rows],
    }
    out.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def activations(prompts: int, width: int) -> tuple[Tensor, Tensor]:
    """Source and target, both [prompts, width]."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    axes = torch.linalg.qr(normal(width, width)).Q
    source = (normal(prompts, width) / torch.arange(1, width + 1, dtype=torch.float64).sqrt()) @ axes
    return source, source @ normal(width, width) + 0.5 * normal(prompts, width)


def timed(task: Callable[[], object]) -> float:
    """CPU seconds of one run."""
    start = time.process_time()
    task()
    return time.process_time() - start


def agree(ours: RidgeFit, source: Tensor, target: Tensor) -> Agreement:
    """Compares with a RidgeCV that keeps its errors."""
    theirs = RidgeCV(ours.penalties, store_cv_results=True).fit(source.numpy(), target.numpy())
    errors = theirs.cv_results_.mean((0, 1))
    W = ours.map.matrix.numpy()
    return Agreement(
        ours.penalty,
        bool(ours.penalty == theirs.alpha_),
        float(np.abs(np.array(ours.errors) / errors - 1).max()),
        float(np.linalg.norm(W - theirs.coef_) / np.linalg.norm(W)),
    )


def machine() -> dict[str, object]:
    """What the seconds depend on."""
    return {
        "cpus": os.cpu_count(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "scikit-learn": sklearn.__version__,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "dtype": "float64",
    }


def show(rows: list[Row]) -> None:
    """Prints the table."""
    table = Table("", "CPU seconds", "ratio to RidgeCV", "lowest", "highest")
    for row in rows:
        table.add_row(row.name, *(f"{value:.3g}" for value in (row.seconds, row.ratio, row.low, row.high)))
    Console(width=120).print(table)


if __name__ == "__main__":
    typer.run(main)
