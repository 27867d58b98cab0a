"""Watches skills while a model trains, and acts at a limit."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch import nn
from transformers import (
    PreTrainedTokenizerBase,
    ProcessorMixin,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import CallbackHandler

from tiltmeter.errors import InputError
from tiltmeter.skills import Skill, load_skill
from tiltmeter.training.displacement import Displacement
from tiltmeter.training.gauge import Gauge, Gauging
from tiltmeter.training.held import HeldWeights
from tiltmeter.training.history import History
from tiltmeter.training.pace import Pace, default_pace, tokens_a_step
from tiltmeter.training.reading import Alarm, Limit, Reading, alarms_of, rows
from tiltmeter.training.trainer_log import find_handler, log

ACTIONS = ("warn", "stop", "rollback")
_LOGGER = logging.getLogger(__name__)


class Monitor(TrainerCallback):
    """Measures what training does to skills: `theta_t - theta_0`, never gradients of the training loss.

    For any Trainer: `SFTTrainer(..., callbacks=[Monitor("refusal.jsonl")])`. At each reading, per skill: coordinates,
    exact overlap, drift in the top-d subspace, measured utility loss, its local exponent and where that leads, and at a
    slower pace the rotation of the subspace; see `Reading`. They are logged through the Trainer as
    `tiltmeter/SKILL/FIGURE`. Training with a monitor gives the same weights, bit for bit, as without one.

    Every process of a distributed run measures, and the first one's figures count. Readings are part of the Trainer's
    checkpoints. theta_0 is the model that the Trainer is made with; with LoRA, the base under the adapter.

    Args:
        skills: one or more, loaded or as paths or Hub ids.
        every: optimizer steps between two readings; by default as often as 5 % of the training's work allows.
        limits: the most that a figure may be, by its name ("utility_loss") for all skills, or "SKILL/FIGURE".
        on_limit: "warn"; "stop" the training; "rollback": stop, and go back to the weights of the last reading within
            the limits, which are kept in host memory.
        how: settings of the measurement.
        tokenizer: the model's; the Trainer's `processing_class` if not given.
        base: a model's folder with the weights theta_0, for a full fine-tune whose Trainer is made with others.

    Attributes:
        pace: when there are readings, once training has begun.
        kept_step: the step whose weights a rollback went back to; None without one.

    Raises:
        InputError: no skill, two of one name, a limit on nothing, a pace of less than a step.
    """

    def __init__(
        self,
        *skills: Skill | str | Path,
        every: int | None = None,
        limits: Mapping[str, float] | None = None,
        on_limit: str = "warn",
        how: Gauging | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        base: str | Path | None = None,
    ) -> None:
        self._skills = [skill if isinstance(skill, Skill) else load_skill(str(skill)) for skill in skills]
        names = [skill.name for skill in self._skills]
        if not names or len(set(names)) < len(names):
            raise InputError(f"a monitor needs skills of different names, got {names}")
        if every is not None and every < 1:
            raise InputError(f"expected at least one step between readings, got every={every}")
        if on_limit not in ACTIONS:
            raise InputError(f"on_limit: expected one of {', '.join(ACTIONS)}, got {on_limit!r}")
        self._limits = [Limit.parse(name, value, names) for name, value in (limits or {}).items()]
        self._every, self._on_limit, self._how = every, on_limit, how or Gauging()
        self._tokenizer, self._base = tokenizer, None if base is None else Path(base)
        self._displacement: Displacement | None = None
        self._history: History | None = None
        self._gauges: list[Gauge] = []
        self._handler: CallbackHandler | None = None
        self._good: HeldWeights | None = None
        self._good_step = 0
        self.pace: Pace | None = None
        self.kept_step: int | None = None

    @property
    def readings(self) -> list[Reading]:
        """So far, in order; those before a checkpoint that training went on from, too."""
        return [] if self._history is None else self._history.readings

    @property
    def alarms(self) -> list[Alarm]:
        """The first time that each limit was exceeded."""
        return [] if self._history is None else self._history.alarms

    def rows(self) -> list[dict[str, Any]]:
        """A row a reading: skill, step and figures, an interval as three columns; None where one was not measured."""
        return rows(self.readings)

    # Events of the Trainer.

    def on_init_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        processing_class: Any = None,
        **_: Any,
    ) -> None:
        """Keeps theta_0 now: a Trainer loads a checkpoint's weights before training begins."""
        if model is not None:
            self._displacement = Displacement(model, self._tokenizer_of(processing_class), self._base)

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        processing_class: Any = None,
        train_dataloader: Any = None,
        **_: Any,
    ) -> None:
        """Measures the skills at the base.

        Raises:
            InputError: training goes on from a checkpoint, and theta_0 is not the weights that it began with.
        """
        assert model is not None
        if self._displacement is None or not self._displacement.concerns(model):
            self._displacement = Displacement(model, self._tokenizer_of(processing_class), self._base)
            self._check_start(state, self._displacement)
        self._handler, self.kept_step = find_handler(), None
        self._history = History(state, [skill.name for skill in self._skills], self._displacement.fingerprint())
        self._gauges = [Gauge(self._displacement, skill, self._how) for skill in self._skills]
        self.pace = self._chosen_pace(args, state, train_dataloader)
        if self._on_limit == "rollback":
            self._good, self._good_step = HeldWeights(self._displacement.trained()), state.global_step

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, optimizer: Any = None, **_: Any
    ) -> None:
        """Counts flow time: the scheduler has not moved the learning rate on yet."""
        if self._history is not None:
            self._history.advance(float(optimizer.param_groups[0]["lr"]))

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """A reading, where one is due."""
        if self.pace is not None and self.pace.is_due(state.global_step):
            self._measure(args, state, control, self.pace.has_rotation(state.global_step))
        return control

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """A last reading where something else ended the training; a rollback holds against a best model loaded."""
        measured = self.readings[-1].step if self.readings else 0
        if self.kept_step is not None and self._good is not None:
            self._good.restore()
        elif measured < state.global_step:
            self._measure(args, state, control, with_rotation=self._how.rotates > 0)
        return control

    # What they consist of.

    def _tokenizer_of(self, processing_class: Any) -> PreTrainedTokenizerBase:
        found = self._tokenizer or processing_class
        found = found.tokenizer if isinstance(found, ProcessorMixin) else found
        if not isinstance(found, PreTrainedTokenizerBase) or not found.is_fast:
            raise InputError(
                "the monitor needs the model's fast tokenizer: give Monitor(tokenizer=...) or the Trainer's "
                f"processing_class, which is {type(found).__name__}"
            )
        return found

    def _check_start(self, state: TrainerState, displacement: Displacement) -> None:
        if state.global_step and displacement.is_kept and self._base is None:
            raise InputError(
                f"training goes on from step {state.global_step}, and its weights are no base: add the monitor when "
                "the Trainer is made (callbacks=[...]), with the base, or give Monitor(base=FOLDER)"
            )

    def _chosen_pace(self, args: TrainingArguments, state: TrainerState, train_dataloader: Any) -> Pace:
        if self._every is not None:
            return Pace(self._every, False, self._how.rotates, state.max_steps)
        tokens = sum(gauge.tokens for gauge in self._gauges)
        pace = default_pace(state.max_steps, tokens_a_step(train_dataloader, args), tokens, self._how.rotates)
        _say(str(pace), logging.INFO if pace.fits else logging.WARNING)
        return pace

    def _measure(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, with_rotation: bool
    ) -> None:
        assert self._history is not None
        now = self._history.moment(state.global_step, state.max_steps)
        found = [gauge.read(now, self._history.of(gauge.name), with_rotation) for gauge in self._gauges]
        readings: list[Reading] = broadcast_object_list(found)  # other processes may round otherwise
        self._history.add(readings)
        if self._handler is not None:
            log(self._handler, args, state, control, _logged(readings))
        self._act(alarms_of(readings, self._limits), now.step, control)

    def _act(self, alarms: Sequence[Alarm], step: int, control: TrainerControl) -> None:
        assert self._history is not None
        for alarm in self._history.note(alarms):
            _say(str(alarm))
        if alarms and self._on_limit != "warn":
            self._stop(control)
        elif not alarms and self._good is not None:
            self._good.take()
            self._good_step = step

    def _stop(self, control: TrainerControl) -> None:
        control.should_training_stop = True
        if self._good is None:
            _say("the training stops here")
            return
        self._good.restore()
        self.kept_step = self._good_step
        control.should_save = False  # the optimizer's state belongs to later weights
        _say(f"the training stops here, with the weights of step {self.kept_step}")


def _say(text: str, level: int = logging.WARNING) -> None:
    if PartialState().is_main_process:
        _LOGGER.log(level, "monitor: %s", text)


def _logged(readings: Sequence[Reading]) -> dict[str, float]:
    return {
        f"tiltmeter/{reading.skill}/{name}": value for reading in readings for name, value in reading.figures().items()
    }
