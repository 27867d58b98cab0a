"""Directions as files: safetensors with metadata, and GGUF control vectors for llama.cpp."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import numpy as np
import torch
from gguf import GGUFReader, GGUFWriter
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tiltmeter.activations.capture import Tokens
from tiltmeter.activations.hook_points import PLACES, Place
from tiltmeter.errors import InputError

FORMAT = "tiltmeter direction 1"
GGUF = ".gguf"
_ARCHITECTURE = "controlvector"
_OURS = "tiltmeter.direction"
_NAME = "direction."


@dataclass(frozen=True)
class Contents:
    """What the file of a direction holds; see `tiltmeter.activations.direction.Direction`."""

    vectors: Mapping[str, Float[Tensor, " d"]]
    place: Place = "output"
    tokens: Tokens = "last"
    about: Mapping[str, str] = field(default_factory=dict)


def write_direction(direction: Contents, path: Path) -> None:
    """Write a direction; a name that ends in .gguf makes a control vector, any other a safetensors file.

    A control vector has no vector for block 0, which llama.cpp cannot steer; scale it by -1 there to subtract.

    Raises:
        InputError: the disk refuses, or a control vector for a hook point that llama.cpp does not have.
    """
    write = _write_gguf if path.suffix == GGUF else _write_safetensors
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=path.parent) as scratch:
            write(direction, Path(scratch) / path.name)
            os.replace(Path(scratch) / path.name, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error


def read_direction(path: Path, blocks: Sequence[str] | None = None) -> Contents:
    """Read a direction.

    Args:
        path: a file that `write_direction` wrote, or a control vector of another tool.
        blocks: names of the model's blocks in order, which the control vectors of other tools do not know.

    Raises:
        InputError: missing, not such a file, vectors of unequal widths, NaN or Inf.
    """
    if not path.is_file():
        raise InputError(f"{path}: not found: expected a direction (.safetensors or .gguf)")
    try:
        vectors, metadata = (_read_gguf if path.suffix == GGUF else _read_safetensors)(path)
    except (SafetensorError, OSError, ValueError, KeyError, IndexError) as error:  # what the readers raise
        raise InputError(f"{path}: cannot be read as a direction: {' '.join(str(error).split())}") from error
    if metadata is None:
        vectors, metadata = _named(vectors, blocks, path), _description(Contents({}))
    return _checked(vectors, metadata, path)


def has_control_vector(direction: Contents) -> bool:
    """Whether llama.cpp can steer along it: at block outputs, of a block after block 0."""
    return direction.place == "output" and any(_index(block) for block in direction.vectors)


def _write_safetensors(direction: Contents, path: Path) -> None:
    vectors = {block: vector.float().contiguous() for block, vector in direction.vectors.items()}
    save_file(vectors, path, {_OURS: json.dumps(_description(direction))})  # of several keys the order would be random


def _write_gguf(direction: Contents, path: Path) -> None:
    if direction.place != "output":
        raise InputError(f"{path}: a control vector acts on block outputs, this direction on the {direction.place}")
    numbered = {_index(block): (block, vector) for block, vector in direction.vectors.items() if _index(block)}
    if not numbered:
        raise InputError(f"{path}: a control vector needs a block after block 0, got {', '.join(direction.vectors)}")
    names = {str(index): block for index, (block, _) in numbered.items()}
    writer = GGUFWriter(path, _ARCHITECTURE)
    writer.add_string(f"{_ARCHITECTURE}.model_hint", direction.about.get("architecture", "unknown"))
    writer.add_uint32(f"{_ARCHITECTURE}.layer_count", max(numbered) + 1)
    writer.add_string(_OURS, json.dumps({**_description(direction), "blocks": names}))
    for index, (_, vector) in sorted(numbered.items()):
        writer.add_tensor(f"{_NAME}{index}", vector.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    with safe_open(path, framework="pt") as file:
        metadata = json.loads((file.metadata() or {}).get(_OURS, "{}"))
        if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
            raise ValueError(f"expected metadata {_OURS} of format {FORMAT!r}")
        return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118


def _read_gguf(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    reader = GGUFReader(path)
    architecture = reader.get_field("general.architecture")
    if architecture is None or architecture.contents() != _ARCHITECTURE:
        raise ValueError(f"expected architecture {_ARCHITECTURE}")
    vectors = {
        tensor.name.removeprefix(_NAME): torch.from_numpy(np.array(tensor.data, dtype=np.float32))
        for tensor in reader.tensors
    }
    ours = reader.get_field(_OURS)
    if ours is None:
        return vectors, None
    metadata = json.loads(ours.contents())
    names = metadata.pop("blocks")
    return {names[index]: vector for index, vector in vectors.items()}, metadata


def _named(vectors: Mapping[str, Tensor], blocks: Sequence[str] | None, path: Path) -> dict[str, Tensor]:
    if blocks is None:
        raise InputError(f"{path}: does not say which blocks its vectors are for; give the model's blocks")
    outside = [index for index in vectors if not index.isdecimal() or int(index) >= len(blocks)]
    if outside:
        raise InputError(f"{path}: has {_NAME}{outside[0]}, the model has blocks 0 to {len(blocks) - 1}")
    return {blocks[int(index)]: vector for index, vector in vectors.items()}


def _description(direction: Contents) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "place": direction.place,
        "tokens": direction.tokens,
        "about": dict(direction.about),
    }


def _checked(vectors: Mapping[str, Tensor], metadata: Mapping[str, Any], path: Path) -> Contents:
    place: Any = metadata.get("place")
    tokens: Any = metadata.get("tokens")
    if place not in PLACES or tokens not in get_args(Tokens):
        raise InputError(f"{path}: expected a place of {', '.join(PLACES)} and known tokens, got {place} and {tokens}")
    shapes = {tuple(vector.shape) for vector in vectors.values()}
    if len(shapes) != 1:
        raise InputError(f"{path}: expected vectors of one width, got shapes {sorted(shapes)}")
    for block, vector in vectors.items():
        if vector.ndim != 1 or not vector.isfinite().all():
            raise InputError(f"{path}: {block}: expected a vector of finite numbers")
    ordered = dict(sorted(vectors.items(), key=lambda entry: _index(entry[0])))
    return Contents(ordered, place, tokens, _about(metadata, path))


def _about(metadata: Mapping[str, Any], path: Path) -> dict[str, str]:
    about = metadata.get("about", {})
    if not isinstance(about, dict) or not all(isinstance(value, str) for value in about.values()):
        raise InputError(f"{path}: its metadata are not readable")
    return about


def _index(block: str) -> int:
    """The number at the end of a block's name; 0 where there is none."""
    last = block.rpartition(".")[2]
    return int(last) if last.isdecimal() else 0
