"""Broken and hostile adapters: one clear line that names the file, the module and the cause."""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import saved
from tiltmeter.errors import InputError
from tiltmeter.updates import matching
from tiltmeter.updates.adapters import check_patterns
from tiltmeter.updates.files import check_folder
from tiltmeter.updates.update import Update

FILE = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
Q = "base_model.model.model.layers.0.self_attn.q_proj"
NAMES = [f"model.layers.{layer}.self_attn.{kind}_proj" for layer in (0, 1) for kind in "qkvo"]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    saved.adapter(folder, target_modules=["q_proj", "v_proj"])
    return folder


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "copy"))


def configured(**fields: Any) -> Callable[[Path], None]:
    def damage(adapter: Path) -> None:
        config = json.loads((adapter / CONFIG).read_text())
        (adapter / CONFIG).write_text(json.dumps({**config, **fields}))

    return damage


def stored(change: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], None]:
    def damage(adapter: Path) -> None:
        tensors = load_file(adapter / FILE)
        change(tensors)
        save_file(tensors, adapter / FILE)

    return damage


def renamed(old: str, new: str) -> Callable[[Path], None]:
    return stored(lambda tensors: tensors.update({new: tensors.pop(old)}))


def moved(old: str, new: str) -> Callable[[Path], None]:
    return stored(lambda tensors: tensors.update({key.replace(old, new): tensors.pop(key) for key in [*tensors]}))


def dropped(key: str) -> Callable[[Path], None]:
    return stored(lambda tensors: tensors.pop(key))


def replaced(key: str, value: Tensor) -> Callable[[Path], None]:
    return stored(lambda tensors: tensors.update({key: value}))


def pickled(adapter: Path) -> None:
    torch.save(load_file(adapter / FILE), adapter / "adapter_model.bin")
    (adapter / FILE).unlink()


def truncated(adapter: Path) -> None:
    (adapter / FILE).write_bytes((adapter / FILE).read_bytes()[:-100])


def promising(adapter: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**31, 4], "data_offsets": [0, 2**35]}}).encode()
    (adapter / FILE).write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))


def linked(adapter: Path) -> None:
    outside = adapter.parent / "outside.safetensors"
    (adapter / FILE).rename(outside)
    (adapter / FILE).symlink_to(outside)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "pickle": (pickled, r"adapter_model\.bin: pickle .* refused"),
    "truncated": (truncated, r"adapter_model\.safetensors: truncated or corrupt"),
    "garbage": (lambda adapter: (adapter / FILE).write_bytes(b"x" * 200), r"adapter_model\.safetensors: truncated or"),
    "header of 2^31 rows": (promising, r"adapter_model\.safetensors: truncated or corrupt"),
    "no tensors": (stored(lambda tensors: tensors.clear()), "holds no tensors"),
    "link out of the folder": (linked, r"adapter_model\.safetensors: a link out of its folder"),
    "no weights": (lambda adapter: (adapter / FILE).unlink(), r"expected adapter_model\.safetensors"),
    "no config": (lambda adapter: (adapter / CONFIG).unlink(), r"adapter_config\.json: no such file"),
    "invalid JSON": (lambda adapter: (adapter / CONFIG).write_text("{"), r"adapter_config\.json: expected JSON"),
    "deep JSON": (lambda adapter: (adapter / CONFIG).write_text("[" * 10**5), r"adapter_config\.json: expected JSON"),
    "JSON list": (lambda adapter: (adapter / CONFIG).write_text("[]"), "expected a JSON object, got list"),
    "rank 0": (configured(r=0), r"adapter_config\.json: r: .*greater than 0, got 0"),
    "alpha no number": (configured(lora_alpha="much"), r"adapter_config\.json: lora_alpha: .*got 'much'"),
    "another method": (configured(peft_type="LOHA"), r"peft_type is 'LOHA'.*merge_and_unload"),
    "no method": (configured(peft_type=None), "peft_type is None"),
    "experts": (configured(target_parameters=["mlp.experts.gate_up_proj"]), "target_parameters is not .*merge_and"),
    "replicated layers": (configured(layer_replication=[[0, 2], [1, 2]]), "layer_replication is not supported"),
    "aLoRA": (configured(alora_invocation_tokens=[1]), "alora_invocation_tokens is not supported"),
    "megatron": (configured(megatron_config={"a": 1}), "megatron_config is not supported"),
    "DoRA without magnitudes": (configured(use_dora=True), "q_proj has no lora_magnitude_vector, but use_dora is True"),
    "invalid pattern": (configured(rank_pattern={"(": 2}), r"adapter_config\.json: rank_pattern: .*invalid regular"),
    "another rank": (configured(r=3), r"layers\.0\.self_attn\.q_proj has factors .*expected rank 3"),
    "unmatched key": (
        moved("q_proj", "query"),
        r"adapter_model\.safetensors: keys that match no module of .*layers\.0\.self_attn\.query\.lora_",
    ),
    "unmatched parameter": (replaced("base_model.model.score.weight", torch.ones(2, 16)), "match no module .*score"),
    "key without PEFT's prefix": (
        renamed(f"{Q}.lora_A.weight", "model.layers.0.self_attn.q_proj.lora_A.weight"),
        "match nothing that PEFT would load: model.layers.0.self_attn.q_proj.lora_A.weight",
    ),
    "key with the adapter's name": (
        renamed(f"{Q}.lora_A.weight", f"{Q}.lora_A.default.weight"),
        "match nothing that PEFT would load: .*lora_A.default.weight",
    ),
    "A alone": (
        dropped(f"{Q}.lora_B.weight"),
        "q_proj has lora_A.weight but no lora_B.weight",
    ),
    "B alone": (
        dropped(f"{Q}.lora_A.weight"),
        "q_proj has lora_B.weight but no lora_A.weight",
    ),
    "factors that do not fit": (replaced(f"{Q}.lora_A.weight", torch.ones(5, 16)), r"\[16, 4\] and \[5, 16\]"),
    "convolution": (replaced(f"{Q}.lora_A.weight", torch.ones(4, 16, 1, 1)), "q_proj .*only matrices"),
    "another width": (
        replaced(f"{Q}.lora_A.weight", torch.ones(4, 8)),
        r"layers\.0\.self_attn\.q_proj changes \[16, 8\], expected \[16, 16\] as in",
    ),
    "LoRA of a norm": (
        moved("layers.0.self_attn.q_proj", "norm"),
        "module model.norm is a LlamaRMSNorm .*expected a linear layer",
    ),
    "NaN": (
        replaced(f"{Q}.lora_A.weight", torch.full((4, 16), torch.nan)),
        "safetensors: .*q_proj.lora_A.* NaN or Inf",
    ),
    "Inf": (
        replaced(f"{Q}.lora_B.weight", torch.full((16, 4), torch.inf)),
        "safetensors: .*q_proj.lora_B.* NaN or Inf",
    ),
    "integers": (replaced(f"{Q}.lora_A.weight", torch.ones(4, 16, dtype=torch.int8)), "stored as I8.*dequantise"),
    "zero": (
        stored(lambda tensors: [tensor.zero_() for key, tensor in tensors.items() if "lora_B" in key]),
        "the adapter did nothing",
    ),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE.keys())
