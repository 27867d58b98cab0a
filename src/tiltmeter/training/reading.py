"""What a monitor measures, and what it does about it, as records."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tiltmeter.errors import InputError
from tiltmeter.intervals import Interval

LIMITED = (
    "first_order",
    "overlap",
    "normalised_overlap",
    "drift",
    "utility_loss",
    "foreseen_loss",
    "utility_loss_per_token",
    "rotation",
)


@dataclass(frozen=True)
class Moment:
    """A step of a training, in steps and in flow time: learning rates summed.

    Attributes:
        end: the flow time at which training ends, if the learning rate stays.
    """

    step: int
    time: float
    end: float


@dataclass(frozen=True)
class Reading:
    """One skill at one step of a training, all of it about `dtheta = theta_t - theta_0`.

    Attributes:
        skill: its name.
        step: optimizer steps done.
        time: flow time, the learning rates of these steps summed.
        coordinates: `c_n(dtheta) = <g_n, dtheta>` with the gradients at theta_0, over the measured linear modules.
        losses: `log pi_theta_0(y_n|x_n) - log pi_theta_t(y_n|x_n)` of each example, by the skill's reduction.
        norm: `||dtheta||` over these modules.
        overlap: `OS = mean_n c_n^2`, exact.
        normalised_overlap: `OS / (||dtheta||^2 tr F)`; 0 where nothing moved.
        drift: `||F^{1/2} P dtheta||`, P the projector on the top-d eigenvectors of F at theta_0.
        utility_loss: mean of `losses`.
        utility_loss_per_token: over all completion tokens.
        exponent: log-log slope of the utility loss over time, see `local_exponent`.
        foreseen_loss: the utility loss at twice the time or the end of training, whichever comes first; see `foreseen`.
        rotation: `||P_0 - P_t||`, the sine of the largest principal angle; None where it was not measured.
        subspace_overlap: `tr(P_0 P_t) / d`; None where it was not measured.
    """

    skill: str
    step: int
    time: float
    coordinates: tuple[float, ...]
    losses: tuple[float, ...]
    norm: float
    overlap: float
    normalised_overlap: float
    drift: float
    utility_loss: Interval
    utility_loss_per_token: Interval
    exponent: Interval | None
    foreseen_loss: float
    rotation: float | None
    subspace_overlap: float | None

    @property
    def first_order(self) -> float:
        """The first-order prediction of the utility loss: `-mean_n c_n`, positive for harm."""
        return -sum(self.coordinates) / len(self.coordinates)

    def figures(self) -> dict[str, float]:
        """What was measured, by name, an interval as three numbers; without the examples' own."""
        found: dict[str, float] = {"first_order": self.first_order}
        for name, value in vars(self).items():
            if isinstance(value, Interval):
                found |= {name: value.mean, f"{name}_low": value.low, f"{name}_high": value.high}
            elif isinstance(value, float):
                found[name] = value
        return found


@dataclass(frozen=True)
class Limit:
    """The most that a figure may be.

    Attributes:
        figure: one of `LIMITED`.
        skill: the one that it holds for; None for all.
        value: the most.
    """

    figure: str
    skill: str | None
    value: float

    @classmethod
    def parse(cls, name: str, value: float, skills: Sequence[str]) -> "Limit":
        """From "utility_loss" or "refusal/utility_loss".

        Raises:
            InputError: no such figure or skill.
        """
        skill, _, figure = name.rpartition("/")
        if figure not in LIMITED or (skill and skill not in skills):
            raise InputError(
                f"limit {name!r}: expected one of {', '.join(LIMITED)}, or SKILL/FIGURE with a skill of "
                f"{', '.join(skills)}"
            )
        return cls(figure, skill or None, value)

    def is_exceeded(self, reading: Reading) -> bool:
        """NaN exceeds every limit; what was not measured none."""
        value = reading.figures().get(self.figure)
        concerns = self.skill in (None, reading.skill)
        return concerns and value is not None and not value <= self.value


@dataclass(frozen=True)
class Alarm:
    """A limit was exceeded, for the first time."""

    step: int
    skill: str
    figure: str
    value: float
    limit: float

    def __str__(self) -> str:
        return f"step {self.step}: {self.figure} of skill {self.skill} is {self.value:.4g}, the limit is {self.limit:g}"


def alarms_of(readings: Sequence[Reading], limits: Sequence[Limit]) -> list[Alarm]:
    """Every limit that a reading exceeds."""
    return [
        Alarm(reading.step, reading.skill, limit.figure, reading.figures()[limit.figure], limit.value)
        for reading in readings
        for limit in limits
        if limit.is_exceeded(reading)
    ]


def rows(readings: Sequence[Reading]) -> list[dict[str, Any]]:
    """A row a reading: skill, step and its figures; None where something was not measured."""
    found = [{"skill": each.skill, "step": each.step} | each.figures() for each in readings]
    columns = dict.fromkeys(name for row in found for name in row)
    return [{name: row.get(name) for name in columns} for row in found]
