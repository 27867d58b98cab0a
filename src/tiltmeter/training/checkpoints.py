"""A fine-tune's checkpoints: written by the Trainer, marked when they are whole, and thinned out at the end."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

_WHOLE, _ENDED = "whole", "ended"
_PREFIX = "checkpoint-"
# What only the Trainer reads, to go on; several of these files are pickles.
_STATE = (
    "optimizer.pt",
    "scheduler.pt",
    "scaler.pt",
    "rng_state*.pth",
    "training_args.bin",
    "trainer_state.json",
    _WHOLE,
)


@dataclass(frozen=True)
class Checkpoints:
    """Where a fine-tune saves itself, so that it can go on after it was killed.

    Attributes:
        folder: holds `checkpoint-STEP/` folders.
        every: optimizer steps between two of them; 0 for none.
        keep: how many stay after the end, as models; while training runs there are at least two.
    """

    folder: Path
    every: int
    keep: int = 0

    def last(self) -> Path | None:
        """The newest one to go on from: written to its end, and training was to go on after it."""
        return next((path for path in self._newest_first() if (path / _WHOLE).read_text() != _ENDED), None)

    def finish(self, tokenizer: PreTrainedTokenizerBase) -> list[Path]:
        """Leave the newest `keep` as models with a tokenizer, without what only a training that goes on needs."""
        kept = self._newest_first()[: self.keep]
        for path in self.folder.glob(f"{_PREFIX}*"):
            if path not in kept:
                shutil.rmtree(path)
        for file in (file for path in kept for pattern in _STATE for file in path.glob(pattern)):
            file.unlink()
        for path in kept:
            tokenizer.save_pretrained(path)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()
        return kept

    def _newest_first(self) -> list[Path]:
        whole = [marker.parent for marker in self.folder.glob(f"{_PREFIX}*/{_WHOLE}")]
        return sorted(whole, key=lambda path: int(path.name.removeprefix(_PREFIX)), reverse=True)


class MarkWhole(TrainerCallback):
    """Marks each checkpoint once every process has written its part of it. It comes last among the callbacks."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The Trainer, and the callbacks before this one, have written the checkpoint."""
        PartialState().wait_for_everyone()
        if state.is_world_process_zero:
            # From a last checkpoint the Trainer would take one more step, and a limit's stop would be forgotten.
            folder = Path(str(args.output_dir)) / f"{_PREFIX}{state.global_step}"
            part = folder / f"{_WHOLE}.part"
            part.write_text(_ENDED if control.should_training_stop else "")
            part.replace(folder / _WHOLE)
