"""Activations streamed to disk, shard by shard; a run that goes on after a kill reads what is missing only."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import PositiveInt
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from tiltmeter.activations.capture import Activations, Tokens, captured_batches, gathered
from tiltmeter.activations.hook_points import Place
from tiltmeter.errors import InputError
from tiltmeter.models import Model
from tiltmeter.progress import track
from tiltmeter.runs.folder import RunFolder
from tiltmeter.runs.inputs import hash_file
from tiltmeter.runs.manifest import atomic
from tiltmeter.runs.results import Record
from tiltmeter.tokens import Batch, Encoded, batches

FOLDER = "activations"
SHARD = 256  # texts
_ROWS = "rows"


@dataclass(frozen=True)
class Reading:
    """Where activations are read, and how many texts a pass takes."""

    tokens: Tokens = "last"
    place: Place = "output"
    batch_size: PositiveInt = 16


class ShardLine(Record):
    """A finished shard in the journal."""

    name: str
    sha256: str


class Capturing:
    """Reads models on texts, each shard into a file `activations/NAME-NUMBER.safetensors` of the run folder.

    A shard holds each text's mean over its tokens, [R, d] by block in float32, and `rows` [R], which texts they are. It
    appears whole or not at all; at most one is lost in a kill.
    """

    def __init__(self, run: RunFolder, reading: Reading) -> None:
        self._folder, self._reading = run.folder(FOLDER), reading
        self._journal = run.journal("activations", ShardLine)
        self._done = {line.name: line.sha256 for line in self._journal.records}

    def read(
        self, name: str, load: Callable[[], Model], encoded: Sequence[Encoded], blocks: Sequence[str]
    ) -> Activations:
        """One model's activations, their mean over each text's tokens; not loaded where every shard is there already.

        Args:
            name: of the files: letters, digits and dashes of the caller's own.
            load: gives the model.
            encoded: the texts, with ids of the model's tokenizer.
            blocks: names of blocks.
        """
        shards = [f"{name}-{number:05}.safetensors" for number in range(-(-len(encoded) // self._texts))]
        missing = [shard for shard in shards if not self._is_whole(shard)]
        if missing:
            self._read_missing(load(), encoded, blocks, {shards.index(shard): shard for shard in missing})
        return gathered(_load(self._folder / shard) for shard in shards)

    @property
    def _texts(self) -> int:
        """Texts of a shard: whole batches."""
        size = self._reading.batch_size
        return max(1, SHARD // size) * size

    def _is_whole(self, shard: str) -> bool:
        path = self._folder / shard
        return path.is_file() and self._done.get(shard) == hash_file(path)

    def _read_missing(
        self, model: Model, encoded: Sequence[Encoded], blocks: Sequence[str], missing: dict[int, str]
    ) -> None:
        plan = list(batches(encoded, self._reading.batch_size, model.tokenizer))
        size = self._texts // self._reading.batch_size
        for number, shard in track(missing.items(), "reading activations"):
            found = gathered(self._batches(model, plan[number * size : (number + 1) * size], blocks))
            with atomic(self._folder / shard) as stream:
                stream.write(save({**found.states, _ROWS: found.rows}))
            self._journal.append(ShardLine(name=shard, sha256=hash_file(self._folder / shard)))

    def _batches(self, model: Model, plan: Sequence[Batch], blocks: Sequence[str]) -> Iterator[Activations]:
        found = captured_batches(model, plan, blocks, self._reading.tokens, self._reading.place)
        return map(_averaged, found)


def read_activations(folder: Path, name: str) -> Activations:
    """Activations that a finished run kept, a row per text, by the name that `Capturing.read` gave them.

    Raises:
        InputError: none there, or files that do not hold what they should.
    """
    shards = sorted((folder / FOLDER).glob(f"{name}-*.safetensors"))
    if not shards:
        raise InputError(f"{folder / FOLDER}: holds no activations {name!r}")
    return gathered(_load(shard) for shard in shards)


def _averaged(found: Activations) -> Activations:
    """A row per text: its mean, accumulated in float64."""
    texts, rows = found.rows.unique(return_inverse=True)
    inside = Activations(found.states, rows)
    return Activations({block: inside.per_prompt(block).float() for block in found.states}, texts)


def _load(path: Path) -> Activations:
    try:
        states: dict[str, torch.Tensor] = load_file(path)
        rows = states.pop(_ROWS)
    except (OSError, SafetensorError, KeyError) as error:
        raise InputError(f"{path}: not a readable shard of activations: {error}") from error
    return Activations(states, rows)
