"""What a comparison costs: three adapters with the shapes of Llama-3.1-8B, and two checkpoints of 1.2 billion weights.

python benchmarks/weight_space.py adapters --out benchmarks/weight_space_adapters.json
python benchmarks/weight_space.py checkpoints --rounds 2 --out benchmarks/weight_space_checkpoints.json

Everything is random and written by this program under --folder. Each task runs in a process of its own, whose peak
resident memory is measured; times are wall-clock, without imports, in alternating rounds:
- read: every tensor of the same files once, by safetensors, and its sum;
- merge: the same files read once and added up in float32, tensor by tensor;
- compare: reading, all figures of all pairs, and all nulls; adapters without their base, checkpoints against it.
"Cold" is with the files dropped from the page cache before, as they are when a user has not just written them.
The dense way forms the matrices of one module (a query projection) and decomposes them; times 224 it is extrapolated.
"""

import json
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Literal

import torch
import typer
from peft import LoraConfig
from rich.console import Console
from rich.table import Table
from safetensors import safe_open
from safetensors.torch import save_file
from tqdm import tqdm
from transformers import AutoConfig, LlamaConfig

from tiltmeter.geometry.comparison import compare
from tiltmeter.updates import adapters, checkpoints  # else imported at first use, within what is timed
from tiltmeter.updates.update import Update

LLAMA_8B = {
    "self_attn.q_proj": (4096, 4096),
    "self_attn.k_proj": (1024, 4096),
    "self_attn.v_proj": (1024, 4096),
    "self_attn.o_proj": (4096, 4096),
    "mlp.gate_proj": (14336, 4096),
    "mlp.up_proj": (14336, 4096),
    "mlp.down_proj": (4096, 14336),
}
BLOCKS, RANK = 32, 32
ADAPTERS, CHECKPOINTS = ("one", "two", "three"), ("base", "tuned", "other")
THREADS = 2
TASKS = ("read", "merge", "compare", "dense")


def main(
    kind: Annotated[Literal["adapters", "checkpoints"], typer.Argument(help="What is compared.")],
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = Path("weight_space.json"),
    folder: Annotated[Path, typer.Option(help="Where random files go (9 GB); kept.")] = Path("weight-space"),
    rounds: Annotated[int, typer.Option(help="Of each task.")] = 5,
) -> None:
    """Measures all tasks, prints the table and writes it as JSON."""
    (write_adapters if kind == "adapters" else write_checkpoints)(folder)
    rows = []
    for state in ("cold", "warm"):
        steps = tqdm(range(rounds), f"{kind}, {state}")
        rows.append(row(state, [{task: run(task, kind, folder, state) for task in TASKS[:3]} for _ in steps]))
    Console().print(table(rows))
    found: dict[str, object] = {"command": f"python {' '.join(sys.argv)}", "rows": rows}
    if kind == "adapters":
        dense = run("dense", kind, folder, "warm")["seconds"]
        found |= {"dense_module_seconds": dense, "dense_extrapolated": dense * 224}
        Console().print(f"the dense way: {dense:.1f} s for one module, {dense * 224:.0f} s extrapolated to 224")
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def row(state: str, runs: list[dict[str, dict[str, float]]]) -> dict[str, object]:
    """Medians over the rounds; ratios are taken within each."""
    found: dict[str, object] = {"state": state}
    for task in TASKS[:3]:
        found[f"{task}_seconds"] = statistics.median(each[task]["seconds"] for each in runs)
    for task in ("read", "merge"):
        found[f"to_{task}"] = sorted(round(each["compare"]["seconds"] / each[task]["seconds"], 2) for each in runs)
    for memory in ("peak_mb", "imports_mb"):
        found[memory] = max(each["compare"][memory] for each in runs)
    return found


def table(rows: list[dict[str, object]]) -> Table:
    """One row per state of the page cache."""
    columns = list(rows[0])
    made = Table(*columns)
    for each in rows:
        made.add_row(*(f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in each.values()))
    return made


