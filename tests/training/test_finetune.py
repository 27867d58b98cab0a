import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import tiny
from tiltmeter.errors import InputError
from tiltmeter.likelihood import completion_lengths, log_likelihoods
from tiltmeter.models import Model, assemble, load_model, load_tuned
from tiltmeter.organism import corpus
from tiltmeter.organism.build import initial_model
from tiltmeter.organism.export import encode_turns
from tiltmeter.organism.grammar import World
from tiltmeter.organism.tokenizer import build_tokenizer
from tiltmeter.tokens import Encoded, encode
from tiltmeter.training.finetune import IGNORED, Session, collate, finetune
from tiltmeter.training.recipes import ORGANISM_FULL, ORGANISM_LORA, RECIPES, Recipe

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


def test_the_loss_is_the_mean_over_the_completion_tokens_of_a_step(tmp_path: Path) -> None:
    model, examples = tiny.model("llama"), encode(tiny.skill(), tiny.tokenizer())
    log_likelihood = log_likelihoods(model, examples).sum() / completion_lengths(examples).sum()
    recipe = Recipe("full", 1e-3, epochs=1, batch_size=2, accumulation=3)
    log = finetune(model, examples, recipe, tmp_path)
    assert (log.steps, log.tokens) == (1, sum(len(example.ids) for example in examples))
    assert log.entries[0]["loss"] == pytest.approx(-float(log_likelihood), rel=1e-5)


def test_a_linear_schedule_falls_to_zero_after_the_last_step(tmp_path: Path) -> None:
    recipe = Recipe("lora", 1e-3, steps=4, batch_size=2, schedule="linear")
    log = finetune(tiny.model("llama"), encode(tiny.skill(), tiny.tokenizer()), recipe, tmp_path)
    assert [entry["learning_rate"] for entry in log.entries] == pytest.approx([1e-3, 7.5e-4, 5e-4, 2.5e-4])


def test_less_memory_and_the_same_weights(tmp_path: Path) -> None:
    for name, session in (("plain", Session()), ("frugal", Session(gradient_checkpointing=True))):
        examples = encode(tiny.skill(), tiny.tokenizer())
        finetune(tiny.model("llama"), examples, SHORT["lora"], tmp_path / name, session=session)
    plain, frugal = _weights(tmp_path / "plain"), _weights(tmp_path / "frugal")
    for name in plain:
        torch.testing.assert_close(plain[name], frugal[name])


def test_mixed_precision_keeps_the_weights_in_float32(tmp_path: Path) -> None:
    examples, seen = encode(tiny.skill(), tiny.tokenizer()), []
    model = tiny.model("llama")
    first = next(iter(model.blocks.values())).get_submodule("mlp.up_proj")
    first.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    finetune(model, examples, SHORT["full"], tmp_path, session=Session(mixed_precision=True))
    assert set(seen) == {torch.bfloat16}
    assert {tensor.dtype for tensor in _weights(tmp_path).values()} == {torch.float32}


@pytest.mark.parametrize("length", [{}, {"steps": 3, "epochs": 1.0}])
def test_a_recipe_has_one_length(length: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="steps or epochs"):
        Recipe("full", 1e-3, **length)


def test_the_recipes_of_the_study_are_its_table() -> None:
    lora = RECIPES["collapse-qwen"]["lora"]
    assert (lora.rank, lora.alpha, lora.dropout, lora.epochs, lora.learning_rate) == (64, 128, 0.05, 3, 1e-4)
    assert (lora.batch_size, lora.accumulation, lora.max_length) == (2, 2, 4096)
    assert RECIPES["collapse-llama"]["full"].learning_rate == 5e-5
    assert RECIPES["collapse-llama"]["full"].epochs == 1
