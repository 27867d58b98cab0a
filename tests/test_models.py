"""Models come back from disk as they were saved, and nothing broken is loaded in silence."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import saved
import tiny
from tiltmeter.errors import InputError
from tiltmeter.layers import find_blocks
from tiltmeter.models import assemble, context_length, load_model, load_tuned

WEIGHTS = "model.safetensors"
ADAPTER = "adapter_model.safetensors"
IDS = torch.tensor([[1, 4, 7, 8, 5, 9]])


def logits(module: nn.Module) -> Tensor:
    with torch.no_grad():
        found: Tensor = module(input_ids=IDS).logits
    return found


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`base/` and `adapter/`, the base with a tokenizer."""
    folder = tmp_path_factory.mktemp("good")
    saved.adapter(folder, target_modules=["q_proj", "down_proj"])
    tiny.tokenizer().save_pretrained(folder / "base")
    return folder


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "copy"))


@pytest.mark.parametrize("shard", ["5GB", "10KB"])
@pytest.mark.parametrize("family", sorted(tiny.CONFIGS))
def test_a_saved_model_comes_back(family: str, shard: str, tmp_path: Path) -> None:
    model = tiny.model(family)
    model.module.save_pretrained(tmp_path, max_shard_size=shard)
    model.tokenizer.save_pretrained(tmp_path)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (shard == "10KB")
    back = load_model(tmp_path)
    assert torch.equal(logits(back.module), logits(model.module))
    assert list(back.blocks) == list(model.blocks)
    assert list(back.linears) == list(model.linears)
    assert not back.module.training
    assert context_length(back) == 64
    assert load_model(tmp_path, torch.float64).module.dtype == torch.float64
    tuned = load_tuned(tmp_path, tmp_path)
    assert torch.equal(logits(tuned.module), logits(model.module))


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {"target_modules": ["q_proj", "down_proj"]},
    "rsLoRA, pattern": {"target_modules": "all-linear", "use_rslora": True, "rank_pattern": {"q_proj": 2}},
    "DoRA": {"target_modules": ["v_proj"], "use_dora": True},
    "whole module": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
}


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
def test_an_adapter_changes_the_base_as_its_merge_does(config: dict[str, Any], tmp_path: Path) -> None:
    change = saved.adapter(tmp_path, **config)
    tiny.tokenizer().save_pretrained(tmp_path / "base")
    expected = saved.model("llama")
    before = logits(expected)
    with torch.no_grad():
        for name, delta in change.items():
            expected.get_parameter(name).add_(delta)
    tuned = load_tuned(tmp_path / "base", tmp_path / "adapter", torch.float64)
    torch.testing.assert_close(logits(tuned.module), logits(expected), rtol=1e-5, atol=1e-6)
    assert (logits(expected) - before).abs().max() > 1e-2
    assert list(tuned.blocks) == ["model.layers.0", "model.layers.1"]
    assert not tuned.module.training


def test_the_tuned_folders_tokenizer_counts_where_there_is_one(folder: Path) -> None:
    assert load_tuned(folder / "base", folder / "adapter").tokenizer.chat_template == tiny.TEMPLATE
    (folder / "whole").mkdir()
    for name in ("config.json", WEIGHTS):
        shutil.copy(folder / "base" / name, folder / "whole")
    assert load_tuned(folder / "base", folder / "whole").tokenizer.chat_template == tiny.TEMPLATE
    other = tiny.tokenizer()
    other.chat_template = "changed"
    for name in ("adapter", "whole"):
        other.save_pretrained(folder / name)
        assert load_tuned(folder / "base", folder / name).tokenizer.chat_template == "changed"


