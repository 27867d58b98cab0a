"""A guarded training in one of several processes: what it ended with, as JSON. Started by accelerate."""

import json
import os
import sys
from pathlib import Path

import torch
from test_guards_in_trainers import LIMIT, SKILL, loss, of

from tiltmeter.training.guards.guard import Guard
from tiltmeter.training.guards.penalties import KLToBase
from tiltmeter.training.guards.trust_region import TrustRegion
from tiltmeter.training.guards.utility_limit import UtilityLimit
from tiny_training import trainer, weights


def train(folder: Path, guard: Guard, processes: int) -> torch.nn.Module:
    """The same examples in each step, however many processes share them. SGD does not blow rounding up."""
    share = {"per_device_train_batch_size": 4 // processes, "max_steps": 4, "optim": "sgd", "learning_rate": 0.05}
    made = trainer(folder, "lora", [guard], **share)
    module = of(made)
    for layer in module.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.0  # the processes draw from generators of their own
    made.train()
    return module


def ended(folder: Path, processes: int) -> dict[str, list[float]]:
    """The skill's loss, a sum over all weights and the number of corrected steps, for each guard."""
    guards: list[Guard] = [TrustRegion([SKILL], 1e-3), UtilityLimit([SKILL], LIMIT / 10), KLToBase([SKILL], 1.0)]
    found = {}
    for guard in guards:
        module = train(folder, guard, processes)
        total = sum(float(each.double().sum()) for each in weights(module).values())
        found[type(guard).__name__] = [loss(module), total, float(guard.corrections.steps)]
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    place = Path(sys.argv[1])
    (place / f"{os.environ['RANK']}.json").write_text(json.dumps(ended(place, int(os.environ["WORLD_SIZE"]))))
