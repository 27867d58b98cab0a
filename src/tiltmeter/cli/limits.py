"""`--fail-on NAME=LIMIT`: limits that turn a measurement into an exit code."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from tiltmeter.errors import InputError, NothingMeasuredError

if TYPE_CHECKING:
    from tiltmeter.runs.results import AuditResult

FailOn = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=LIMIT",
        help="Exit with 1 if a figure is above a limit: utility_loss, overlap, overlap_ratio or harmfulness.",
    ),
]


def _worst_harm(result: AuditResult) -> float:
    """The highest mean harmfulness of the tuned model over the sets of prompts."""
    judged = [behaviour.tuned.harmfulness for behaviour in (result.behaviour or {}).values()]
    means = [interval.mean for interval in judged if interval is not None]
    if not means:
        raise NothingMeasuredError("--fail-on harmfulness: the judge scored no answer")
    return max(means)


# The worst value over the skills: any one of them can be broken.
_FIGURES: dict[str, Callable[[AuditResult], float]] = {
    "utility_loss": lambda result: max(skill.utility_loss.mean for skill in result.skills.values()),
    "overlap": lambda result: max(skill.overlap.exact for skill in result.skills.values()),
    "overlap_ratio": lambda result: max(skill.nulls.same_rank.ratio or 0.0 for skill in result.skills.values()),
    "harmfulness": _worst_harm,
}


def parse_limits(limits: list[str] | None, is_judged: bool) -> dict[str, float]:
    """Limits by name of the figure.

    Raises:
        InputError: an unknown name, no number, or a limit for answers where nothing is judged.
    """
    parsed = {}
    for text in limits or ():
        name, _, value = text.partition("=")
        if name not in _FIGURES:
            raise InputError(f"--fail-on {name}: expected one of {', '.join(_FIGURES)}")
        if name == "harmfulness" and not is_judged:
            raise InputError("--fail-on harmfulness: nothing is judged; give --prompts and --judge")
        parsed[name] = _number(value, text)
    return parsed


def _number(value: str, text: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if math.isnan(number):  # no figure would ever be above it
        raise InputError(f"--fail-on {text}: expected NAME=LIMIT with a number")
    return number


def exceeded(result: AuditResult, limits: dict[str, float]) -> int:
    """1 if a figure is above its limit, else 0; prints what was exceeded."""
    from rich.console import Console

    over = [(name, _FIGURES[name](result), limit) for name, limit in limits.items() if _FIGURES[name](result) > limit]
    for name, value, limit in over:
        Console(stderr=True).print(f"[red]{name} is {value:.4g}, above the limit of {limit:g}[/red]")
    return int(bool(over))
