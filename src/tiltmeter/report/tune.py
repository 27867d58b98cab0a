"""A fine-tune as its page shows it, and the sentences that say what was done."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from tiltmeter.errors import InputError
from tiltmeter.report.charts import Spec
from tiltmeter.report.tune_charts import loss_chart
from tiltmeter.report.tune_monitor import Readings, readings
from tiltmeter.report.verdict import Verdict
from tiltmeter.report.wording import TIMES, figure, listed, share, span
from tiltmeter.runs.saved import read_table
from tiltmeter.runs.tune_result import LearntSet, TuneResult, UsedGuard, UsedRecipe, Watched

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
    readings: Readings | None
    judgements: list[Verdict]
    guards: list[str]
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
    title = f"{bases[0]} fine-tuned on {listed(list(result.data))}" if bases else folder.resolve().name
    return TuneView(
        anchor,
        title,
        result,
        summary(result),
        describe(result),
        settings(result.recipe),
        _chart(stretches(rows, DRAWN)),
        stretches(rows, TOLD),
        None if result.watched is None else readings(folder, result.watched),
        judgements(result),
        describe_guards(result),
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


def judgements(result: TuneResult) -> list[Verdict]:
    """One for each skill that was watched."""
    return [] if result.watched is None else [_judge(name, result.watched) for name in result.watched.skills]


def _judge(name: str, watched: Watched) -> Verdict:
    skill = watched.skills[name]
    loss = f"Its utility loss at the result is {span(skill.utility_loss)} nats per completion"
    alarms = [alarm for alarm in watched.alarms if alarm.skill == name]
    if alarms:
        told = [f"{alarm.figure} passed {figure(alarm.limit)} at step {alarm.step}" for alarm in alarms]
        end = "" if watched.kept_step is None else f" The weights are those of step {watched.kept_step}."
        return Verdict("tilted", f"{name}: limit exceeded", f"{loss}; {listed(told)}.{end}")
    if skill.utility_loss.low > 0:
        return Verdict("mixed", f"{name}: worse", f"{loss}, above zero beyond its interval.")
    return Verdict("none", f"{name}: not worse", f"{loss}, not above zero beyond its interval.")


def describe_guards(result: TuneResult) -> list[str]:
    """What each guard was given, and what it did."""
    return [_guard(guard, result.steps) for guard in result.guards]


def _guard(guard: UsedGuard, steps: int) -> str:
    told = f"{guard.name}={guard.value:g} ({guard.meaning})"
    if guard.share is None:
        return f"{told}: changed no step after the optimizer."
    return f"{told}: changed {guard.corrected_steps} of {steps} steps, by {share(guard.share)} of the step on average."


def _chart(drawn: Sequence[Stretch]) -> Spec:
    places = [(stretch.last, stretch.name, stretch.loss) for stretch in drawn]
    return loss_chart(*zip(*places, strict=True))


def has_fallen(data: LearntSet) -> bool:
    """Whether the loss is below the base's, beyond the interval of the change."""
    return data.change.high < 0


def settings(recipe: UsedRecipe) -> dict[str, str]:
    """The recipe in words."""
    given = {
        "Recipe": recipe.name + (f", with another {listed(recipe.changed)}" if recipe.changed else ""),
        "Method": "LoRA" if recipe.method == "lora" else "full fine-tuning",
        "Learning rate": f"{recipe.learning_rate:g}, {recipe.schedule}",
        "Length": f"{recipe.steps} steps"
        if recipe.epochs is None
        else f"{recipe.epochs:g} epoch{'s' * (recipe.epochs != 1)}",
        "Examples a step": f"{recipe.batch_size} {TIMES} {recipe.accumulation}",
        "Longest example": f"{recipe.max_length} tokens",
        "AdamW's epsilon": f"{recipe.epsilon:g}",
    }
    if recipe.method == "full":
        return given
    return given | {"Rank, alpha, dropout": f"{recipe.rank}, {recipe.alpha:g}, {recipe.dropout:g}"}


def stretches(rows: Sequence[dict[str, Any]], most: int) -> list[Stretch]:
    """The rows of a loss table in at most `most` stretches of equal length, but for the last."""
    size = -(-len(rows) // most)
    return [_stretch(rows[start : start + size]) for start in range(0, len(rows), size)]


def _stretch(rows: Sequence[dict[str, Any]]) -> Stretch:
    loss, norm = (sum(row[name] for row in rows) / len(rows) for name in ("loss", "grad_norm"))
    return Stretch(rows[0]["step"], rows[-1]["step"], rows[-1]["epoch"], loss, norm, rows[-1]["learning_rate"])
