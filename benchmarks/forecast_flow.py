"""Forecasts against gradient flow itself, on the organism: Krylov models of 2 to 16 products, and Taylor's forms.

python benchmarks/forecast_flow.py --out benchmarks/forecast_flow.json

Float64, weights of the linear modules in the blocks, refusal skill of 64 examples. The flow is integrated by the
midpoint rule, its step a quarter of one over the largest curvature. Two tables:
- drift `sqrt(mean_n c_n^2)` of each form over the flow's, at several times, and the utility loss of the flow beside
  that at the points of the 8-product model. "gamma t^2/2" is the study's law (arXiv 2602.15799), which takes the
  first-order overlap for zero: gamma is `sqrt(mean_n a_n^2)`, a the coordinates of H g, without a cut of dimensions;
- with the first-order overlap removed (the flow of `l - <s, theta>`, s the part of grad l in the span of the skill's
  gradients): drift over `gamma t^2 / 2`.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor
from tqdm import tqdm

from tiltmeter.curvature.fisher import Fisher
from tiltmeter.curvature.flow import Flow, Krylov, krylov
from tiltmeter.curvature.forecast import taylor
from tiltmeter.curvature.mean_gradient import weighted_gradient
from tiltmeter.curvature.training_loss import TrainingLoss
from tiltmeter.curvature.training_space import WeightSpace, weight_space
from tiltmeter.likelihood import log_likelihoods
from tiltmeter.models import load_model
from tiltmeter.organism.export import export
from tiltmeter.skills import load_skill
from tiltmeter.tokens import encode

SETS = ("summary", "instructions", "arithmetic", "bad_medical", "harmful")
PRODUCTS = (2, 4, 8, 16)
TIMES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
SHORT = (0.0005, 0.001, 0.002, 0.005, 0.02, 0.1)
EXAMPLES = 64


@dataclass(frozen=True)
class Row:
    """One set at one time: the flow's drift, each form's over it, and utility losses (flow; at the 8-product point)."""

    set: str
    time: float
    drift: float
    ratios: dict[str, float]
    utility_loss: float
    forecast_loss: float


@dataclass(frozen=True)
class NullRow:
    """One set with its first-order overlap removed: drift over `gamma t^2 / 2` at each time."""

    set: str
    ratios: dict[float, float]


def main(
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = Path("forecast_flow.json"),
    sets: Annotated[list[str] | None, typer.Option(help="Sets; all five if not given.")] = None,
    times: Annotated[list[float] | None, typer.Option(help="Of the first table, ascending.")] = None,
) -> None:
    """Measures both tables, prints them and writes them as JSON."""
    torch.set_num_threads(1)
    rows: list[Row] = []
    nulls: list[NullRow] = []
    with TemporaryDirectory() as folder:
        organism = Path(folder)
        export(organism)
        model = load_model(organism / "aligned", torch.float64)
        skill = Fisher(model, load_skill(organism / "skills" / "refusal.jsonl", limit=EXAMPLES), batch_size=32)
        for name in tqdm(sets or SETS, "sets"):
            with weight_space(model) as space:
                data = encode(load_skill(organism / "finetune" / f"{name}.jsonl"), model.tokenizer)
                loss = TrainingLoss(space, data, 50)
                rows += compare(name, loss, skill, times or TIMES)
                nulls.append(removed(name, loss, skill))
    command = " ".join(["python", *sys.argv])
    facts = {"command": command, "rows": [asdict(r) for r in rows], "first order removed": [asdict(n) for n in nulls]}
    out.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    show(rows, nulls)


def compare(name: str, loss: TrainingLoss, skill: Fisher, times: Sequence[float]) -> Iterator[Row]:
    """Every form against the flow, at every time."""
    model = krylov(Flow(loss.gradient(), loss.product), max(PRODUCTS))
    basis = coordinates(skill, loss.space, model.rows())
    velocity, acceleration = model.size * basis[0], torch.tensor(model.acceleration) @ basis
    before = log_likelihoods(loss.space.model, skill.encoded)

    def lost(change: Tensor) -> float:
        with loss.space.moved(change):
            return float((before - log_likelihoods(loss.space.model, skill.encoded)).mean())

    points = integrate(loss.gradient, loss.space, model, times)
    for time, change in zip(times, points, strict=True):
        (actual,) = coordinates(skill, loss.space, [change])
        forms = {
            f"krylov {m}": torch.tensor(model.coefficients(time, m)) @ basis[: model.products]
            for m in PRODUCTS
            if m <= model.products
        }
        forms |= {"first order": -time * velocity, "taylor": taylor(velocity, acceleration, [time])[0]}
        forms["gamma t^2/2"] = time**2 / 2 * acceleration
        size = rms(actual)
        forecast = lost(model.change(model.coefficients(time, min(8, model.products))))
        yield Row(name, time, size, {form: rms(c) / size for form, c in forms.items()}, lost(change), forecast)


def removed(name: str, loss: TrainingLoss, skill: Fisher) -> NullRow:
    """The flow of a loss whose gradient has no part in the span of the skill's gradients."""
    gradient = loss.gradient()
    shift = span_part(skill, loss.space, gradient)
    flow = Flow(gradient - shift, loss.product)
    model = krylov(flow, 1)
    (acceleration,) = coordinates(skill, loss.space, [loss.product(flow.gradient)])
    points = integrate(lambda: loss.gradient() - shift, loss.space, model, SHORT)
    drifts = [rms(c) for c in coordinates(skill, loss.space, points)]
    return NullRow(name, {t: d / (rms(acceleration) * t**2 / 2) for t, d in zip(SHORT, drifts, strict=True)})


