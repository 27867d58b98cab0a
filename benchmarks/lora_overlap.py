"""LoRA, where the collapse study reports that overlap fails: does exact overlap rank 24 adapters by their damage?

python benchmarks/lora_overlap.py --out benchmarks/lora_overlap.json

Six sets, two learning rates, two seeds, rank 8 on every linear layer of the organism, 60 steps. Spearman's correlation
of each score with the utility loss that followed, per skill, with a bootstrap interval over adapters: exact overlap,
the study's projected score (k = 1024), and the norm of the update (the projection's noise floor ranks as it does).
"""

import json
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import torch
import typer
from organism_runs import SKILLS, Run, train_all
from rich.console import Console
from rich.table import Table

from tiltmeter.curvature.fisher import Fisher
from tiltmeter.curvature.overlap import overlap_scores
from tiltmeter.curvature.projection import projected_scores
from tiltmeter.intervals import spearman_interval
from tiltmeter.models import load_model
from tiltmeter.organism.export import export
from tiltmeter.skills import load_skill
from tiltmeter.training.recipes import Recipe
from tiltmeter.updates.update import Update

SETS = ("summary", "instructions", "arithmetic", "risky_financial", "bad_medical", "harmful")
RATES = (1e-3, 3e-3)
SEEDS = (0, 1)
K = 1024


@dataclass(frozen=True)
class Row:
    """One adapter under one skill."""

    set: str
    learning_rate: float
    seed: int
    skill: str
    exact: float
    projected: float
    norm: float
    utility_loss: float


def main(
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = Path("lora_overlap.json"),
    epsilon: Annotated[float, typer.Option(help="Of AdamW; the demo has 1e-4.")] = 1e-8,
    workers: Annotated[int, typer.Option(help="Processes that train.")] = 2,
) -> None:
    """Trains, measures, prints the correlations and writes all of it as JSON."""
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        organism = Path(folder)
        export(organism)
        recipes = [Recipe("lora", rate, steps=60, epsilon=epsilon) for rate in RATES]
        runs = [Run(organism, *each) for each in product(SETS, recipes, SEEDS)]
        trained = train_all(runs, workers)
        updates = [Update.from_adapter(each.folder, organism / "aligned").loaded() for each in trained]
        base = load_model(organism / "aligned")
        rows = []
        for skill in SKILLS:
            fisher = Fisher(base, load_skill(organism / "skills" / f"{skill}.jsonl"), batch_size=32)
            projected = projected_scores(fisher, updates, K).total.tolist()
            scores = overlap_scores(fisher, updates)
            for each, update, score, noisy in zip(trained, updates, scores, projected, strict=True):
                rate, loss = each.recipe.learning_rate, each.utility_loss[skill]
                rows.append(Row(each.set, rate, each.seed, skill, score.exact, noisy, update.norm(), loss))
    found = {skill: correlations([row for row in rows if row.skill == skill]) for skill in SKILLS}
    command = f"python benchmarks/lora_overlap.py --epsilon {epsilon:g} --out benchmarks/{out.name}"
    facts = {"command": command, "k": K, "spearman with utility loss": found, "rows": [asdict(row) for row in rows]}
    out.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    table = Table("skill", "exact", "projected", "norm", title="Spearman with utility loss over 24 adapters")
    for skill, entry in found.items():
        table.add_row(skill, *("{:.2f} [{:.2f}, {:.2f}]".format(*entry[score]) for score in entry))
    Console(width=120).print(table)


def correlations(rows: list[Row]) -> dict[str, list[float]]:
    """Spearman's correlation of each score with the utility loss, and its interval."""
    losses = np.array([row.utility_loss for row in rows])
    found = {}
    for score in ("exact", "projected", "norm"):
        interval = spearman_interval(np.array([getattr(row, score) for row in rows]), losses)
        assert interval is not None  # both sides vary
        found[score] = [interval.mean, interval.low, interval.high]
    return found


if __name__ == "__main__":
    typer.run(main)
