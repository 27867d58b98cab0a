"""The words of a forecast."""

from dataclasses import dataclass
from typing import Literal

from tiltmeter.report.wording import figure
from tiltmeter.runs.forecast_result import Condition, ForecastResult, PlanRecord

Kind = Literal["tilted", "mixed", "none"]


@dataclass(frozen=True)
class Words:
    """How a figure is spoken of.

    Attributes:
        figure: what it is.
        does: what data does that makes it high, with room for "the most".
        effect: the same as a noun.
        kinds: the word of a verdict, without a limit and with one.
    """

    figure: str
    does: str
    effect: str
    kinds: dict[Kind, tuple[str, str]]


SKILL = Words(
    "a utility loss",
    "do{} harm",
    "harm",
    {
        "tilted": ("harm forecast", "above the limit"),
        "mixed": ("uncertain", "uncertain"),
        "none": ("no harm found", "within the limit"),
    },
)
PROXY = Words(
    "a gain",
    "raise the proxy{}",
    "rise",
    {
        "tilted": ("rise forecast", "above the limit"),
        "mixed": ("uncertain", "uncertain"),
        "none": ("no rise found", "within the limit"),
    },
)


def steps(value: float | None) -> str:
    """A number of steps; one decimal below ten.

    >>> steps(21.7), steps(3.44), steps(60.0), steps(None)
    ('22', '3.4', '60', '\u2013')
    """
    if value is None or value >= 1e5:
        return figure(value)
    return f"{value:.0f}" if value >= 10 or value == round(value) else f"{value:.1f}"


def leading(figures: Condition, plan: PlanRecord) -> str:
    """Which order of the drift leads at the planned end, and the step at which the second takes over."""
    if figures.crossing_time is None:
        return "first"
    crossing = steps(figures.crossing_time / plan.learning_rate)
    return f"second, from {crossing}" if figures.regime == "second order" else f"first, until {crossing}"


def unit(result: ForecastResult) -> str:
    """What a loss or a gain is per."""
    return "per example" if result.reduction == "sum" else "per token"


def plan_sentence(plan: PlanRecord) -> str:
    """The planned run."""
    method = "LoRA" if plan.method == "lora" else "full fine-tuning"
    optimizer = "AdamW" if plan.optimizer == "adamw" else "SGD"
    run = f"{plan.steps} step{'' if plan.steps == 1 else 's'}, batches of {plan.batch_size}"
    return f"{method} by {optimizer}, learning rate {plan.learning_rate:g}, {run}"
