"""What measuring costs on a GPU at the size of a real model: ratios to the same passes without it, in one run.

python benchmarks/real_size.py --out benchmarks/real_size.json

The configuration of Qwen3-1.7B with random weights, in bfloat16; attention is what transformers takes by default, fused
but for second derivatives. Tasks are those of activations_cost.py, coordinates.py and forecast_cost.py, those of the
latter two on 32 examples of 512 tokens. They take turns within each round, and a ratio is taken within a round. Seconds
are wall time, with nothing left for the GPU to do at both ends. Peak memory is what the GPU's allocator held above what
stood there when the task began, in the first round, whose seconds do not count. Tables are written as they are done.
"""

import gc
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import activations_cost
import torch
import typer
from activations_cost import AGAIN, GENERATION, PASS, Work, ablated, added, answers, plain_pass, prepared, read
from coordinates import Row, interleaved, machine, summary
from forecast_cost import FORECAST, PRODUCT, forecast
from forecast_cost import plain_pass as learning_pass
from peft import LoraConfig
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, Qwen3Config
from workload import BATCH, PLAIN, Prepare, Run, Size, plain, random_skill, random_updates, words_tokenizer

from tiltmeter.activations.capture import capture
from tiltmeter.curvature.fisher import Fisher
from tiltmeter.curvature.training_loss import TrainingLoss
from tiltmeter.curvature.training_space import adapter_space, weight_space
from tiltmeter.models import Model, assemble

QWEN3 = Qwen3Config(
    hidden_size=2048,
    intermediate_size=6144,
    num_hidden_layers=28,
    num_attention_heads=16,
    num_key_value_heads=8,
    head_dim=128,
    vocab_size=151936,
    tie_word_embeddings=True,
)
LORA = LoraConfig(r=16, target_modules="all-linear")
EXAMPLES = Size(examples=32, tokens=512)
WORK = Work(answers=32)
GIB = 1 << 30


def main(
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = Path("real_size.json"),
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, after a cold one.")] = 3,
) -> None:
    """Measures cost and memory, prints tables and writes them as JSON."""
    model = real_model()
    facts: dict[str, Any] = {
        "command": f"python benchmarks/real_size.py --out {out} --rounds {rounds}",
        "machine": machine() | {"dtype": "bfloat16", "gpu": torch.cuda.get_device_name()},
        "tables": {},
    }
    for name, opened in TABLES.items():
        with opened(model) as tasks:
            rows = barred(summary(interleaved(tasks, rounds, name, measure_on_gpu)))
        show(name, rows)
        facts["tables"][name] = [asdict(row) for row in rows]
        out.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def real_model() -> Model:
    """Random weights, the same at each call; it never ends an answer."""
    torch.manual_seed(0)
    with torch.device("cuda"):
        module = AutoModelForCausalLM.from_config(QWEN3, dtype=torch.bfloat16)
    module.config.eos_token_id = module.generation_config.eos_token_id = None
    return assemble(module, words_tokenizer(Size().words))


