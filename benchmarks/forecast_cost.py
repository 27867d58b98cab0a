"""What gradients, Hessian-vector products and a forecast cost, as ratios to one plain forward+backward pass.

python benchmarks/forecast_cost.py --out benchmarks/forecast_cost.json

Model, examples and measure as in coordinates.py; the skill and the fine-tuning data are of the same size.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import coordinates
import torch
import typer
from workload import BATCH, PLAIN, Prepare, Size, keep_freed_memory, plain, random_model, random_skill

from tiltmeter.curvature.fisher import Fisher
from tiltmeter.curvature.flow import krylov
from tiltmeter.curvature.forecast import drift, krylov_course
from tiltmeter.curvature.instability import Instability, Subspace
from tiltmeter.curvature.planned import Plan, planned_flow
from tiltmeter.curvature.second_derivative import second_derivatives
from tiltmeter.curvature.training_loss import TrainingLoss, central_difference
from tiltmeter.curvature.training_space import TrainingSpace, weight_space
from tiltmeter.models import Model

PRODUCT = "Hessian-vector product, double backward"
FORECAST = "forecast, 4 products, 6 points, one skill"
coordinates.BARS |= {PRODUCT: 3.2, FORECAST: 20}
PLAN = Plan(learning_rate=1e-4, steps=64, batch_size=BATCH)


def main(
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = Path("forecast_cost.json"),
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, after a cold one.")] = 5,
) -> None:
    """Measures cost and memory, prints a table and writes it as JSON."""
    torch.set_num_threads(1)
    keep_freed_memory()
    with tasks() as prepared:
        rows = coordinates.summary(coordinates.interleaved(prepared, rounds))
    command = " ".join(["python", *sys.argv])
    facts = {"command": command, "machine": coordinates.machine(), "rows": [asdict(row) for row in rows]}
    out.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    coordinates.show(rows, [])


@contextmanager
def tasks() -> Iterator[dict[str, Prepare]]:
    """What is timed, the plain pass first."""
    model = random_model(Size())
    examples = Fisher(model, random_skill(Size()), batch_size=BATCH).encoded
    with weight_space(model) as space:
        loss = TrainingLoss(space, examples, BATCH)
        gradient = loss.gradient()
        yield {
            PLAIN: lambda: partial(plain_pass, fresh(model), space),
            "gradient of the fine-tuning loss": lambda: loss.gradient,
            PRODUCT: lambda: partial(loss.product, gradient),
            "Hessian-vector product, central difference": lambda: partial(central_difference, loss, gradient),
            "instability condition: Gram, gradient, one product": lambda: partial(condition, fresh(model), loss),
            "the quartic law's second derivatives": lambda: partial(
                second_derivatives, fresh(model), space.tangent(gradient)
            ),
            FORECAST: lambda: partial(forecast, fresh(model), loss),
        }


def fresh(model: Model) -> Fisher:
    """A Fisher without a Gram."""
    return Fisher(model, random_skill(Size()), batch_size=BATCH)


def plain_pass(fisher: Fisher, space: TrainingSpace) -> None:
    """The plain pass with every weight learning, as before the space was opened."""
    ours = {id(parameter) for parameter in space.parameters.values()}
    for parameter in fisher.model.module.parameters():
        parameter.requires_grad_(True)
    plain(fisher.model, fisher)
    for parameter in fisher.model.module.parameters():
        parameter.requires_grad_(id(parameter) in ours)


def condition(fisher: Fisher, loss: TrainingLoss) -> tuple[float, float]:
    """epsilon and gamma of gradient flow."""
    model = krylov(planned_flow(loss, Plan("sgd")), 1)
    c = fisher.coordinates([loss.space.tangent(row) for row in model.rows()]).sum(1)
    acceleration = torch.tensor(model.acceleration) @ c
    found = Instability(Subspace(fisher.gram().sum(0), 8), model.size * c[0], acceleration, model.size, len(loss.space))
    return found.epsilon, found.gamma


def forecast(fisher: Fisher, loss: TrainingLoss) -> list[float]:
    """Condition, drift and evaluated utility loss of a planned AdamW run."""
    model = krylov(planned_flow(loss, PLAN), 4)
    times = [PLAN.time / 2**k for k in reversed(range(6))]
    course = krylov_course(model, loss, times, {"skill": fisher.encoded})
    c = fisher.coordinates([loss.space.tangent(row) for row in model.rows()]).sum(1)
    return drift(model, c, times, Subspace(fisher.gram().sum(0), 8)).drift + course.utility_loss("skill")


if __name__ == "__main__":
    typer.run(main)
