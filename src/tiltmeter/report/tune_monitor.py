"""What a monitor read during a fine-tune, as the page shows it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiltmeter.errors import InputError
from tiltmeter.report.charts import Spec
from tiltmeter.report.connect_charts import colour
from tiltmeter.report.tune_charts import Curve, readings_chart
from tiltmeter.report.wording import DASH, figure
from tiltmeter.runs.saved import read_table
from tiltmeter.runs.tune_result import Watched

# Figures of a reading: the title of each, and whether it has an interval.
FIGURES = {
    "utility_loss": ("utility loss (nats)", True),
    "foreseen_loss": ("foreseen utility loss (nats)", False),
    "overlap": ("exact overlap", False),
    "drift": ("drift in the top subspace", False),
    "rotation": ("rotation of the top subspace", False),
}
TOLD = 20  # most rows of a table


@dataclass(frozen=True)
class Panel:
    """One figure of all skills."""

    title: str
    chart: Spec


@dataclass(frozen=True)
class Read:
    """One skill: its colour in the charts, and a row per reading shown."""

    name: str
    colour: str
    rows: list[dict[str, str]]
    hidden: int


@dataclass(frozen=True)
class Readings:
    """All that a monitor read."""

    panels: list[Panel]
    skills: list[Read]


def readings(folder: Path, watched: Watched) -> Readings:
    """Of a run folder.

    Raises:
        InputError: `monitor.parquet` does not hold what it should.
    """
    rows = read_table(folder, "monitor", _columns())
    for row in rows:
        if row["skill"] not in watched.skills or not all(_is_number(row[name], name) for name in _columns()[1:]):
            raise InputError(
                f"{folder / 'monitor.parquet'}: expected numbers of the skills {', '.join(watched.skills)}"
            )
    by_skill = {name: [row for row in rows if row["skill"] == name] for name in watched.skills}
    drawn = [name for name in FIGURES if sum(row[name] is not None for row in rows) > len(by_skill)]  # one is no curve
    panels = [_panel(name, by_skill, watched) for name in drawn]
    return Readings(panels, [_read(name, index, mine) for index, (name, mine) in enumerate(by_skill.items())])


def _columns() -> list[str]:
    bounds = [f"{name}_{end}" for name, (_, is_interval) in FIGURES.items() if is_interval for end in ("low", "high")]
    return ["skill", "step", *FIGURES, *bounds]


def _is_number(value: Any, name: str) -> bool:
    return isinstance(value, int | float) or (name == "rotation" and value is None)


def _panel(name: str, by_skill: dict[str, list[dict[str, Any]]], watched: Watched) -> Panel:
    title, _ = FIGURES[name]
    curves = [_curve(name, skill, index, rows) for index, (skill, rows) in enumerate(by_skill.items())]
    limits = {given: value for given, value in watched.limits.items() if given.rpartition("/")[2] == name}
    alarms = [alarm for alarm in watched.alarms if alarm.figure == name]
    return Panel(title[0].upper() + title[1:], readings_chart(curves, limits, alarms, title))


def _curve(name: str, skill: str, index: int, rows: Sequence[dict[str, Any]]) -> Curve:
    known = [row for row in rows if row[name] is not None]
    steps, values = ([row[key] for row in known] for key in ("step", name))
    if not FIGURES[name][1]:
        return Curve(skill, colour(index), steps, values)
    low, high = ([row[f"{name}_{end}"] for row in known] for end in ("low", "high"))
    return Curve(skill, colour(index), steps, values, low, high)


def _read(name: str, index: int, rows: Sequence[dict[str, Any]]) -> Read:
    stride = -(-len(rows) // TOLD) or 1
    shown = [row for place, row in enumerate(rows) if (len(rows) - 1 - place) % stride == 0]
    return Read(name, colour(index), [_cells(row) for row in shown], len(rows) - len(shown))


def _cells(row: dict[str, Any]) -> dict[str, str]:
    loss = f"{figure(row['utility_loss'])} [{figure(row['utility_loss_low'])}, {figure(row['utility_loss_high'])}]"
    others = {name: DASH if row[name] is None else figure(row[name]) for name in FIGURES if name != "utility_loss"}
    return {"step": str(row["step"]), "utility_loss": loss, **others}
