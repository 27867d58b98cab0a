"""Do held-out separation and its interval hold where there is nothing to find, and where the truth is known?

python benchmarks/noise_separability.py --out benchmarks/noise_separability.json

Gaussian activations of two models, float32, in seeds 0, 1, 2, ...; every seed is one draw of pairs, folds and swaps.
`noise` rows: two classes that differ in nothing. The other rows: other noise, shifts, and other probes than the
difference in means. An interval holds if it contains 0.5, or with a shift the mean held-out figure of all draws. Beside
it the percentile bootstrap over prompts of the same held-out values, which takes them as independent.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor
from tqdm import tqdm

from tiltmeter.activations.separation.folds import assign_folds
from tiltmeter.activations.separation.held_out import correct
from tiltmeter.activations.separation.probes import Probe, difference_in_means, logistic_probe, principal_component
from tiltmeter.activations.separation.separability import Separation, cross_fitted, separability, separation
from tiltmeter.intervals import Interval, mean_interval

WIDTHS, PROMPTS = (512, 1024, 2048, 3072), (100, 200, 500)
FIRST = 100  # the draws that the claim is about
FOLDS = 5
LEVEL = 0.05

Pairs = tuple[Tensor, Tensor]


def independent(prompts: int, width: int, generator: torch.Generator) -> Pairs:
    """No two activations have anything in common."""
    return torch.randn(prompts, width, generator=generator), torch.randn(prompts, width, generator=generator)


def shared_prompts(prompts: int, width: int, generator: torch.Generator) -> Pairs:
    """Nine tenths of the variance are the prompt's, the same in both models."""
    common = 3 * torch.randn(prompts, width, generator=generator)
    base, tuned = independent(prompts, width, generator)
    return common + base, common + tuned


def decaying(prompts: int, width: int, generator: torch.Generator) -> Pairs:
    """The k-th coordinate has the standard deviation 1/k."""
    scale = 1 / torch.arange(1.0, width + 1)
    base, tuned = independent(prompts, width, generator)
    return scale * base, scale * tuned


def outsize(prompts: int, width: int, generator: torch.Generator) -> Pairs:
    """Lengths of activations differ as one over a chi variable of three degrees of freedom: some are outsize."""
    chi = torch.randn(2, prompts, 1, 3, generator=generator).norm(dim=-1) / 3**0.5
    base, tuned = independent(prompts, width, generator)
    return base / chi[0], tuned / chi[1]


@dataclass(frozen=True)
class Cell:
    """One setting; `shift` is added to the tuned model's first coordinate."""

    group: str
    kind: Callable[[int, int, torch.Generator], Pairs]
    width: int
    prompts: int
    shift: float = 0.0
    probe: Probe = difference_in_means

    def describe(self) -> dict[str, Any]:
        return {**asdict(self), "kind": self.kind.__name__, "probe": self.probe.__name__}


CELLS = [
    *(Cell("noise", independent, width, prompts) for width in WIDTHS for prompts in PROMPTS),
    *(Cell("other noise", kind, 512, prompts) for kind in (shared_prompts, decaying, outsize) for prompts in (20, 100)),
    *(Cell("shift", independent, 512, prompts, shift) for shift in (2, 4, 6) for prompts in (20, 100)),
    *(Cell("shift", shared_prompts, 512, 100, shift) for shift in (4, 8)),
    *(Cell("shift", decaying, 512, 100, shift) for shift in (0.5, 2)),
    *(Cell("shift", outsize, 512, 100, shift) for shift in (3, 8)),
    *(
        Cell("probe", independent, 512, 100, shift, probe)
        for probe in (logistic_probe, principal_component)
        for shift in (0, 4)
    ),
]


@dataclass(frozen=True)
class Draw:
    """What one draw gave; p for the difference in means only."""

    in_sample: float
    held_out: Interval
    auroc: Interval
    bootstrap: Interval
    variance: float  # of the mean of the held-out values, were they independent
    p: float | None


def main(
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = Path("noise_separability.json"),
    draws: Annotated[int, typer.Option(help="Draws per cell.")] = 400,
) -> None:
    """Measures, prints the table and writes it as JSON."""
    torch.set_num_threads(1)
    rows = [{**cell.describe(), **row(cell, draws)} for cell in tqdm(CELLS, "cells")]
    shown = [key for key in rows[0] if key != "first_100"]
    table = Table(*shown)
    for each in rows:
        table.add_row(*(f"{each[key]:.4g}" if isinstance(each[key], float) else str(each[key]) for key in shown))
    Console(width=240).print(table)
    found = {"command": f"python {' '.join(sys.argv)}", "draws": draws, "folds": FOLDS, "rows": rows}
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def row(cell: Cell, draws: int) -> dict[str, Any]:
    """Shares over all draws, and over the first hundred."""
    found = [draw(cell, seed) for seed in range(draws)]
    means = np.array([each.held_out.mean for each in found])
    ratio = float(means.var(ddof=1) / np.mean([each.variance for each in found]))
    accuracy, auroc = (0.5, 0.5) if not cell.shift else (float(means.mean()), _mean([d.auroc.mean for d in found]))
    return {
        "in_sample": _mean([each.in_sample for each in found]),
        "held_out": float(means.mean()),
        "auroc": _mean([each.auroc.mean for each in found]),
        "width_of_interval": _mean([each.held_out.high - each.held_out.low for each in found]),
        "variance_ratio": ratio,
        **shares(found, accuracy, auroc),
        "first_100": shares(found[:FIRST], accuracy, auroc),
    }


def shares(found: Sequence[Draw], accuracy: float, auroc: float) -> dict[str, float | None]:
    """Of the draws: where the intervals hold the truth, where p is above the level, where accuracy and p both do."""
    holds = [_holds(each.held_out, accuracy) for each in found]
    above = [each.p > LEVEL for each in found if each.p is not None]
    return {
        "accuracy_holds": _mean(holds),
        "auroc_holds": _mean([_holds(each.auroc, auroc) for each in found]),
        "bootstrap_holds": _mean([_holds(each.bootstrap, accuracy) for each in found]),
        "p_above": _mean(above) if above else None,
        "both": _mean([a and b for a, b in zip(holds, above, strict=True)]) if above else None,
    }


def draw(cell: Cell, seed: int) -> Draw:
    """One draw of pairs, folds and swaps."""
    base, tuned = cell.kind(cell.prompts, cell.width, torch.Generator().manual_seed(seed))
    tuned[:, 0] += cell.shift
    found: Separation
    if cell.probe is difference_in_means:
        found = tested = separability(base, tuned, FOLDS, seed=seed)
        p: float | None = tested.p
    else:
        found, p = separation(base, tuned, cell.probe, FOLDS, seed), None
    held_out = cross_fitted(base.double(), tuned.double(), cell.probe, assign_folds(cell.prompts, FOLDS, seed))
    values = correct(held_out.base, held_out.tuned)
    variance = float(values.var(ddof=1) / cell.prompts)
    return Draw(found.in_sample, found.held_out, found.auroc, mean_interval(values, seed), variance, p)


def _holds(interval: Interval, truth: float) -> bool:
    return interval.low <= truth <= interval.high


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


if __name__ == "__main__":
    typer.run(main)
