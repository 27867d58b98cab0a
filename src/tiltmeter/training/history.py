"""What a monitor has seen of a training, in a form that the Trainer writes into its checkpoints."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pydantic import TypeAdapter
from transformers import TrainerState

from tiltmeter.errors import InputError
from tiltmeter.training.reading import Alarm, Moment, Reading


class History:
    """Readings, alarms and flow time so far. It lives in the Trainer's state, in JSON's terms.

    Args:
        state: of the Trainer; what it holds of a monitor of the same skills is taken up.
        skills: their names.
        theta_0: fingerprint of the weights that displacements are measured from.

    Raises:
        InputError: the state's monitor measured from other weights.
    """

    def __init__(self, state: TrainerState, skills: Sequence[str], theta_0: str) -> None:
        key = f"tiltmeter {' '.join(skills)}"
        held: Any = state.stateful_callbacks  # a dictionary, whatever its type says
        fresh = {"readings": [], "alarms": [], "time": 0.0, "rate": 0.0, "theta_0": theta_0}
        self._saved: dict[str, Any] = held.setdefault(key, {"args": {}, "attributes": fresh})["attributes"]
        if self._saved["theta_0"] != theta_0:
            raise InputError(
                f"training goes on from step {state.global_step}, but the model that the Trainer was made with is not "
                "the one that this training began with: make it with the base, or give Monitor(base=FOLDER)"
            )
        self.readings = TypeAdapter(list[Reading]).validate_python(self._saved["readings"])
        self.alarms = TypeAdapter(list[Alarm]).validate_python(self._saved["alarms"])

    def moment(self, step: int, last: int) -> Moment:
        """The step that was done last, of a training that ends with the step `last`."""
        time, rate = float(self._saved["time"]), float(self._saved["rate"])
        return Moment(step, time, time + rate * (last - step))

    def advance(self, learning_rate: float) -> None:
        """A step was taken."""
        self._saved["time"] += learning_rate
        self._saved["rate"] = learning_rate

    def of(self, skill: str) -> list[Reading]:
        """The readings of one skill."""
        return [reading for reading in self.readings if reading.skill == skill]

    def add(self, readings: Sequence[Reading]) -> None:
        """Readings come in."""
        self.readings += readings
        self._saved["readings"] += [asdict(reading) for reading in readings]

    def note(self, alarms: Sequence[Alarm]) -> list[Alarm]:
        """Keeps the alarms of limits that were not exceeded before, and returns them."""
        known = {(alarm.skill, alarm.figure) for alarm in self.alarms}
        new = [alarm for alarm in alarms if (alarm.skill, alarm.figure) not in known]
        self.alarms += new
        self._saved["alarms"] += [asdict(alarm) for alarm in new]
        return new
