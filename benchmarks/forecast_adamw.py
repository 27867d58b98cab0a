"""AdamW forecasts against the runs that they foretell, step by step, on the organism.

python benchmarks/forecast_adamw.py --out benchmarks/forecast_adamw.json

Seven sets, LoRA and full fine-tuning by the demo's recipes, seed 0. At several steps of the plan: the mean utility loss
of the Krylov forecast (4 products, made at the base) and of a roll-out (the run itself, from the same initial adapter),
and the step up to which the forecast says that it can be trusted.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import torch
import typer
from forecast_ranks import SETS, space_of
from organism_runs import SKILLS
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from tiltmeter.curvature.fisher import Fisher
from tiltmeter.curvature.flow import krylov
from tiltmeter.curvature.forecast import drift, krylov_course, rolled_course
from tiltmeter.curvature.instability import Subspace
from tiltmeter.curvature.planned import Plan, planned_flow
from tiltmeter.curvature.training_loss import TrainingLoss
from tiltmeter.models import Model, load_model
from tiltmeter.organism.export import export
from tiltmeter.skills import load_skill
from tiltmeter.tokens import encode
from tiltmeter.training.recipes import ORGANISM_FULL, ORGANISM_LORA, Recipe

STEPS = (1, 2, 4, 8, 15, 30, 60)


@dataclass(frozen=True)
class Row:
    """One set, method and skill: utility losses at `STEPS`."""

    set: str
    method: str
    skill: str
    forecast: list[float]
    roll_out: list[float]
    trusted_steps: float


def main(out: Annotated[Path, typer.Option(help="JSON file to write.")] = Path("forecast_adamw.json")) -> None:
    """Forecasts, trains, prints both side by side and writes them as JSON."""
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        organism = Path(folder)
        export(organism)
        base = load_model(organism / "aligned")
        fishers = {
            name: Fisher(base, load_skill(organism / "skills" / f"{name}.jsonl"), batch_size=32) for name in SKILLS
        }
        jobs = [(name, recipe) for name in SETS for recipe in (ORGANISM_LORA, ORGANISM_FULL)]
        rows = [row for name, recipe in tqdm(jobs, "runs") for row in compare(name, recipe, organism, base, fishers)]
    command = f"python benchmarks/forecast_adamw.py --out benchmarks/{out.name}"
    facts = {"command": command, "steps": STEPS, "rows": [asdict(row) for row in rows]}
    out.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    show(rows)


def compare(name: str, recipe: Recipe, organism: Path, base: Model, fishers: dict[str, Fisher]) -> Iterator[Row]:
    """Forecast and roll-out of one set and recipe, for every skill."""
    plan = Plan("adamw", recipe.learning_rate, recipe.steps, recipe.batch_size, recipe.epsilon)
    data = encode(load_skill(organism / "finetune" / f"{name}.jsonl"), base.tokenizer)
    with space_of(recipe, base, seed=0) as space:
        loss = TrainingLoss(space, data, 50)
        times = [plan.learning_rate * step for step in STEPS]
        skills = {skill: fisher.encoded for skill, fisher in fishers.items()}
        model = krylov(planned_flow(loss, plan), 4)
        course = krylov_course(model, loss, times, skills)
        rolled = rolled_course(loss, plan, STEPS, skills)
        rows = [space.tangent(row) for row in model.rows()]
    for skill, fisher in fishers.items():
        along = drift(model, fisher.coordinates(rows).sum(1), times, Subspace(fisher.gram().sum(0), 8))
        forecast = course.utility_loss(skill)
        trusted = course.trusted_for(forecast, along.quadratic) / plan.learning_rate
        yield Row(name, recipe.method, skill, forecast, rolled.utility_loss(skill), trusted)


def show(rows: list[Row]) -> None:
    """Prints forecast / roll-out at each step."""
    table = Table("set", "method", "skill", *(f"step {step}" for step in STEPS), "trusted to step")
    for row in rows:
        cells = (f"{a:.3f} / {b:.3f}" for a, b in zip(row.forecast, row.roll_out, strict=True))
        table.add_row(row.set, row.method, row.skill, *cells, f"{row.trusted_steps:.3g}")
    Console(width=180).print(table)


if __name__ == "__main__":
    typer.run(main)
