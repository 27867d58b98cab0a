"""Times bergson's gradient score and a plain forward+backward over the same random model and examples, in one process.

Runs in an interpreter that has bergson, torch and transformers, with the project's `src` on PYTHONPATH; prints one line
of JSON with the seconds of each round. `benchmarks/coordinates.py --peers PYTHON` starts it.
"""

import contextlib
import json
import logging
import math
import sys
import tempfile
from functools import partial

import bergson
import torch
from bergson.collector.collector import CollectorComputer
from bergson.collector.in_memory_collector import InMemoryCollector
from bergson.score.score_writer import InMemorySequenceScoreWriter
from datasets import Dataset
from workload import (
    BATCH,
    PLAIN,
    Size,
    Task,
    keep_freed_memory,
    linear_tasks,
    measure,
    random_model,
    random_skill,
    random_updates,
)

from tiltmeter.curvature.fisher import Fisher
from tiltmeter.models import Model
from tiltmeter.updates.update import Update


def prepare_bergson(model: Model, fisher: Fisher, update: Update, folder: str, found: list[torch.Tensor]) -> Task:
    """bergson's collector and scorer in memory, for the modules that the Fisher measures and one dense query."""
    rows = [
        (e.ids, [i if own else -100 for i, own in zip(e.ids, e.is_completion, strict=True)]) for e in fisher.encoded
    ]
    data = Dataset.from_dict({"input_ids": [ids for ids, _ in rows], "labels": [labels for _, labels in rows]})
    prefix = "model."  # bergson names modules from the base model, without the head
    names = {name.removeprefix(prefix): name for name in fisher.modules}
    query = {short: update[name].dense().flatten()[None] for short, name in names.items()}
    writer = InMemorySequenceScoreWriter(len(rows), 1)
    scorer = bergson.Scorer(query, list(query), writer, torch.device("cpu"), torch.float32)
    config = bergson.IndexConfig(run_path=folder)
    config.partial_run_path.mkdir(exist_ok=True)
    collector = InMemoryCollector(
        model=model.module.base_model,
        cfg=config,
        processor=bergson.GradientProcessor(),
        target_modules=set(names),
        data=data,
        scorer=scorer,
    )
    batches = [list(range(start, min(start + BATCH, len(rows)))) for start in range(0, len(rows), BATCH)]
    computer = CollectorComputer(model=model.module, data=data, collector=collector, batches=batches, cfg=config)

    def run() -> None:
        # As bergson's own set-up does: weights frozen, embeddings learning so that gradients flow.
        model.module.requires_grad_(False)
        model.module.get_input_embeddings().requires_grad_(True)
        computer.run_with_collector_hooks()
        model.module.requires_grad_(True)
        found[:] = [writer.scores[:, 0].double()]

    return run


def main() -> None:
    """The first argument is the number of rounds."""
    torch.set_num_threads(1)
    keep_freed_memory()
    logging.disable()
    model = random_model(Size())
    fisher = Fisher(model, random_skill(Size()), batch_size=BATCH)
    (update,) = random_updates(model, fisher.modules, 1, rank=None)
    found: list[torch.Tensor] = []
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        tasks = {
            PLAIN: linear_tasks(model, fisher)[PLAIN],
            "score": partial(prepare_bergson, model, fisher, update, f"{folder}/run", found),
        }
        rounds = [
            {name: measure(task, cold=index == 0) for name, task in tasks.items()}
            for index in range(1 + int(sys.argv[1]))
        ]
        expected = -fisher.coordinates([update])[0].sum(0)
    difference = float((found[0] - expected).norm() / expected.norm())
    if not math.isfinite(difference) or difference > 1e-3:
        raise SystemExit(f"bergson scores something else: relative difference {difference}")
    runs = {name: [{"seconds": r[name].seconds, "peak": r[name].peak} for r in rounds] for name in tasks}
    print(json.dumps({"version": bergson.__version__, "difference": difference, "runs": runs}))


if __name__ == "__main__":
    main()
