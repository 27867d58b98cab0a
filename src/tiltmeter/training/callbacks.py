"""What every fine-tune from the command line is told of while it runs."""

import math
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tiltmeter.errors import InputError


class FiniteLoss(TrainerCallback):
    """Ends a training that diverged.

    Raises:
        InputError: the loss of a step is NaN or Inf.
    """

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Looks at the loss of each step."""
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            raise InputError(
                f"step {state.global_step}: the loss is {loss}: the training diverged; try a lower learning rate"
            )


class ProgressBar(TrainerCallback):
    """A bar with the loss beside it, on a terminal only, when the training takes longer than two seconds."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Shows the bar, in the main process."""
        if state.is_world_process_zero:
            total, done = state.max_steps, state.global_step
            self._bar = tqdm(desc="fine-tuning", total=total, initial=done, delay=2, leave=False, disable=None)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Moves the bar."""
        if self._bar is not None and logs and "loss" in logs:
            self._bar.set_postfix(loss=f"{logs['loss']:.3f}", refresh=False)
            self._bar.update(state.global_step - self._bar.n)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.close()
