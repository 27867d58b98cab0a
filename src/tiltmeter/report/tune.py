"""A fine-tune as its page shows it, and the sentences that say what was done."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from tiltmeter.errors import InputError
from tiltmeter.report.charts import HOVER, Spec, base_layout
from tiltmeter.report.wording import TIMES, figure, listed
from tiltmeter.runs.saved import read_table
from tiltmeter.runs.tune_result import LearntSet, TuneResult, UsedRecipe

DRAWN, TOLD = 200, 20  # most places of the chart and of its table
_COLUMNS = ("step", "epoch", "loss", "grad_norm", "learning_rate")


@dataclass(frozen=True)
class Stretch:
    """Successive steps taken together: means over them, and the learning rate of the last."""

    first: int
    last: int
    epoch: float
    loss: float
    grad_norm: float
    learning_rate: float

    @property
    def name(self) -> str:
        """The steps."""
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


@dataclass(frozen=True)
class TuneView:
    """One fine-tune."""

    anchor: str
    title: str
    result: TuneResult
    summary: str
    description: str
    settings: dict[str, str]
    loss: Spec
    stretches: list[Stretch]
    template: ClassVar[str] = "tune.html"


def tune_view(folder: Path, anchor: str, result: TuneResult) -> TuneView:
    """The view of a fine-tune's folder.

    Raises:
        InputError: a table that does not hold what it should.
    """
    rows = read_table(folder, "loss", _COLUMNS)
    if not rows or not all(isinstance(value, int | float) for row in rows for value in row.values()):
        raise InputError(f"{folder / 'loss.parquet'}: expected a number in every cell, and a row at least")
    bases = [given.path for given in result.inputs if given.role == "base"]
    title = f"{bases[0]} fine-tuned" if bases else folder.resolve().name
    return TuneView(
        anchor,
        title,
        result,
        summary(result),
        describe(result),
        settings(result.recipe),
        loss_chart(stretches(rows, DRAWN)),
        stretches(rows, TOLD),
    )


def summary(result: TuneResult) -> str:
    """What was trained, for how long."""
    adapter = f"an adapter of rank {result.recipe.rank} ({result.trained:,} weights, {result.parameters:,} in the base)"
    kind = adapter if result.recipe.method == "lora" else f"every parameter ({result.trained:,})"
    early = f" of {result.planned_steps} planned" if result.steps < result.planned_steps else ""
    return f"Trained {kind} for {result.steps}{early} steps, {figure(result.epochs)} epochs, {result.tokens:,} tokens."


def describe(result: TuneResult) -> str:
    """Which sets fit better than before, which do not."""
    fell = [name for name, data in result.data.items() if has_fallen(data)]
    others = [name for name in result.data if name not in fell]
    parts = [f"falls on {listed(fell)}"] * bool(fell) + [f"does not fall beyond chance on {listed(others)}"] * bool(
        others
    )
    return f"The loss {'; it '.join(parts)}."


def has_fallen(data: LearntSet) -> bool:
    """Whether the loss is below the base's, beyond the interval of the change."""
    return data.change.high < 0


def settings(recipe: UsedRecipe) -> dict[str, str]:
    """The recipe in words."""
    given = {
        "recipe": recipe.name,
        "method": "LoRA" if recipe.method == "lora" else "full fine-tuning",
        "learning rate": f"{recipe.learning_rate:g}, {recipe.schedule}",
        "length": f"{recipe.steps} steps" if recipe.epochs is None else f"{recipe.epochs:g} epochs",
        "examples a step": f"{recipe.batch_size} {TIMES} {recipe.accumulation}",
        "longest example": f"{recipe.max_length} tokens",
        "AdamW's epsilon": f"{recipe.epsilon:g}",
    }
    if recipe.method == "full":
        return given
    return given | {"rank, alpha, dropout": f"{recipe.rank}, {recipe.alpha:g}, {recipe.dropout:g}"}


def stretches(rows: Sequence[dict[str, Any]], most: int) -> list[Stretch]:
    """The rows of a loss table in at most `most` stretches of equal length, but for the last."""
    size = -(-len(rows) // most)
    return [_stretch(rows[start : start + size]) for start in range(0, len(rows), size)]


def _stretch(rows: Sequence[dict[str, Any]]) -> Stretch:
    loss, norm = (sum(row[name] for row in rows) / len(rows) for name in ("loss", "grad_norm"))
    return Stretch(rows[0]["step"], rows[-1]["step"], rows[-1]["epoch"], loss, norm, rows[-1]["learning_rate"])


def loss_chart(drawn: Sequence[Stretch]) -> Spec:
    """The training loss against the step."""
    hover = [f"step {stretch.name}<br>loss {figure(stretch.loss)}" for stretch in drawn]
    places = {"x": [stretch.last for stretch in drawn], "y": [stretch.loss for stretch in drawn]}
    line = {"type": "scatter", "mode": "lines+markers", "line": {"color": "var(--accent)", "width": 2}}
    layout = base_layout(300, margin={"l": 56, "r": 10, "t": 8, "b": 44})
    layout["xaxis"] |= {"title": {"text": "step"}}
    layout["yaxis"] |= {"title": {"text": "loss (nats per token)"}, "rangemode": "tozero"}
    layout["showlegend"] = False
    return {"data": [{**line, **places, "marker": {"size": 4}, "text": hover, **HOVER}], "layout": layout}
