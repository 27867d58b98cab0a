"""Logging through a Trainer from inside a callback, which the Trainer does not give itself to."""

import inspect
from collections.abc import Mapping

from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import CallbackHandler


def find_handler() -> CallbackHandler | None:
    """The handler that is calling this callback: no argument of an event leads to it."""
    frame = inspect.currentframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, CallbackHandler):
            return caller
        frame = frame.f_back
    return None


def log(
    handler: CallbackHandler,
    args: TrainingArguments,
    state: TrainerState,
    control: TrainerControl,
    figures: Mapping[str, float],
) -> None:
    """What `Trainer.log` does: an entry in the history, and every callback that writes logs is told.

    Whether the Trainer itself logs at this step stays as it was.
    """
    logs = {**figures, "epoch": state.epoch}
    state.log_history.append({**logs, "step": state.global_step})
    should_log = control.should_log
    handler.on_log(args, state, control, logs)
    control.should_log = should_log
