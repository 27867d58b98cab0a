"""A monitored training in one of several processes: what each of them saw, as JSON. Started by accelerate."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

import tiny
from tiltmeter.training.gauge import Gauging
from tiltmeter.training.monitor import Monitor
from tiny_training import same, trainer, weights

HOW = Gauging(dims=3)


def train(folder: Path, monitors: list[Monitor], method: str, processes: int, save: bool = False) -> Any:
    """The same examples in each step, however many processes share them. SGD does not blow rounding up."""
    saving: dict[str, Any] = {"save_strategy": "steps", "save_steps": 4} if save else {}
    share = {"per_device_train_batch_size": 4 // processes, "max_steps": 4, "optim": "sgd", "learning_rate": 0.05}
    made = trainer(folder, method, monitors, **share, **saving)
    assert made.model is not None
    for layer in made.model.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.0  # the processes draw from generators of their own
    made.train()
    return made


def seen(folder: Path, method: str, processes: int) -> dict[str, Any]:
    """Readings; is the training as without a monitor; where a limit ended it, and with which weights."""
    free = Monitor(tiny.skill(), every=2, how=HOW)
    watched = train(folder / method, [free], method, processes, save=True)
    alone = train(folder / "alone", [], method, processes)
    between = sum(reading.overlap for reading in free.readings) / 2
    held = Monitor(tiny.skill(), every=2, limits={"overlap": between}, on_limit="rollback")
    ended = train(folder / "held", [held], method, processes)
    return {
        "rows": free.rows(),
        "coordinates": [reading.coordinates for reading in free.readings],
        "same": same(weights(watched.model), weights(alone.model)),
        "ended": ended.state.global_step,
        "kept_step": held.kept_step,
        "sum": float(sum(each.double().sum() for each in weights(ended.model).values())),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    place = Path(sys.argv[1])
    found = {method: seen(place, method, int(os.environ["WORLD_SIZE"])) for method in sys.argv[2:]}
    (place / f"{os.environ['RANK']}.json").write_text(json.dumps(found))
