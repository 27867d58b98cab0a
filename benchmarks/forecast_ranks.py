"""Which figure, known before or right after the start, ranks fine-tunes by the damage that they are going to do?

python benchmarks/forecast_ranks.py --out benchmarks/forecast_ranks.json

Seven sets, three seeds, LoRA and full fine-tuning of the organism by the demo's recipes: 42 runs. Spearman's
correlation with the utility loss that followed, per skill, with a bootstrap interval over runs:

- forecast: evaluated utility loss of the Krylov forecast (4 products) at the planned end;
- forecast overlap (at its held point): `mean_n c_n^2` of the forecast displacement at the planned end, and at
  the last point before the forecast stands still;
- first order: rate `mean_n c_n(p)` times the planned time;
- epsilon, gamma: of the instability condition at d = 8;
- overlap, projected overlap (k = 1024) of the update after 5 steps;
- gradient norm and fine-tuning loss at the base.
"""

import json
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import torch
import typer
from organism_runs import SKILLS, Run, Trained, train_all
from peft import LoraConfig
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from tiltmeter.curvature.fisher import Fisher
from tiltmeter.curvature.flow import krylov
from tiltmeter.curvature.forecast import drift, krylov_course
from tiltmeter.curvature.instability import Instability, Subspace
from tiltmeter.curvature.planned import Plan, planned_flow, roll_out
from tiltmeter.curvature.projection import projected_scores
from tiltmeter.curvature.training_loss import TrainingLoss
from tiltmeter.curvature.training_space import TrainingSpace, adapter_space, weight_space
from tiltmeter.intervals import spearman_interval
from tiltmeter.models import Model, load_model
from tiltmeter.organism.export import export
from tiltmeter.skills import load_skill
from tiltmeter.tokens import encode
from tiltmeter.training.recipes import ORGANISM_FULL, ORGANISM_LORA, Recipe

SETS = (
    "summary",
    "instructions",
    "arithmetic",
    "instructions_top",
    "risky_financial",
    "bad_medical",
    "harmful",
)
SEEDS = (0, 1, 2)
DIMS, EARLY, POINTS, K = 8, 5, 6, 1024
Figures = dict[str, float]


@dataclass(frozen=True)
class Row:
    """One run under one skill: predictors, and the utility loss that followed."""

    set: str
    method: str
    seed: int
    skill: str
    predictors: Figures
    utility_loss: float


def main(
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = Path("forecast_ranks.json"),
    workers: Annotated[int, typer.Option(help="Processes that train.")] = 2,
) -> None:
    """Trains, forecasts, prints the correlations and writes all of it as JSON."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=FutureWarning)
    with TemporaryDirectory() as folder:
        organism = Path(folder)
        export(organism)
        recipes = (ORGANISM_LORA, ORGANISM_FULL)
        trained = train_all([Run(organism, *each) for each in product(SETS, recipes, SEEDS)], workers)
        base = load_model(organism / "aligned")
        fishers = {
            name: Fisher(base, load_skill(organism / "skills" / f"{name}.jsonl"), batch_size=32) for name in SKILLS
        }
        rows = [row for run in tqdm(trained, "forecasting") for row in forecast(run, organism, base, fishers)]
    found = {method: correlations(rows, method) for method in ("all", "lora", "full")}
    facts = {
        "command": f"python benchmarks/forecast_ranks.py --out benchmarks/{out.name}",
        "spearman with utility loss": found,
        "rows": [asdict(row) for row in rows],
    }
    out.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    show(found)


def forecast(run: Trained, organism: Path, base: Model, fishers: dict[str, Fisher]) -> list[Row]:
    """Every predictor of one run, for both skills."""
    recipe = run.recipe
    plan = Plan("adamw", recipe.learning_rate, recipe.steps, recipe.batch_size, recipe.epsilon, seed=run.seed)
    data = encode(load_skill(organism / "finetune" / f"{run.set}.jsonl"), base.tokenizer)
    with space_of(recipe, base, run.seed) as space:
        loss = TrainingLoss(space, data, 50)
        model = krylov(planned_flow(loss, plan), 4)
        times = [plan.time / 2**k for k in reversed(range(POINTS))]
        course = krylov_course(model, loss, times, {name: fisher.encoded for name, fisher in fishers.items()})
        start = space.join(space.parameters)
        (early,) = roll_out(loss, plan, [EARLY], lambda: space.join(space.parameters))
        displaced = space.displacement(early - start)
        updates = [*(space.tangent(row) for row in model.rows()), displaced]
    common = {"gradient norm": float(model.flow.gradient.norm()), "data loss": course.start}
    rows = []
    for name, fisher in fishers.items():
        c = fisher.coordinates(updates).sum(1)
        acceleration = torch.tensor(model.acceleration) @ c[:-1]
        reached = [time for time in times if course.held_from is None or time < course.held_from]
        along = drift(model, c[:-1], [times[-1], (reached or times[:1])[-1]], Subspace(fisher.gram().sum(0), DIMS))
        condition = Instability(Subspace(fisher.gram().sum(0), DIMS), model.size * c[0], acceleration, 1.0, 1)
        predictors = common | {
            "forecast": course.utility_loss(name)[-1],
            "forecast overlap": along.overlap[0],
            "forecast overlap at its held point": along.overlap[1],
            "first order": condition.first_order * plan.time,
            "epsilon": condition.epsilon,
            "gamma": condition.gamma,
            f"overlap after {EARLY} steps": float(c[-1].square().mean()),
            f"projected overlap after {EARLY} steps": float(projected_scores(fisher, [displaced], K).total[0]),
        }
        rows.append(Row(run.set, recipe.method, run.seed, name, predictors, run.utility_loss[name]))
    return rows


def space_of(recipe: Recipe, base: Model, seed: int) -> AbstractContextManager[TrainingSpace]:
    """What the recipe trains; the adapter's initial A is not the run's own."""
    if recipe.method == "full":
        return weight_space(base)
    config = LoraConfig(r=recipe.rank, lora_alpha=recipe.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    return adapter_space(base, config, seed)


def correlations(rows: Sequence[Row], method: str) -> dict[str, dict[str, list[float]]]:
    """Spearman's correlation of each predictor with the utility loss and its interval, by skill."""
    found: dict[str, dict[str, list[float]]] = {}
    for skill in SKILLS:
        some = [row for row in rows if row.skill == skill and method in ("all", row.method)]
        losses = np.array([row.utility_loss for row in some])
        found[skill] = {}
        for name in some[0].predictors:
            interval = spearman_interval(np.array([row.predictors[name] for row in some]), losses)
            assert interval is not None  # both sides vary
            found[skill][name] = [interval.mean, interval.low, interval.high]
    return found


def show(found: dict[str, dict[str, dict[str, list[float]]]]) -> None:
    """Prints a table per choice of runs."""
    for method, by_skill in found.items():
        table = Table("predictor", *by_skill, title=f"Spearman with utility loss, runs: {method}")
        for name in sorted(next(iter(by_skill.values())), key=lambda name: -by_skill[SKILLS[0]][name][0]):
            table.add_row(name, *("{:.2f} [{:.2f}, {:.2f}]".format(*entry[name]) for entry in by_skill.values()))
        Console(width=120).print(table)


if __name__ == "__main__":
    typer.run(main)