def test_refused_in_one_line(folder: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(folder / "adapter")
    with pytest.raises(InputError, match=message) as error:
        Update.from_adapter(folder / "adapter", folder / "base")
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("field", ["rank_pattern", "alpha_pattern"])
def test_pattern_that_never_finishes(folder: Path, field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "SECONDS", 0.5)
    configured(**{field: {"(.*.)*x": 2}})(folder / "adapter")
    with pytest.raises(InputError, match=rf"adapter_config\.json: {field}: .*did not finish"):
        Update.from_adapter(folder / "adapter", folder / "base")


@pytest.mark.parametrize("field", ["target_modules", "exclude_modules", "modules_to_save", "layers_pattern"])
def test_pattern_that_would_hang_peft(folder: Path, field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "SECONDS", 0.5)
    pattern = "(.*.)*x"
    configured(**{field: [pattern] if field == "modules_to_save" else pattern})(folder / "adapter")
    with pytest.raises(InputError, match=rf"adapter_config\.json: {field}: .*did not finish"):
        check_patterns(folder / "adapter", NAMES)


def test_ordinary_patterns_pass(folder: Path) -> None:
    configured(
        target_modules=r".*\.(q|v)_proj", exclude_modules=r"(?i).*LAYERS\.1.*", rank_pattern={"q_proj|v_proj": 4}
    )(folder / "adapter")
    check_patterns(folder / "adapter", NAMES)


def test_base_model_name_is_never_followed(folder: Path) -> None:
    before = Update.from_adapter(folder / "adapter").norm()
    configured(base_model_name_or_path="/dev/zero")(folder / "adapter")
    assert Update.from_adapter(folder / "adapter").norm() == before


def test_links_of_the_hub_cache_are_followed(folder: Path) -> None:
    blobs, snapshot = folder / "models--x" / "blobs", folder / "models--x" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sorted((folder / "adapter").iterdir())):
        shutil.copy(file, blobs / str(number))
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    check_folder(snapshot)
    assert Update.from_adapter(snapshot).norm() == Update.from_adapter(folder / "adapter").norm()


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent/adapter_config\.json: no such file"):
        Update.from_adapter(tmp_path / "absent")


def test_initial_adapter_of_other_modules(tmp_path: Path) -> None:
    saved.adapter(tmp_path / "one", target_modules=["q_proj"], init_lora_weights="pissa", changes_base=True)
    saved.adapter(tmp_path / "two", target_modules=["v_proj"], init_lora_weights="pissa", changes_base=True)
    with pytest.raises(InputError, match=r"two/initial: expected the modules of .*q_proj is in one of them only"):
        Update.from_adapter(tmp_path / "one" / "adapter", initial=tmp_path / "two" / "initial")
