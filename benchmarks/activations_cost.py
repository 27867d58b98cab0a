"""What capture and steering cost, as ratios to the same passes without them, in one run.

python benchmarks/activations_cost.py --out benchmarks/activations_cost.json

Random Llama of width 256 with 4 blocks, float32, one thread. Capture reads every block on 1,000 prompts of 32 to 128
tokens; its measure is a forward pass over the same batches that asks for the logits of one place only. Steering adds a
vector or ablates it while 64 prompts are answered greedily with 64 tokens each, none of which ends early; its measure
is the same generation without hooks. Tasks take turns within each round, a ratio is taken within a round, and each
measure is taken a second time at the end of the round: the range of that row is what the machine's noise makes of no
difference at all. Seconds are CPU seconds of the process; writing to disk counts as far as the process does it itself.
Peak memory as in coordinates.py. `--peers` runs peers_steering.py in another interpreter, beside a plain pass of its
own.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch
import typer
from coordinates import Row, interleaved, machine, summary
from rich.console import Console
from rich.table import Table
from torch import Tensor
from workload import Prepare, Run, Size, keep_freed_memory, random_model

from tiltmeter.activations.capture import Activations, Tokens, capture
from tiltmeter.activations.steering import Edit, Where, ablation, shift, steered
from tiltmeter.directions.captured import Capturing, Reading
from tiltmeter.generation import GREEDY, generate_ids
from tiltmeter.likelihood import logits_at
from tiltmeter.models import Model
from tiltmeter.runs.folder import RunFolder
from tiltmeter.runs.record import RunRecord
from tiltmeter.tokens import Encoded, batches

PASS, GENERATION = "plain forward pass", "plain generation"
AGAIN = ", again"
BAR = {PASS: 1.1, GENERATION: 1.05}
BATCH, ANSWERS_BATCH = 16, 32  # the defaults of capture and of generation
SHORTEST, LONGEST = 32, 128  # tokens of a prompt
ALPHA = 10.0
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Work:
    """How much is read and answered, by what model, how often."""

    prompts: int = 1000
    answers: int = 64
    new_tokens: int = 64
    width: int = 256
    blocks: int = 4
    rounds: int = 9
    threads: int = 1

    def model(self) -> Model:
        """The random model, the same at each call; it never ends an answer."""
        model = random_model(Size(width=self.width, blocks=self.blocks))
        model.module.config.eos_token_id = model.module.generation_config.eos_token_id = None
        return model

    def texts(self) -> list[Encoded]:
        """Prompts of random words."""
        draw = torch.Generator().manual_seed(1)
        lengths = torch.randint(SHORTEST, LONGEST + 1, (self.prompts,), generator=draw).tolist()
        words = [torch.randint(Size().words, (length,), generator=draw).tolist() for length in lengths]
        return [Encoded(ids, [False] * len(ids)) for ids in words]

    def answered(self) -> list[list[int]]:
        """The prompts that are answered."""
        return [text.ids for text in self.texts()[: self.answers]]


def main(
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = Path("activations_cost.json"),
    prompts: Annotated[
        int, typer.Option(min=4, help="Prompts that activations are read on, an even number.")
    ] = Work.prompts,
    answers: Annotated[int, typer.Option(min=1, help="Prompts that are answered.")] = Work.answers,
    width: Annotated[int, typer.Option(min=64, help="Width of the model, a multiple of 64.")] = Work.width,
    blocks: Annotated[int, typer.Option(min=2, help="Blocks of the model.")] = Work.blocks,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, after a cold one.")] = Work.rounds,
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch.")] = Work.threads,
    peers: Annotated[Path | None, typer.Option(help="A Python interpreter that has the peers.")] = None,
) -> None:
    """Measures the cost of capture and steering, prints it and writes it as JSON."""
    work = Work(prompts, answers, Work.new_tokens, width, blocks, rounds, threads)
    torch.set_num_threads(threads)
    keep_freed_memory()
    load = [os.getloadavg()[0]]
    model = work.model()
    tables = {"capture": measured(capture_tasks(work, model), rounds)}
    load.append(os.getloadavg()[0])
    tables["steering"] = measured(steering_tasks(work, model), rounds)
    load.append(os.getloadavg()[0])
    beside: dict[str, Any] = ask_peers(peers, work) if peers else {}
    load.append(os.getloadavg()[0])
    tables |= {f"{name}, peers": peer_rows(runs) for name, runs in beside.pop("runs", {}).items()}
    facts = {
        "command": " ".join(["python", *sys.argv]).replace(str(peers), "PYTHON"),
        "machine": machine() | {"load": load},
        "work": asdict(work),
        "tables": {name: [asdict(row) for row in rows] for name, rows in tables.items()},
        **beside,
    }
    out.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    for name, rows in tables.items():
        show(name, rows)
    for name, agreement in beside.get("agreement", {}).items():
        print(name, agreement)


def capture_tasks(work: Work, model: Model) -> dict[str, Prepare]:
    """What is timed of capture; every block is read."""
    texts, kinds = work.texts(), {"last token": "last", "every prompt token": "prompt"}
    return (
        {PASS: lambda: partial(plain_pass, model, texts)}
        | {f"capture, {name}": prepared(read, model, texts, tokens) for name, tokens in kinds.items()}
        | {f"capture to a run folder, {name}": prepared(stream, model, texts, tokens) for name, tokens in kinds.items()}
        | {PASS + AGAIN: lambda: partial(plain_pass, model, texts)}
    )


def steering_tasks(work: Work, model: Model) -> dict[str, Prepare]:
    """What is timed of generation, along the difference in means of two halves of the prompts."""
    prompts, length = work.answered(), work.new_tokens
    vectors = {block: difference(states) for block, states in read(model, work.texts()).states.items()}
    names = list(vectors)
    plain = prepared(answers, model, prompts, length)
    tasks = {GENERATION: plain}
    for what, edit in {"add": added, "ablate": ablated}.items():
        for blocks, chosen in {"one block": names[len(names) // 2 :][:1], "every block": names}.items():
            for where in ("last", "all"):
                edited = partial(steered_answers, model, prompts, length)
                along = {block: vectors[block] for block in chosen}
                tasks[f"{what}, {blocks}, where={where}"] = prepared(edited, along, edit, where)
    return tasks | {GENERATION + AGAIN: plain}


def plain_pass(model: Model, texts: Sequence[Encoded]) -> None:
    """A forward pass over the batches of capture, without hooks."""
    with torch.no_grad():
        for batch in batches(texts, BATCH, model.tokenizer, model.device):
            logits_at(model.module, batch, torch.tensor([batch.ids.shape[1] - 1]))


def read(model: Model, texts: Sequence[Encoded], tokens: Tokens = "last") -> Activations:
    """Capture of every block in memory."""
    return capture(model, texts, list(model.blocks), tokens, batch_size=BATCH)


def stream(model: Model, texts: Sequence[Encoded], tokens: Tokens) -> None:
    """Capture as `tiltmeter direction` does it: shards, hashed, in a run folder that is sealed, and read back."""
    with TemporaryDirectory() as folder, RunFolder(Path(folder) / "run") as run:
        run.write_record(RunRecord(verb="direction", arguments={}))
        Capturing(run, Reading(tokens, batch_size=BATCH)).read("base", lambda: model, texts, list(model.blocks))


def answers(model: Model, prompts: Sequence[list[int]], length: int) -> list[list[int]]:
    """Greedy answers."""
    found = generate_ids(model, prompts, replace(GREEDY, max_new_tokens=length), ANSWERS_BATCH)
    assert all(len(answer) == length for answer in found), "an answer ended early: the work is not the same"
    return found


def steered_answers(
    model: Model, prompts: Sequence[list[int]], length: int, along: Mapping[str, Tensor], edit: Any, where: Where
) -> list[list[int]]:
    """Greedy answers of the steered model; making the edits is part of it."""
    with steered(model, {block: edit(vector) for block, vector in along.items()}, where):
        return answers(model, prompts, length)


def difference(states: Tensor) -> Tensor:
    """The mean activation [d] on every second prompt, less that on the others."""
    return states[0::2].double().mean(0) - states[1::2].double().mean(0)


def measured(tasks: Mapping[str, Prepare], rounds: int) -> list[Row]:
    """Rows in units of the first task, with its bar for all but the repeated measure."""
    rows = summary(interleaved(tasks, rounds))
    plain = rows[0].name
    return [row if row.name.startswith(plain) else replace(row, bar=BAR[plain]) for row in rows]


def ask_peers(python: Path, work: Work) -> dict[str, Any]:
    """From a process of its own: runs of the peers and of ours beside them, how far they agree, who is missing."""
    path = os.pathsep.join([str(HERE.parent / "src"), str(HERE)])
    command = [str(python), str(HERE / "peers_steering.py"), json.dumps(asdict(work))]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def peer_rows(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Row]:
    """Rows in units of the peers' own plain pass; they have no bar."""
    return summary({name: [Run(**run) for run in each] for name, each in runs.items()})


def show(name: str, rows: Sequence[Row]) -> None:
    """Prints a table of rows."""
    title = f"{name}: relative to {rows[0].name}, medians of rounds"
    table = Table("", "ratio", "lowest", "highest", "bar", "CPU s", "peak MB", title=title)
    for row in rows:
        bar = "" if row.bar is None else f"{row.bar:.2f} {'met' if row.ratio <= row.bar else 'MISSED'}"
        ratios = (f"{number:.3f}" for number in (row.ratio, row.low, row.high))
        table.add_row(row.name, *ratios, bar, f"{row.seconds:.2f}", f"{row.peak / 1e6:.0f}")
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def prepared(task: Callable[..., object], *arguments: object) -> Prepare:
    """A task without preparation."""
    return lambda: partial(task, *arguments)


def added(vector: Tensor) -> Edit:
    """The vector, several times its length."""
    return shift(vector, ALPHA)


def ablated(vector: Tensor) -> Edit:
    """Without what lies along the vector."""
    return ablation(vector[None])


if __name__ == "__main__":
    typer.run(main)