def span_part(skill: Fisher, space: WeightSpace, vector: Tensor) -> Tensor:
    """The orthogonal projection of a vector on the span of the skill's gradients, all modules together."""
    gram = skill.gram().sum(0) * len(skill)
    (c,) = coordinates(skill, space, [vector])
    return space.vector(weighted_gradient(skill, torch.linalg.lstsq(gram, c, driver="gelsd").solution))


def integrate(
    gradient: Callable[[], Tensor], space: WeightSpace, model: Krylov, times: Sequence[float]
) -> list[Tensor]:
    """The displacement of the flow at each time, by the midpoint rule."""
    step = 0.25 / float(np.abs(model.eigenvalues).max())
    change, now, seen = torch.zeros(len(space), dtype=torch.float64), 0.0, []
    for time in times:
        count = max(4, int(np.ceil((time - now) / step)))
        h = (time - now) / count
        for _ in range(count):
            with space.moved(change):
                half = change - h / 2 * gradient()
            with space.moved(half):
                change = change - h * gradient()
        now = time
        seen.append(change)
    return seen


def coordinates(skill: Fisher, space: WeightSpace, vectors: Sequence[Tensor]) -> Tensor:
    """Coordinates of vectors, all modules together."""
    return skill.coordinates([space.tangent(vector) for vector in vectors]).sum(1)


def rms(c: Tensor) -> float:
    """`sqrt(mean_n c_n^2)`, the drift without a cut of dimensions."""
    return float(c.square().mean().sqrt())


def show(rows: Sequence[Row], nulls: Sequence[NullRow]) -> None:
    """Prints both tables."""
    console = Console(width=140)
    forms = list(rows[0].ratios)
    table = Table("set", "t", "drift of the flow", *(f"{form} / flow" for form in forms), "loss", "loss, 8 products")
    for row in rows:
        figures = [row.drift, *(row.ratios.get(form, float("nan")) for form in forms)]
        table.add_row(row.set, f"{row.time:g}", *(f"{x:.3g}" for x in [*figures, row.utility_loss, row.forecast_loss]))
    console.print(table)
    table = Table("first order removed", *(f"t = {t:g}" for t in nulls[0].ratios), title="drift / (gamma t^2 / 2)")
    for each in nulls:
        table.add_row(each.set, *(f"{x:.2f}" for x in each.ratios.values()))
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
