"""The two ways to read tensors: the bits of the file, few open files, and clear errors."""

import json
import math
import os
import struct
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save, save_file
from torch import Tensor

import saved
from tiltmeter.errors import InputError
from tiltmeter.updates.files import OPEN_FILES, Reading, Tensors
from tiltmeter.updates.finite import is_finite
from tiltmeter.updates.update import Update

READINGS = get_args(Reading)
STORABLE = {name: dtype for name, dtype in vars(torch).items() if isinstance(dtype, torch.dtype)}
SHAPES: dict[str, tuple[int, ...]] = {"scalar": (), "vector": (6,), "matrix": (3, 4), "empty": (0, 4)}


def every_tensor() -> dict[str, Tensor]:
    """Random bits in every dtype that safetensors writes from torch."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for dtype in set(STORABLE.values()):
        for kind, shape in SHAPES.items():
            size = math.prod(shape) * dtype.itemsize
            bits = torch.randint(0, 2 if dtype is torch.bool else 256, (size,), generator=generator, dtype=torch.uint8)
            tensors[f"{dtype} {kind}"] = bits.view(dtype).reshape(shape)
    return {name: tensor for name, tensor in tensors.items() if _is_written(tensor)}


def _is_written(tensor: Tensor) -> bool:
    try:
        return bool(save({"a": tensor}))
    except (KeyError, ValueError, RuntimeError, SafetensorError):
        return False


def bits(tensor: Tensor) -> bytes:
    return bytes(tensor.reshape(-1).view(torch.uint8).numpy())


def in_file(file: Path) -> dict[str, bytes]:
    """The bytes of each tensor by the format's own words: 8 bytes of length, JSON with offsets, data."""
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    data = content[8 + length :]
    return {name: data[slice(*entry["data_offsets"])] for name, entry in header.items() if name != "__metadata__"}


@pytest.mark.parametrize("io", READINGS)
def test_every_dtype_is_read_bit_for_bit(io: Reading, tmp_path: Path) -> None:
    tensors = every_tensor()
    save_file(tensors, tmp_path / "model.safetensors")
    read, truth = Tensors(tmp_path, io=io), in_file(tmp_path / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} > {torch.bfloat16, torch.float8_e4m3fn, torch.complex64}
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        if io == "read" and tensor.dtype == torch.float4_e2m1fn_x2:
            with pytest.raises(InputError, match=rf"model\.safetensors: tensor {name} is stored as F4, .* mmap"):
                read.raw(name)
            continue
        found = read.raw(name)
        assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape), name
        assert bits(found) == bits(tensor) == truth[name], name


@pytest.mark.parametrize("io", READINGS)
def test_few_files_stay_open_and_none_after_the_object(io: Reading, tmp_path: Path) -> None:
    count = OPEN_FILES + 3
    shards = {f"t{shard}": f"model-{shard}.safetensors" for shard in range(count)}
    for name, shard in shards.items():
        save_file({name: torch.full((4,), float(name[1:]))}, tmp_path / shard)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    tensors = Tensors(tmp_path, io=io)
    for _ in range(2):
        assert [float(tensors.read(name)[0]) for name in shards] == [float(n) for n in range(count)]
        assert 0 < held(tmp_path) <= OPEN_FILES
    del tensors
    assert held(tmp_path) == 0


def held(folder: Path) -> int:
    """Files of a folder that this process has open or mapped."""
    links = [Path("/proc/self/fd") / number for number in os.listdir("/proc/self/fd")]
    opened = {os.readlink(link) for link in links if link.is_symlink()}
    mapped = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
    return sum(name.startswith(str(folder)) for name in opened | mapped)


def test_reading_maps_nothing(tmp_path: Path) -> None:
    save_file({"a": torch.ones(4096)}, tmp_path / "model.safetensors")
    tensors = Tensors(tmp_path, io="read")
    tensor = tensors.raw("a")
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert float(tensor.sum()) == 4096


def test_a_file_truncated_after_opening(tmp_path: Path) -> None:
    save_file({"a": torch.ones(4096)}, tmp_path / "model.safetensors")
    tensors = Tensors(tmp_path, io="read")
    os.truncate(tmp_path / "model.safetensors", 1000)
    with pytest.raises(InputError, match=r"model\.safetensors: cannot read tensor a: ") as error:
        tensors.read("a")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["NaN", "Inf"])
@pytest.mark.parametrize("io", READINGS)
def test_numbers_that_are_not_finite_are_named(io: Reading, kind: str, tmp_path: Path) -> None:
    save_file({"a": torch.tensor([1.0, float(kind), 2.0])}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"model\.safetensors: tensor a holds NaN or Inf"):
        Tensors(tmp_path, io=io).read("a")


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_one_bad_number_anywhere_is_found(dtype: torch.dtype, bad: float) -> None:
    for size in (1, 7, 33, 100):
        large = torch.full((size,), torch.finfo(dtype).max, dtype=dtype)
        assert is_finite(large)
        assert is_finite(-large)
        for place in range(size):
            assert not is_finite(large.index_fill(0, torch.tensor(place), bad))
    assert is_finite(torch.empty(0, 3, dtype=dtype))


def test_updates_are_the_same_both_ways(tmp_path: Path) -> None:
    config: dict[str, Any] = {"target_modules": ["q_proj"], "modules_to_save": ["norm", "down_proj"]}
    saved.adapter(tmp_path, **config)
    tuned = saved.shaken(saved.model("llama"), lambda name: True)
    tuned.save_pretrained(tmp_path / "tuned", max_shard_size="20KB")
    base = tmp_path / "base"
    reads = [
        partial(Update.from_adapter, tmp_path / "adapter", base),
        partial(Update.between, base, tmp_path / "tuned"),
    ]
    without = [read(io="read") for read in reads]
    for plain in without:
        plain.loaded()
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()
    for plain, read in zip(without, reads, strict=True):
        mapped = read(io="mmap")
        assert mapped.not_covered == plain.not_covered != {}
        assert mapped.keys() == plain.keys()
        assert all(torch.equal(mapped[name].dense(), plain[name].dense()) for name in mapped)


def test_the_initial_adapter_is_read_the_same_way(tmp_path: Path) -> None:
    saved.adapter(tmp_path, target_modules=["q_proj"], init_lora_weights="pissa", changes_base=True)
    update = Update.from_adapter(tmp_path / "adapter", initial=tmp_path / "initial", io="read")
    update.loaded()
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()
    assert held(tmp_path) == 2
