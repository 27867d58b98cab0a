"""The command line with a pause after each training step, so that a test can kill it in the middle."""

import time

import torch
from transformers import TrainerCallback

from tiltmeter.cli import main

if __name__ == "__main__":
    torch.set_num_threads(1)
    TrainerCallback.on_step_end = lambda *_, **__: time.sleep(0.02)  # type: ignore[method-assign]
    main()
