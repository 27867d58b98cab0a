"""A monitor as a section of a YAML file."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from tiltmeter.errors import InputError
from tiltmeter.training.monitor import Monitor

SECTION = "tiltmeter"


class MonitorSettings(BaseModel):
    """The arguments of `Monitor` that a text file can hold; see there."""

    model_config = ConfigDict(extra="forbid")

    skills: list[str] = Field(min_length=1)
    every: PositiveInt | None = None
    limits: dict[str, float] = {}
    on_limit: Literal["warn", "stop", "rollback"] = "warn"
    base: str | None = None

    def monitor(self) -> Monitor:
        """The monitor that they describe.

        Raises:
            InputError: as `Monitor`; a skill that cannot be read.
        """
        return Monitor(*self.skills, every=self.every, limits=self.limits, on_limit=self.on_limit, base=self.base)


def monitor_of(section: Mapping[str, Any]) -> Monitor:
    """The monitor of a section that nobody has checked yet.

    Raises:
        InputError: a setting that does not exist or has a wrong value; it names the setting.
    """
    try:
        return MonitorSettings.model_validate(dict(section)).monitor()
    except ValidationError as error:
        first: Any = error.errors()[0]
        place = ".".join(str(part) for part in (SECTION, *first["loc"]))
        raise InputError(f"{place}: {first['msg']}, got {first['input']!r:.80}") from error