def run(task: str, kind: str, folder: Path, state: str) -> dict[str, float]:
    """One task in a process of its own."""
    if state == "cold":
        drop_from_cache(folder / kind)
    arguments = [sys.executable, __file__, "task", task, kind, str(folder)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def task(name: str, kind: str, folder: Path) -> None:
    """Runs a task in this process; prints seconds and memory."""
    torch.set_num_threads(THREADS)
    imports = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    WORK[name](folder / kind)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": seconds, "peak_mb": peak / 1024, "imports_mb": imports / 1024}))


def read(folder: Path) -> None:
    """Every tensor of every file, summed."""
    for file in sorted(folder.rglob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - no mapping
                opened.get_tensor(name).sum(dtype=torch.float32)


def merge(folder: Path) -> None:
    """Every file read once and added up in float32, tensor by tensor."""
    with ExitStack() as stack:
        files = [stack.enter_context(safe_open(file, framework="pt")) for file in sorted(folder.rglob("*.safetensors"))]
        for name in files[0].keys():  # noqa: SIM118 - no mapping
            sum(file.get_tensor(name).float() for file in files)


def compare_all(folder: Path) -> None:
    """All pairs with all nulls, blocks by the number in a module's name."""
    if folder.name == "adapters":
        updates = {name: adapters.read_adapter(folder / name) for name in ADAPTERS}
    else:
        # Read without mmap: pages of mapped files would count as memory of the process.
        updates = {
            name: checkpoints.read_difference(folder / "base", folder / name, io="read") for name in CHECKPOINTS[1:]
        }
    blocks = {module: block(module) for update in updates.values() for module in update}
    found = compare(updates, blocks)
    assert all(len(pair.modules) == len(blocks) for pair in found.pairs.values())


def dense_way(folder: Path) -> None:
    """One module of three adapters: dense changes, their full decompositions, the products of the leading vectors."""
    updates = [Update.from_adapter(folder / name) for name in ADAPTERS]
    module = next(iter(updates[0]))
    parts = [torch.linalg.svd(update[module].dense(), full_matrices=False) for update in updates]
    for (U, _, Vh), (other, _, other_h) in ((parts[0], parts[1]), (parts[0], parts[2]), (parts[1], parts[2])):
        torch.linalg.svdvals(U[:, :20].T @ other[:, :20])
        torch.linalg.svdvals(Vh[:20] @ other_h[:20].T)


WORK: dict[str, Callable[[Path], None]] = {
    "read": read,
    "merge": merge,
    "compare": compare_all,
    "dense": dense_way,
}


def block(module: str) -> int | None:
    """The number in the module's name."""
    found = re.search(r"layers\.(\d+)\.", module)
    return int(found[1]) if found else None


def write_adapters(folder: Path) -> None:
    """Three adapters of rank 32 in bfloat16, `one` and `two` of one A; singular values of B decay by 0.9 each."""
    for number, name in enumerate(ADAPTERS):
        target = folder / "adapters" / name
        if (target / "adapter_model.safetensors").exists():
            continue
        target.mkdir(parents=True, exist_ok=True)
        modules = [part.rpartition(".")[2] for part in LLAMA_8B]
        LoraConfig(r=RANK, lora_alpha=RANK, use_rslora=True, target_modules=modules).save_pretrained(target)
        save_file(dict(factors(shared=number // 2, seed=number)), target / "adapter_model.safetensors")


def factors(shared: int, seed: int) -> Iterator[tuple[str, torch.Tensor]]:
    """Names and factors: A as PEFT draws it, B a random matrix with a decaying spectrum."""
    first, second = torch.Generator().manual_seed(shared), torch.Generator().manual_seed(100 + seed)
    spectrum = 1e-2 * 0.9 ** torch.arange(RANK)
    for number in range(BLOCKS):
        for part, (o, i) in LLAMA_8B.items():
            key = f"base_model.model.model.layers.{number}.{part}"
            turn = torch.linalg.qr(torch.randn(RANK, RANK, generator=second)).Q
            left = torch.randn(o, RANK, generator=second) * spectrum @ turn
            yield f"{key}.lora_B.weight", left.bfloat16()
            yield f"{key}.lora_A.weight", ((torch.rand(RANK, i, generator=first) * 2 - 1) / i**0.5).bfloat16()


def write_checkpoints(folder: Path) -> None:
    """A base with the shapes of Llama-3.2-1B in bfloat16, and two that differ from it by independent noise."""
    config = LlamaConfig(
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=64,
        vocab_size=128256,
        tie_word_embeddings=True,
        architectures=["LlamaForCausalLM"],
    )
    for number, name in enumerate(CHECKPOINTS):
        target = folder / "checkpoints" / name
        if (target / "model.safetensors").exists():
            continue
        config.save_pretrained(target)
        base, noise = torch.Generator().manual_seed(0), torch.Generator().manual_seed(number)
        tensors = {}
        for key, shape in shapes(AutoConfig.from_pretrained(target)):
            weight = 0.02 * torch.randn(*shape, generator=base)
            if number and len(shape) == 2:
                weight += 1e-3 * torch.randn(*shape, generator=noise)
            tensors[key] = weight.bfloat16()
        save_file(tensors, target / "model.safetensors")


def shapes(config: LlamaConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The parameters of a Llama with a tied output layer."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    for name, parameter in model.named_parameters():
        yield name, tuple(parameter.shape)


def drop_from_cache(folder: Path) -> None:
    """Takes the files of a folder out of the page cache."""
    for file in folder.rglob("*.safetensors"):
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


if __name__ == "__main__":
    if sys.argv[1:2] == ["task"]:
        task(sys.argv[2], sys.argv[3], Path(sys.argv[4]))
    else:
        typer.run(main)
