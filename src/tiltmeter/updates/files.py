"""Reading folders of tensors that somebody else wrote: safetensors and JSON only, nothing outside the folder."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tiltmeter.errors import InputError
from tiltmeter.updates.finite import is_finite

Reading = Literal["mmap", "read"]
BACKENDS: dict[Reading, str] = {"mmap": "mmap", "read": "pread"}
OPEN_FILES = 4
PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}
FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class Stored:
    """Where a tensor lies and what its header says; `dtype` is safetensors' name of it ("F32", "BF16", ...)."""

    file: Path
    shape: tuple[int, ...]
    dtype: str


class Tensors(Mapping[str, Stored]):
    """The tensors of a folder by name, known from the headers alone; `read` loads one of them.

    Args:
        folder: a model's or an adapter's folder.
        stem: the file's name without its ending: `model.safetensors`, or the shards of `model.safetensors.index.json`.
        io: "mmap" maps the files into memory. "read" reads the bytes of a tensor when it is asked for: on network file
            systems mapping is slow, and touching the pages of a file truncated since then ends the process (SIGBUS).

    Raises:
        InputError: anything that `check_folder` refuses.
    """

    def __init__(self, folder: Path, stem: str = "model", io: Reading = "mmap") -> None:
        _check_entries(folder)
        self.folder = folder
        self._stored: dict[str, Stored] = {}
        # Opening parses the header. Few files stay open, however many shards there are.
        self._backend = BACKENDS[io]
        self._open = lru_cache(OPEN_FILES)(partial(_open, self._backend))
        for file in _weight_files(folder, stem):
            for name, stored in _header(file, self._open(file)).items():
                if name in self._stored:
                    raise InputError(f"{file}: tensor {name} is also in {self._stored[name].file.name}")
                self._stored[name] = stored
        _check_index(folder, stem, self._stored)

    def __getitem__(self, name: str) -> Stored:
        return self._stored[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)

    def raw(self, name: str) -> Tensor:
        """The tensor as stored.

        Raises:
            InputError: the file does not hold it any more, or a packed 4-bit tensor that is to be read without mmap.
        """
        file = self[name].file
        if self[name].dtype == "F4" and self._backend == "pread":  # safetensors 0.8 fails on two numbers to a byte
            raise InputError(f"{file}: tensor {name} is stored as F4, which only mmap can read")
        try:
            tensor: Tensor = self._open(file).get_tensor(name)
        except (SafetensorError, OSError, ValueError) as error:
            raise InputError(f"{file}: cannot read tensor {name}: {error}") from error
        return tensor

    def read(self, name: str) -> Tensor:
        """The tensor in float32, or float64 if it is stored so; raises what `floats` raises."""
        tensor = self.floats(name)
        return tensor.to(torch.promote_types(tensor.dtype, torch.float32))

    def floats(self, name: str) -> Tensor:
        """The tensor as stored, if it holds finite floating-point numbers.

        Raises:
            InputError: quantised or integer numbers, NaN or Inf; it names file and tensor.
        """
        stored = self[name]
        if stored.dtype not in FLOATS:
            raise InputError(
                f"{stored.file}: tensor {name} is stored as {stored.dtype}; expected one of {', '.join(FLOATS)}: "
                "dequantise the weights and save them again"
            )
        tensor = self.raw(name)
        if not is_finite(tensor):
            raise InputError(f"{stored.file}: tensor {name} holds NaN or Inf")
        return tensor


def check_folder(folder: Path) -> None:
    """Refuse a model's or an adapter's folder that is unsafe to hand to another library; only headers are read.

    Raises:
        InputError: no such folder, a link out of it, pickle without safetensors, a missing, truncated or corrupt file,
            an index that leaves the folder or does not fit its shards; it names file and cause.
    """
    Tensors(folder, "adapter_model" if (folder / "adapter_config.json").exists() else "model")


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        InputError: no such file, invalid JSON, or something else than an object.
    """
    if not file.is_file():
        raise InputError(f"{file}: no such file")
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: expected JSON: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{file}: expected a JSON object, got {type(value).__name__}")
    return value


def _check_entries(folder: Path) -> None:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    for entry in sorted(folder.iterdir()):
        _check_link(entry)
        if not entry.is_file() and not entry.is_dir():
            raise InputError(f"{entry}: expected an ordinary file")


def _check_link(entry: Path) -> None:
    """Links stay inside the folder, or lead to the Hub cache's blobs of the same repository."""
    if not entry.is_symlink():
        return
    root = entry.parent.resolve()
    blobs = [above.parent.parent / "blobs" for above in (root, *root.parents) if above.parent.name == "snapshots"]
    try:
        target = entry.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise InputError(f"{entry}: a link that leads nowhere") from error
    if not any(target.is_relative_to(place) for place in (root, *blobs)):
        raise InputError(f"{entry}: a link out of its folder, to {target}")


def _weight_files(folder: Path, stem: str) -> list[Path]:
    """The safetensors files, in the order of preference of transformers: the single file, then the index's shards."""
    single = folder / f"{stem}.safetensors"
    if single.exists():
        return [single]
    index = folder / f"{stem}.safetensors.index.json"
    if index.exists():
        return [_shard(index, name) for name in sorted(set(_weight_map(index).values()))]
    pickles = sorted(entry.name for entry in folder.iterdir() if entry.suffix in PICKLES)
    if pickles:
        raise InputError(
            f"{folder / pickles[0]}: pickle can run code and is refused; expected {single.name} "
            "(load it where you trust it and save again with safe_serialization=True)"
        )
    raise InputError(f"{folder}: expected {single.name} or {index.name}, found neither")


def _weight_map(index: Path) -> dict[str, str]:
    mapping = read_json(index).get("weight_map")
    if not isinstance(mapping, dict) or not mapping or not all(isinstance(name, str) for name in mapping.values()):
        raise InputError(f"{index}: expected a weight_map from tensor names to file names")
    return mapping


def _shard(index: Path, name: str) -> Path:
    if name != Path(name).name or "\\" in name or name in {"", ".", ".."}:
        raise InputError(f"{index}: weight_map leads to {name!r}; expected a file name in the same folder")
    shard = index.parent / name
    if not shard.is_file():
        raise InputError(f"{shard}: missing, though {index.name} lists it")
    return shard


def _check_index(folder: Path, stem: str, stored: Mapping[str, Stored]) -> None:
    index = folder / f"{stem}.safetensors.index.json"
    if (folder / f"{stem}.safetensors").exists() or not index.exists():
        return
    for tensor, name in _weight_map(index).items():
        if tensor not in stored or stored[tensor].file.name != name:
            raise InputError(f"{folder / name}: has no tensor {tensor}, though {index.name} says so")


def _open(backend: str, file: Path) -> Any:
    try:
        return safe_open(file, framework="pt", backend=backend)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{file}: truncated or corrupt safetensors file: {error}") from error


def _header(file: Path, opened: Any) -> dict[str, Stored]:
    slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
    return {name: Stored(file, tuple(s.get_shape()), s.get_dtype()) for name, s in slices.items()}
