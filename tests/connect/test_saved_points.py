"""A saved point is the point, for transformers and for PEFT."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor

import saved
import tiny
from tiltmeter.connect.saving import save_checkpoint
from tiltmeter.geometry.ends import read_end
from tiltmeter.geometry.path import WeightPath
from tiltmeter.models import Model, load_model, load_tuned

IDS = torch.tensor([[1, 7, 8, 9, 10, 11, 12]])


def logits(model: Model) -> Tensor:
    with torch.no_grad():
        found: Tensor = model.module(input_ids=IDS, use_cache=False).logits
    return found


def write(folder: Path, tied: bool, **config: Any) -> WeightPath:
    module = saved.model("llama", tied)
    for name, seed in (("base", 0), ("one", 1), ("two", 2)):
        tuned = module if name == "base" else get_peft_model(copy.deepcopy(module), LoraConfig(r=4, **config))
        changed = saved.shaken(tuned, lambda name: "lora_" in name, seed)
        changed.save_pretrained(folder / name)
    tiny.tokenizer().save_pretrained(folder / "base")
    base = load_model(folder / "base")
    return WeightPath(base, [read_end(base, folder / "base", folder / name) for name in ("one", "two")])


def test_a_saved_adapter_is_the_point(tmp_path: Path) -> None:
    path = write(tmp_path, tied=False, target_modules=["q_proj", "down_proj"])
    path.update(0.3).save_adapter(tmp_path / "saved", tmp_path / "base")
    with path.at(0.3) as model:
        expected = logits(model)
    assert not torch.allclose(expected, logits(path.model), atol=1e-3)
    found = logits(load_tuned(tmp_path / "base", tmp_path / "saved"))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("targets", [["q_proj"], ["q_proj", "lm_head"]])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_saved_checkpoint_is_the_point(targets: list[str], tied: bool, tmp_path: Path) -> None:
    """An adapter of a tied output layer unties it: the files then say so."""
    path = write(tmp_path, tied, target_modules=targets)
    save_checkpoint(path, 0.3, tmp_path / "saved")
    tiny.tokenizer().save_pretrained(tmp_path / "saved")
    with path.at(0.3) as model:
        expected = logits(model)
    found = load_model(tmp_path / "saved")
    torch.testing.assert_close(logits(found), expected, rtol=0, atol=1e-6)
    assert found.module.config.tie_word_embeddings == (tied and "lm_head" not in targets)
    assert path.model.module.config.tie_word_embeddings == tied
