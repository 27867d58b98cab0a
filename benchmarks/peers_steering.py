"""Times public libraries beside ours at reading the last token of every block, and at adding a vector to every block.

Runs in an interpreter that has some of steering-vectors, nnsight and transformer-lens, with torch, transformers and
what tiltmeter needs, and with the project's `src` on PYTHONPATH; prints one line of JSON with the seconds of each
round. `benchmarks/activations_cost.py --peers PYTHON` starts it. Each library gets a model of its own, all with the
same weights. Install them with --no-deps: pins are old, and what they depend on may replace torch.
"""

import contextlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import version

import torch
from activations_cost import (
    AGAIN,
    ALPHA,
    BATCH,
    GENERATION,
    PASS,
    Work,
    added,
    answers,
    difference,
    plain_pass,
    prepared,
    read,
    steered_answers,
)
from coordinates import interleaved
from steering_libraries import PEERS, Blocks, Peer
from workload import Prepare, keep_freed_memory

from tiltmeter.activations.capture import prompt_ends
from tiltmeter.models import Model
from tiltmeter.tokens import Encoded, batches

OURS = "tiltmeter"
LARGEST = 1e-4  # difference of states, relative to their norm


def read_by(peer: Peer, model: Model, texts: Sequence[Encoded]) -> Blocks:
    """The last prompt token of each text at every block, texts in their order."""
    rows, parts = [], []
    for batch in batches(texts, BATCH, model.tokenizer):
        rows += batch.rows
        parts.append(peer.states(batch, prompt_ends(batch)))
    order = torch.tensor(rows).argsort()
    return [torch.cat(block)[order] for block in zip(*parts, strict=True)]


def available(work: Work) -> tuple[dict[str, tuple[Model, Peer]], dict[str, str]]:
    """Name with version -> its own model and the library around it; and those that cannot be imported, with reasons."""
    found, missing = {}, {}
    for name, make in PEERS.items():
        model = work.model()
        try:
            found[f"{name} {version(name)}"] = model, make(model, work)
        except ImportError as error:
            missing[name] = str(error)
    return found, missing


def compare(work: Work) -> dict[str, object]:
    """Checks that all do the same, then times them."""
    model, texts = work.model(), work.texts()
    peers, missing = available(work)
    ours = list(read(model, texts).states.values())
    vectors = [difference(states) for states in ours]
    along = dict(zip(model.blocks, vectors, strict=True))
    scaled = [ALPHA * vector.float() for vector in vectors]
    words = [str(model.tokenizer.decode(text.ids)) for text in texts]
    pairs = list(zip(words[0::2], words[1::2], strict=True))
    ours_steered = partial(steered_answers, model, work.answered(), work.new_tokens, along, added, "all")

    plain = prepared(plain_pass, model, texts)
    capturing: dict[str, Prepare] = {PASS: plain, OURS: prepared(read, model, texts)}
    generation = prepared(answers, model, work.answered(), work.new_tokens)
    steering: dict[str, Prepare] = {GENERATION: generation, OURS: lambda: ours_steered}
    agreement = {}
    for name, (its, peer) in peers.items():
        agreement[name] = agrees(name, read_by(peer, its, texts), ours)
        agreement[name]["equal_tokens"] = equal(peer.steered(scaled), ours_steered())
        capturing[name] = prepared(read_by, peer, its, texts)
        steering[name] = prepared(peer.steered, scaled)
        if peer.train is not None:
            agreement[name]["trained_cosine"] = cosine(peer.train(pairs), vectors)
            capturing[f"{name}, its own training"] = prepared(peer.train, pairs)
    tables = {"capture": capturing | {PASS + AGAIN: plain}, "steering": steering | {GENERATION + AGAIN: generation}}
    runs = {name: interleaved(tasks, work.rounds) for name, tasks in tables.items()}
    timed = {key: {name: [asdict(run) for run in each] for name, each in found.items()} for key, found in runs.items()}
    return {"runs": timed, "agreement": agreement, "missing": missing}


def agrees(name: str, theirs: Blocks, ours: Blocks) -> dict[str, float]:
    """How far the states of a peer are from ours, and the least cosine of the two differences in means over blocks.

    Raises:
        SystemExit: it reads something else.
    """
    far = max(float((one - other).norm() / other.norm()) for one, other in zip(theirs, ours, strict=True))
    if not far < LARGEST:
        raise SystemExit(f"{name} reads something else: relative difference {far}")
    return {"states": far, "cosine": cosine([difference(each) for each in theirs], [difference(each) for each in ours])}


def cosine(theirs: Blocks, ours: Blocks) -> float:
    """The least over blocks."""
    pairs = zip(theirs, ours, strict=True)
    return min(float(torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=0)) for a, b in pairs)


def equal(theirs: list[list[int]], ours: list[list[int]]) -> float:
    """Share of tokens that are the same."""
    return float((torch.tensor(theirs) == torch.tensor(ours)).double().mean())


def main() -> None:
    """The first argument is the work as JSON. Libraries print too: their lines go to stderr."""
    work = Work(**json.loads(sys.argv[1]))
    torch.set_num_threads(work.threads)
    keep_freed_memory()
    with contextlib.redirect_stdout(sys.stderr), torch.no_grad():
        found = compare(work)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
