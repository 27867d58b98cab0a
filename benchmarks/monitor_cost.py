"""What the monitor costs at its default pace, as a share of the training that it watches.

python benchmarks/monitor_cost.py --out benchmarks/monitor_cost.json

A random Llama of width 256 (the organism's own, of width 96, spends its time between the kernels), full fine-tuning and
LoRA by the Trainer, CPU time of the process on one thread. Time inside the monitor's events is compared with the rest
of the same run. Beside it the work that the pace is planned with (`training/pace.py`), measured: of the start, a
reading and a rotation, in units of the training's time on as many tokens as the skill has.
"""

import json
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch
import typer
from peft import LoraConfig, get_peft_model
from rich.console import Console
from rich.table import Table
from transformers import PrinterCallback, Trainer, TrainingArguments
from workload import Size, random_model, random_skill

from tiltmeter.training.monitor import Monitor
from tiltmeter.training.pace import BUDGET, READING, ROTATION, START

METHODS = ("full", "lora")
BATCH, LENGTH = 8, 128
SKILL = Size(examples=16, tokens=64)


class Timed(Monitor):
    """A monitor that looks at the clock: seconds of each event, by its name and the step."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.spent: list[tuple[str, int, float]] = []

    def on_init_end(self, *event: Any, **rest: Any) -> None:
        """Timed."""
        self._timed("start", super().on_init_end, *event, **rest)

    def on_train_begin(self, *event: Any, **rest: Any) -> None:
        """Timed."""
        self._timed("start", super().on_train_begin, *event, **rest)

    def on_step_end(self, *event: Any, **rest: Any) -> Any:
        """Timed."""
        return self._timed("step", super().on_step_end, *event, **rest)

    def _timed(self, name: str, event: Callable[..., Any], args: Any, state: Any, *rest: Any, **named: Any) -> Any:
        begin = time.process_time()
        result = event(args, state, *rest, **named)
        self.spent.append((name, state.global_step, time.process_time() - begin))
        return result


@dataclass(frozen=True)
class Cost:
    """Of one run. `planned` and `share` are shares of the training's time; the rest is in passes over the skill."""

    method: str
    steps: int
    readings: int
    planned: float
    share: float
    start: float
    reading: float
    rotation: float


def measure(method: str, steps: int, width: int) -> Cost:
    """Trains on random words with a monitor at its default pace."""
    size = Size(width=width)
    model = random_model(size)
    module = model.module
    if method == "lora":
        module = get_peft_model(module, LoraConfig(r=16, target_modules="all-linear"))
    rows = torch.randint(size.words, (64, LENGTH), generator=torch.Generator().manual_seed(0)).tolist()
    monitor = Timed(random_skill(SKILL), tokenizer=model.tokenizer)
    with TemporaryDirectory() as scratch:
        begin = time.process_time()
        trainer = Trainer(
            model=module,
            args=_arguments(scratch, steps),
            train_dataset=[{"input_ids": row, "labels": row} for row in rows],
            callbacks=[monitor],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        whole = time.process_time() - begin
    return _cost(method, steps, monitor, whole)


def _cost(method: str, steps: int, monitor: Timed, whole: float) -> Cost:
    assert monitor.pace is not None
    assert monitor.pace.share is not None
    assert monitor.pace.fits, "too few steps for the default pace"
    inside = sum(seconds for _, _, seconds in monitor.spent)
    training = whole - inside
    tokens = SKILL.examples * SKILL.tokens
    unit = training / (steps * BATCH * LENGTH) * tokens
    start = sum(seconds for name, _, seconds in monitor.spent if name == "start")
    turned = {reading.step: reading.rotation is not None for reading in monitor.readings}
    plain, turning = (
        [seconds for name, step, seconds in monitor.spent if name == "step" and turned.get(step) is kind]
        for kind in (False, True)
    )
    reading = sum(plain) / len(plain)
    return Cost(
        method,
        steps,
        len(monitor.readings),
        monitor.pace.share,
        inside / training,
        start / unit,
        reading / unit,
        (sum(turning) / len(turning) - reading) / unit,
    )


def _arguments(scratch: str, steps: int) -> TrainingArguments:
    return TrainingArguments(
        output_dir=scratch,
        max_steps=steps,
        per_device_train_batch_size=BATCH,
        learning_rate=1e-4,
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )


def table(costs: list[Cost]) -> Table:
    """For the terminal."""
    shown = Table("", "readings", "planned", "measured share", "start", "reading", "rotation")
    shown.add_row(
        "planned with", "", f"at most {BUDGET:.0%}", "", *(f"{each:g}" for each in (START, READING, ROTATION))
    )
    for cost in costs:
        shares = (f"{cost.planned:.1%}", f"{cost.share:.1%}")
        passes = (f"{each:.2f}" for each in (cost.start, cost.reading, cost.rotation))
        shown.add_row(cost.method, str(cost.readings), *shares, *passes)
    return shown


def main(
    out: Annotated[Path, typer.Option(help="JSON file for the figures.")],
    steps: Annotated[int, typer.Option(help="Of each training.")] = 600,
    width: Annotated[int, typer.Option(help="Of the model.")] = 256,
) -> None:
    """Trains with both methods, and writes the figures."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=FutureWarning)
    costs = [measure(method, steps, width) for method in METHODS]
    Console().print(table(costs))
    found = {"command": f"python benchmarks/monitor_cost.py --out {out}", "runs": [asdict(cost) for cost in costs]}
    out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
