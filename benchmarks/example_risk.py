"""What ranking candidate examples costs, as a ratio to one plain forward+backward over the same examples, in one run.

python benchmarks/example_risk.py --out benchmarks/example_risk.json

The model, the clock and the rounds are those of coordinates.py: random Llama of width 256 with 4 blocks, examples of
128 tokens, float32, one thread, CPU seconds, medians of rounds. The mean gradients of the skills are made beforehand:
each is one pass over the skill's own examples, at the price of the last row.
"""

import json
import os
import sys
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from coordinates import interleaved, machine, show, summary
from workload import PLAIN, Prepare, Size, keep_freed_memory, plain, random_model, random_skill

from tiltmeter.curvature.example_risk import example_risk
from tiltmeter.curvature.fisher import Fisher
from tiltmeter.curvature.mean_gradient import mean_gradient

BARS = {"harm and cosine": 1.3}
SKILL = Size(examples=32)


def main(
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = Path("example_risk.json"),
    rounds: Annotated[int, typer.Option(min=1, help="Rounds after the cold one.")] = 3,
    examples: Annotated[int, typer.Option(min=1, help="Candidates to rank.")] = 1000,
) -> None:
    """Measures the cost of ranking examples, prints it and writes it as JSON."""
    torch.set_num_threads(1)
    keep_freed_memory()
    load = os.getloadavg()[0]
    runs = interleaved(tasks(examples), rounds)
    rows = [replace(row, bar=BARS.get(row.name)) for row in summary(runs)]
    facts = {
        "command": " ".join(["python", *sys.argv]),
        "machine": machine() | {"load": [load, os.getloadavg()[0]]},
        "examples": examples,
        "rows": [asdict(row) for row in rows],
    }
    out.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    show(rows, [])


def tasks(examples: int) -> dict[str, Prepare]:
    """What is timed, all over the same candidates; the first is the measure of the rest."""
    model = random_model(Size())
    candidates = Fisher(model, random_skill(Size(examples=examples)))
    gradient = mean_gradient(Fisher(model, random_skill(SKILL)))
    return {
        PLAIN: lambda: partial(plain, model, candidates),
        "harm alone": lambda: partial(candidates.coordinates, [gradient]),
        "harm and cosine": lambda: partial(example_risk, candidates, [gradient]),
        "harm and cosine for three skills": lambda: partial(example_risk, candidates, [gradient] * 3),
        "mean gradient": lambda: partial(mean_gradient, candidates),
    }


if __name__ == "__main__":
    typer.run(main)
