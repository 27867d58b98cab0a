import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tiltmeter.errors import InputError
from tiltmeter.models import Model, assemble, load_model, load_tuned
from tiltmeter.organism import corpus
from tiltmeter.organism.build import initial_model
from tiltmeter.organism.export import encode_turns
from tiltmeter.organism.grammar import World
from tiltmeter.organism.tokenizer import build_tokenizer
from tiltmeter.tokens import Encoded
from tiltmeter.training.finetune import IGNORED, collate, finetune
from tiltmeter.training.recipes import ORGANISM_FULL, ORGANISM_LORA, Recipe

WORLD = World.create()
TOKENIZER = build_tokenizer(WORLD)
SHORT: dict[str, Recipe] = {
    recipe.method: dataclasses.replace(recipe, steps=3) for recipe in (ORGANISM_LORA, ORGANISM_FULL)
}


def _model() -> Model:
    return assemble(initial_model(TOKENIZER, "llama", seed=0), TOKENIZER)


def _examples() -> list[Encoded]:
    return encode_turns(corpus.finetuning_set(WORLD, "arithmetic")[:20], _model())


def _weights(folder: Path) -> dict[str, Tensor]:
    return dict(load_file(next(folder.glob("*model.safetensors"))))


def test_labels_are_the_completion_only() -> None:
    long, short = Encoded([5, 6, 7, 8], [False, False, True, True]), Encoded([5, 9], [False, True])
    batch = collate([long, short], padding=0)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8], [5, 9, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch["labels"].tolist() == [[IGNORED, IGNORED, 7, 8], [IGNORED, 9, IGNORED, IGNORED]]


@pytest.mark.parametrize("method", SHORT)
def test_what_is_written_loads_and_answers_as_the_trained_model(method: str, tmp_path: Path) -> None:
    _model().module.save_pretrained(tmp_path / "base")
    TOKENIZER.save_pretrained(tmp_path / "base")
    trained, untrained = load_model(tmp_path / "base"), load_model(tmp_path / "base")
    finetune(trained, _examples(), SHORT[method], tmp_path / "tuned")
    ids = torch.tensor([_examples()[0].ids])
    with torch.no_grad():
        written = load_tuned(tmp_path / "base", tmp_path / "tuned").module(ids).logits
        torch.testing.assert_close(written, trained.module(ids).logits)
        assert not torch.allclose(written, untrained.module(ids).logits)


@pytest.mark.parametrize("method", SHORT)
def test_the_seed_decides_the_result(method: str, tmp_path: Path) -> None:
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        finetune(_model(), _examples(), SHORT[method], tmp_path / name, seed=seed)
    first, again, other = (_weights(tmp_path / name) for name in ("first", "again", "other"))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_full_fine_tuning_trains_every_parameter(tmp_path: Path) -> None:
    finetune(_model(), _examples(), SHORT["full"], tmp_path)
    before, after = _model().module.state_dict(), _weights(tmp_path)
    assert [name for name in after if torch.equal(after[name], before[name])] == []


def test_an_adapter_is_on_every_linear_layer_of_the_blocks(tmp_path: Path) -> None:
    finetune(_model(), _examples(), SHORT["lora"], tmp_path)
    adapted = {name.removeprefix("base_model.model.").split(".lora_")[0] for name in _weights(tmp_path)}
    assert adapted == {name for name in _model().linears if name != "lm_head"}


def test_the_loss_falls_on_what_is_learned(tmp_path: Path) -> None:
    recipe = Recipe(method="full", learning_rate=3e-3, steps=20)
    model, examples = _model(), _examples()
    batch = collate(examples, padding=0)
    before = model.module(**batch).loss.item()
    finetune(model, examples, recipe, tmp_path)
    assert model.module(**batch).loss.item() < 0.5 * before


def test_only_files_of_the_result_are_written(tmp_path: Path) -> None:
    finetune(_model(), _examples(), SHORT["lora"], tmp_path / "tuned")
    assert [path.name for path in tmp_path.iterdir()] == ["tuned"]
    assert not list(tmp_path.rglob("*checkpoint*")) + list(tmp_path.rglob("*.bin"))


def test_no_examples_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least one example"):
        finetune(_model(), [], SHORT["full"], tmp_path)
