"""How much two LoRA updates of one A share on the right, whatever their B's: width 4096, rank 32, k = 16 and 20.

python benchmarks/shared_a.py --out benchmarks/shared_a.json

A is drawn as PEFT draws it, once for both; each B is random, its spectrum decaying by a factor from one singular value
to the next. Means over seeds, beside those of two nulls: Gaussian matrices (the study's baseline), and A kept with B of
the same spectrum in random orientation.
"""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from tiltmeter.geometry.comparison import compare
from tiltmeter.geometry.nulls import NULLS
from tiltmeter.geometry.similarity import FIGURES
from tiltmeter.updates.update import Update

WIDTH, RANK = 4096, 32
DECAYS = (1.0, 0.97, 0.95, 0.9, 0.8)
SHOWN = ("overlap_right", "angle_right", "component_cosine_right", "overlap_left")


@dataclass(frozen=True)
class Row:
    """One decay: figure -> (observed, random, shared initialisation), means over seeds."""

    decay: float
    figures: dict[str, tuple[float, float, float]]


def main(
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = Path("shared_a.json"),
    seeds: Annotated[int, typer.Option(help="Pairs per decay.")] = 16,
) -> None:
    """Measures, prints the table and writes it as JSON."""
    torch.set_num_threads(1)
    rows = [row(decay, seeds) for decay in tqdm(DECAYS, "decays")]
    table = Table("B's spectrum decays by", *(f"{figure}: seen / random / shared A" for figure in SHOWN))
    for each in rows:
        table.add_row(f"{each.decay:g}", *(" / ".join(f"{x:.3g}" for x in each.figures[figure]) for figure in SHOWN))
    Console(width=160).print(table)
    found = {"command": f"python {' '.join(sys.argv)}", "seeds": seeds, "rows": [asdict(each) for each in rows]}
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def row(decay: float, seeds: int) -> Row:
    """Means over seeds."""
    found = np.array([pair(decay, seed) for seed in range(seeds)]).mean(0)
    return Row(decay, {figure: tuple(found[FIGURES.index(figure)].tolist()) for figure in SHOWN})


def pair(decay: float, seed: int) -> np.ndarray:
    """(observed, random, shared initialisation) of each figure."""
    generator = torch.Generator().manual_seed(seed)
    A = (torch.rand(RANK, WIDTH, generator=generator) * 2 - 1) / WIDTH**0.5
    spectrum = decay ** torch.arange(float(RANK))
    updates = {}
    for name in ("one", "two"):
        turn = torch.linalg.qr(torch.randn(RANK, RANK, generator=generator)).Q
        left = torch.randn(WIDTH, RANK, generator=generator) * spectrum @ turn
        updates[name] = Update.from_tensors({"module": (left, A)})
    summary = compare(updates, seed=seed).pairs["one", "two"].modules["module"]
    nulls = [summary.means[NULLS.index(name)] for name in ("random", "shared_initialisation")]
    return np.stack([summary.values, *nulls], 1)


if __name__ == "__main__":
    typer.run(main)
