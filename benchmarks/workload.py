"""The random model, skill and updates of the benchmarks, the tasks that are timed, and one measured run."""

import ctypes
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from tiltmeter.curvature.fisher import Fisher
from tiltmeter.curvature.gradients import release_workspace
from tiltmeter.curvature.projection import projected_scores
from tiltmeter.layers import widths
from tiltmeter.likelihood import batch_log_likelihoods
from tiltmeter.models import Model, assemble
from tiltmeter.skills import Example, Skill
from tiltmeter.tokens import batches
from tiltmeter.updates.update import Update

BATCH = 8
STUDY_K = 4096
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
PLAIN = "plain forward+backward"

Task = Callable[[], object]
Prepare = Callable[[], Task]  # what is made anew before each run, and not timed


@dataclass(frozen=True)
class Size:
    """How large the random model and its data are."""

    examples: int = 32
    tokens: int = 128
    width: int = 256
    blocks: int = 4
    words: int = 1000


@dataclass(frozen=True)
class Run:
    """One measured run: CPU seconds of the process, and the peak of its resident memory above where it began."""

    seconds: float
    peak: int


def random_model(size: Size) -> Model:
    """A random Llama with the tokenizer of words."""
    config = LlamaConfig(
        vocab_size=size.words,
        hidden_size=size.width,
        intermediate_size=size.width * 11 // 4,
        num_hidden_layers=size.blocks,
        num_attention_heads=size.width // 64,
    )
    torch.manual_seed(0)
    return assemble(AutoModelForCausalLM.from_config(config), words_tokenizer(size.words))


def words_tokenizer(count: int) -> PreTrainedTokenizerFast:
    """Knows the words w0, w1, ..."""
    core = Tokenizer(models.WordLevel({f"w{i}": i for i in range(count)}, unk_token="w0"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="w0")


def random_skill(size: Size) -> Skill:
    """Random words, half of each example prompt and half completion."""
    ids = torch.randint(size.words, (size.examples, size.tokens), generator=torch.Generator().manual_seed(1))
    texts = [[f"w{i}" for i in row] for row in ids.tolist()]
    half = size.tokens // 2
    return Skill(
        "random",
        tuple(
            Example(({"role": "user", "content": " ".join(text[:half]) + " "},), " ".join(text[half:]), f"row {row}")
            for row, text in enumerate(texts)
        ),
    )


def random_updates(model: Model, modules: list[str], count: int, rank: int | None) -> list[Update]:
    """Gaussian updates, dense or in factors."""
    shapes = {name: widths(model.linears[name]) for name in modules}
    return [
        Update.from_tensors(
            {
                n: torch.randn(o, i) if rank is None else (torch.randn(o, rank), torch.randn(rank, i))
                for n, (o, i) in shapes.items()
            }
        )
        for _ in range(count)
    ]


def plain(model: Model, fisher: Fisher) -> None:
    """One forward and backward pass over the examples, with the gradients of all weights."""
    for batch in batches(fisher.encoded, BATCH, model.tokenizer, model.device):
        batch_log_likelihoods(model.module, batch).sum().backward()
    model.module.zero_grad(set_to_none=True)


def inputs_only(model: Model, fisher: Fisher) -> None:
    """The same with the weights frozen: what any method pays that needs the gradients of outputs."""
    model.module.requires_grad_(False)
    handle = model.module.get_input_embeddings().register_forward_hook(lambda m, i, o: o.requires_grad_())
    plain(model, fisher)
    handle.remove()
    model.module.requires_grad_(True)


def linear_tasks(model: Model, fisher: Fisher) -> dict[str, Prepare]:
    """The tasks whose cost should grow linearly; the first is the measure of the rest."""
    adapter = random_updates(model, fisher.modules, 1, rank=8)
    dense = random_updates(model, fisher.modules, 1, rank=None)
    return {
        PLAIN: lambda: partial(plain, model, fisher),
        "backward for inputs only (the limit)": lambda: partial(inputs_only, model, fisher),
        "coordinates of one adapter (rank 8)": lambda: partial(fisher.coordinates, adapter),
        "coordinates of one dense update": lambda: partial(fisher.coordinates, dense),
        "Gram of every module": lambda: _fresh(fisher).gram,
    }


def all_tasks(model: Model, fisher: Fisher) -> dict[str, Prepare]:
    """The linear tasks, and those that only the first table shows."""
    adapter = random_updates(model, fisher.modules, 1, rank=8)
    eight = random_updates(model, fisher.modules, 8, rank=None)
    return linear_tasks(model, fisher) | {
        "coordinates of eight dense updates": lambda: partial(fisher.coordinates, eight),
        "Gram and coordinates of one adapter": lambda: partial(_gram_and_coordinates, _fresh(fisher), adapter),
    }


def projected(fisher: Fisher, update: Update) -> None:
    """The study's score by random projection."""
    projected_scores(fisher, [update], STUDY_K)


def keep_freed_memory() -> None:
    """Freed memory stays with the process: pages are touched in the cold round, not now and then in one of the others.

    Thresholds are the largest that glibc would arrive at by itself; it stops adapting them.
    """
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_THRESHOLD, 32 << 20)
    libc.mallopt(M_TRIM_THRESHOLD, 1 << 30)


def measure(prepare: Prepare, cold: bool = False) -> Run:
    """Prepares and runs a task once. Cold: memory that earlier runs freed is given back to the system before."""
    task = prepare()
    gc.collect()
    if cold:
        release_workspace()
        ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew at what is resident now
    before = _resident("VmRSS")
    start = time.process_time()
    task()
    return Run(time.process_time() - start, _resident("VmHWM") - before)


def _fresh(fisher: Fisher) -> Fisher:
    return Fisher(fisher.model, fisher.skill, batch_size=BATCH)


def _gram_and_coordinates(fisher: Fisher, updates: list[Update]) -> None:
    fisher.gram()
    fisher.coordinates(updates)


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))