@contextmanager
def capture_tasks(model: Model) -> Iterator[dict[str, Prepare]]:
    """Reading hidden states of 1,000 prompts."""
    texts, middle = WORK.texts(), list(model.blocks)[len(model.blocks) // 2]
    plain = prepared(plain_pass, model, texts)
    yield {
        PASS: plain,
        "capture, last token, every block": prepared(read, model, texts),
        "capture, every prompt token, one block": prepared(capture, model, texts, [middle], "prompt"),
        "capture, every prompt token, every block": prepared(read, model, texts, "prompt"),
        PASS + AGAIN: plain,
    }


@contextmanager
def steering_tasks(model: Model) -> Iterator[dict[str, Prepare]]:
    """Answers of 64 tokens each, at every block."""
    along = {
        block: activations_cost.difference(states)
        for block, states in read(model, replace(WORK, prompts=32).texts()).states.items()
    }
    asked = (model, WORK.answered(), WORK.new_tokens)
    plain = prepared(answers, *asked)
    yield {
        GENERATION: plain,
        "add, every block, where=last": prepared(activations_cost.steered_answers, *asked, along, added, "last"),
        "add, every block, where=all": prepared(activations_cost.steered_answers, *asked, along, added, "all"),
        "ablate, every block, where=all": prepared(activations_cost.steered_answers, *asked, along, ablated, "all"),
        GENERATION + AGAIN: plain,
    }


@contextmanager
def gradient_tasks(model: Model) -> Iterator[dict[str, Prepare]]:
    """Coordinates and Gram of every module inside the blocks."""
    fisher, skill = examples(model), random_skill(EXAMPLES)
    with torch.device("cuda"):
        adapter, dense = (random_updates(model, fisher.modules, 1, rank) for rank in (8, None))
    yield {
        PLAIN: prepared(plain, model, fisher),
        "coordinates of one adapter (rank 8)": prepared(fisher.coordinates, adapter),
        "coordinates of one dense update": prepared(fisher.coordinates, dense),
        "Gram of every module": lambda: examples(model).gram,
        "Gram of every module, memory 32 GiB": lambda: Fisher(model, skill, batch_size=BATCH, memory=32 * GIB).gram,
    }


def derivatives(fisher: Fisher, loss: TrainingLoss) -> dict[str, Prepare]:
    """Of the fine-tuning loss, beside a pass in which every weight learns."""
    return {
        PLAIN: prepared(learning_pass, fisher, loss.space),
        "gradient of the fine-tuning loss": lambda: loss.gradient,
        PRODUCT: prepared(loss.product, loss.gradient()),
    }


@contextmanager
def full_tasks(model: Model) -> Iterator[dict[str, Prepare]]:
    """Derivatives of the fine-tuning loss by every weight."""
    fisher = examples(model)
    with weight_space(model) as space:
        yield derivatives(fisher, TrainingLoss(space, fisher.encoded, BATCH))


@contextmanager
def lora_tasks(model: Model) -> Iterator[dict[str, Prepare]]:
    """Derivatives of the fine-tuning loss by the factors of an adapter, and a forecast."""
    fisher = examples(model)
    with adapter_space(model, LORA) as space:
        loss = TrainingLoss(space, fisher.encoded, BATCH)
        yield derivatives(fisher, loss) | {FORECAST: lambda: partial(forecast, examples(model), loss)}


TABLES = {
    "capture": capture_tasks,
    "steering": steering_tasks,
    "gradients": gradient_tasks,
    "before LoRA": lora_tasks,
    "before full fine-tuning": full_tasks,
}


def examples(model: Model) -> Fisher:
    """A Fisher without a Gram."""
    return Fisher(model, random_skill(EXAMPLES), batch_size=BATCH)


def measure_on_gpu(prepare: Prepare, cold: bool) -> Run:
    """Prepares and runs a task once; in the cold round, freed memory is given back before."""
    task = prepare()
    gc.collect()
    if cold:
        torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before, start = torch.cuda.memory_allocated(), gpu_clock()
    task()
    return Run(gpu_clock() - start, torch.cuda.max_memory_allocated() - before)


def gpu_clock() -> float:
    """Wall time, once the GPU has done what it was asked."""
    torch.cuda.synchronize()
    return time.perf_counter()


def barred(rows: Sequence[Row]) -> list[Row]:
    """With the bars of capture and steering."""
    bar = activations_cost.BAR.get(rows[0].name)
    return [row if bar is None or row.name.startswith(rows[0].name) else replace(row, bar=bar) for row in rows]


def show(name: str, rows: Sequence[Row]) -> None:
    """Prints a table of rows."""
    table = Table("", "ratio", "lowest", "highest", "bar", "s", "peak GB", title=f"{name}: relative to {rows[0].name}")
    for row in rows:
        bar = "" if row.bar is None else f"{row.bar:.2f} {'met' if row.ratio <= row.bar else 'MISSED'}"
        ratios = (f"{number:.3f}" for number in (row.ratio, row.low, row.high))
        table.add_row(row.name, *ratios, bar, f"{row.seconds:.2f}", f"{row.peak / 1e9:.2f}")
    Console(width=140).print(table)


if __name__ == "__main__":
    typer.run(main)