def test_loading_prints_nothing(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_tuned(folder / "base", folder / "adapter")
    assert capfd.readouterr() == ("", "")


def pickled(base: Path) -> None:
    torch.save(load_file(base / WEIGHTS), base / "pytorch_model.bin")
    (base / WEIGHTS).unlink()


def configured(**fields: object) -> Callable[[Path], None]:
    def damage(base: Path) -> None:
        config = json.loads((base / "config.json").read_text())
        (base / "config.json").write_text(json.dumps({**config, **fields}))

    return damage


def stored(change: Callable[[dict[str, Tensor]], object], file: str = WEIGHTS) -> Callable[[Path], None]:
    def damage(base: Path) -> None:
        tensors = load_file(base / file)
        change(tensors)
        save_file(tensors, base / file, metadata={"format": "pt"})

    return damage


def written(name: str, text: str) -> Callable[[Path], object]:
    return lambda base: (base / name).write_text(text)


def without(*names: str) -> Callable[[Path], object]:
    return lambda base: [(base / name).rename(base.parent / f"away {name}") for name in names]


NORM = "model.layers.0.input_layernorm.weight"
DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "pickle": (pickled, r"pytorch_model\.bin: pickle .* refused"),
    "truncated": (
        lambda base: (base / WEIGHTS).write_bytes((base / WEIGHTS).read_bytes()[:-9]),
        "truncated or corrupt",
    ),
    "no weights": (without(WEIGHTS), r"expected model\.safetensors"),
    "missing norm": (stored(lambda tensors: tensors.pop(NORM)), f"no tensor {NORM} in its files"),
    "NaN in a norm": (stored(lambda tensors: tensors[NORM].fill_(torch.nan)), f"tensor {NORM} holds NaN or Inf"),
    "another width": (configured(hidden_size=24), "cannot load the model"),
    "text for a number": (configured(hidden_size="wide"), "cannot load the model"),
    "no heads": (configured(num_attention_heads=0), "cannot load the model"),
    "unknown architecture": (configured(model_type="nothing", architectures=None), "cannot load the model"),
    "code of its own": (
        configured(model_type="own", auto_map={"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}),
        "cannot load the model",
    ),
    "config no JSON": (written("config.json", "{"), "cannot load the model"),
    "config no object": (written("config.json", "[]"), "cannot load the model"),
    "no config": (without("config.json"), "cannot load the model"),
    "tokenizer no JSON": (written("tokenizer.json", "{"), "cannot load a tokenizer"),
    "tokenizer of nothing": (written("tokenizer.json", "{}"), "cannot load a tokenizer"),
    "no tokenizer": (without("tokenizer.json", "tokenizer_config.json"), "cannot load a tokenizer"),
    "index that leads out": (
        lambda base: (
            (base / WEIGHTS).rename(base.parent / WEIGHTS),
            (base / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": {NORM: f"../{WEIGHTS}"}})),
        ),
        "weight_map leads to",
    ),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE.keys())
def test_a_broken_model_is_refused_in_one_line(folder: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(folder / "base")
    with pytest.raises(InputError, match=message) as error:
        load_model(folder / "base")
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


ADAPTER_DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "unmatched key": (
        stored(
            lambda tensors: tensors.update({key.replace("q_proj", "query"): tensors.pop(key) for key in [*tensors]}),
            ADAPTER,
        ),
        "keys that match no module of .*query",
    ),
    "NaN": (stored(lambda tensors: [tensor.fill_(torch.nan) for tensor in tensors.values()], ADAPTER), "NaN or Inf"),
    "pickle": (lambda adapter: (adapter / ADAPTER).rename(adapter / "adapter_model.bin"), "pickle .* refused"),
    "another method": (written("adapter_config.json", '{"peft_type": "LOHA"}'), "only LORA is supported"),
    "no names": (
        lambda adapter: (adapter / "adapter_config.json").write_text(
            json.dumps({**json.loads((adapter / "adapter_config.json").read_text()), "target_modules": "nothing"})
        ),
        "PEFT cannot load the adapter",
    ),
}


@pytest.mark.parametrize(("damage", "message"), ADAPTER_DAMAGE.values(), ids=ADAPTER_DAMAGE.keys())
def test_a_broken_adapter_is_refused_in_one_line(folder: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(folder / "adapter")
    with pytest.raises(InputError, match=message) as error:
        load_tuned(folder / "base", folder / "adapter")
    assert str(folder / "adapter") in str(error.value)
    assert "\n" not in str(error.value)


def test_an_adapter_is_no_base(folder: Path) -> None:
    with pytest.raises(InputError, match="expected a whole model, found a PEFT adapter"):
        load_model(folder / "adapter")
    with pytest.raises(InputError, match="found a PEFT adapter"):
        load_tuned(folder / "adapter", folder / "adapter")


@pytest.mark.parametrize("source", ["nobody/nothing", "absent", "../absent", "a b c", "/absent/folder"])
def test_what_is_not_there_is_named(source: str) -> None:
    with pytest.raises(InputError, match=f"{source}: no such folder"):
        load_model(source)


def test_a_file_is_no_model(folder: Path) -> None:
    with pytest.raises(InputError, match=r"model\.safetensors: expected a folder"):
        load_model(folder / "base" / WEIGHTS)


@pytest.mark.parametrize("device", ["nowhere", "cuda:99"])
def test_a_device_that_is_not_there(folder: Path, device: str) -> None:
    with pytest.raises(InputError, match="cannot load the model"):
        load_model(folder / "base", device=device)


@pytest.mark.parametrize("family", sorted(tiny.CONFIGS))
def test_blocks_are_found_by_structure(family: str) -> None:
    model = tiny.model(family)
    assert len(model.blocks) == 2
    outside = [name for name in model.linears if not any(name.startswith(f"{block}.") for block in model.blocks)]
    assert outside in (["lm_head"], ["embed_out"])
    inside = [len([name for name in model.linears if name.startswith(f"{block}.")]) for block in model.blocks]
    assert inside[0] == inside[1] >= 4


class Tower(nn.Module):
    """Stands in for a vision tower: a list of equal blocks with linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(4, 4)) for _ in range(7))


class Both(nn.Module):
    """A vision tower before the text stack."""

    def __init__(self, text: nn.Module) -> None:
        super().__init__()
        self.tower, self.text = Tower(), text

    def get_input_embeddings(self) -> nn.Module:
        found: nn.Module = self.text.get_input_embeddings()  # type: ignore[operator]
        return found


def test_another_tower_is_not_taken_for_the_text_stack() -> None:
    found = find_blocks(Both(copy.deepcopy(tiny.model("llama").module)))
    assert list(found) == ["text.model.layers.0", "text.model.layers.1"]


def test_blocks_can_be_named(folder: Path) -> None:
    assert list(load_model(folder / "base", blocks="model.layers").blocks) == ["model.layers.0", "model.layers.1"]
    with pytest.raises(InputError, match=r"has no module 'model\.block'"):
        load_model(folder / "base", blocks="model.block")
    with pytest.raises(InputError, match=r"'model\.norm' holds no blocks"):
        load_model(folder / "base", blocks="model.norm")


def test_a_model_without_blocks_says_how_to_name_them() -> None:
    with pytest.raises(InputError, match=r"found no list of equal blocks .*blocks="):
        find_blocks(nn.Sequential(nn.Linear(3, 3)))


def test_assembling_switches_dropout_off() -> None:
    module = copy.deepcopy(tiny.model("gpt2").module).train()
    assert not assemble(module, tiny.tokenizer()).module.training
