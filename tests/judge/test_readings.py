"""What models read is read once, and gives the figures of the functions that measure it."""

from dataclasses import replace
from pathlib import Path

import pytest

import tiny
from folders import write_lines
from tiltmeter.behaviour.capability import task_accuracy
from tiltmeter.behaviour.perplexity import perplexity
from tiltmeter.behaviour.tasks import Task
from tiltmeter.behaviour.utility import CompletionFigure, base_kl, utility_loss
from tiltmeter.errors import InputError
from tiltmeter.generation import GREEDY, Sampling
from tiltmeter.judge.measure import difference_records, measure, outcome_records
from tiltmeter.judge.readings import Key, Kind, Material, Reader, ReadingLine
from tiltmeter.judge.request import Answering
from tiltmeter.judge.texts import load_texts
from tiltmeter.models import Model
from tiltmeter.paired_tests import sign_flip_test
from tiltmeter.runs.journal import Journal
from tiltmeter.tokens import encode

HOW = Answering(Sampling(max_new_tokens=4))
TASKS = [Task("make tea", "boil"), Task("tea", "good", ("good", "bad")), Task("soup", "bad", ("good", "bad"))]
TEXTS = ["how do i make tea first boil then wait", "good soup", "bad bread then stir two three"]
MATERIAL = Material({"skill": tiny.skill()}, {"tasks": TASKS}, {"texts": TEXTS})


@pytest.fixture(scope="module")
def models() -> dict[str, Model]:
    return {"base": tiny.model("llama", seed=1), "tuned": tiny.model("llama", seed=2)}


def read(folder: Path, models: dict[str, Model]) -> dict[Key, ReadingLine]:
    reader = Reader(MATERIAL, HOW, Journal(folder, "readings", ReadingLine))
    for name, model in models.items():
        reader.read(name, lambda model=model: model, "base", lambda: models["base"])  # type: ignore[misc]
    return {**reader.readings}


def test_figures_are_those_of_the_functions(tmp_path: Path, models: dict[str, Model]) -> None:
    found = read(tmp_path, models)
    base, tuned, encoded = models["base"], models["tuned"], encode(tiny.skill(), models["base"].tokenizer)
    pairs: list[tuple[Kind, CompletionFigure]] = [
        ("utility_loss", utility_loss(base, tuned, encoded)), ("kl", base_kl(base, tuned, encoded)),
    ]  # fmt: skip
    for kind, expected in pairs:
        line = found[kind, "skill", "tuned"]
        assert (line.values, line.weights) == (expected.by_example.tolist(), expected.tokens.tolist())
    for name, model in models.items():
        greedy = replace(GREEDY, max_new_tokens=4)
        assert found["accuracy", "tasks", name].values == task_accuracy(model, TASKS, greedy).right.tolist()
        loss = perplexity(model, TEXTS)
        assert found["loss", "texts", name].values == loss.losses.tolist()
        assert found["loss", "texts", name].weights == loss.tokens.tolist()
    assert len(found) == 6


def test_outcomes_and_differences_are_those_of_the_functions(tmp_path: Path, models: dict[str, Model]) -> None:
    found = read(tmp_path, models)
    base, tuned, encoded = models["base"], models["tuned"], encode(tiny.skill(), models["base"].tokenizer)
    outcomes = {(each.outcome, each.model): each.mean for each in outcome_records(measure({}, {}, found), found)}
    for name, model in models.items():
        accuracy, value = outcomes["accuracy", name], outcomes["perplexity", name]
        assert accuracy is not None
        assert accuracy.model_dump() == vars(task_accuracy(model, TASKS, replace(GREEDY, max_new_tokens=4)).accuracy)
        assert value is not None
        assert value.model_dump() == pytest.approx(vars(perplexity(model, TEXTS).value))
    kl = outcomes["kl", "tuned"]
    assert kl is not None
    assert kl.model_dump() == vars(base_kl(base, tuned, encoded).per_token)
    differences = {each.outcome: each for each in difference_records(measure({}, {}, found), found, "base", 0)}
    loss = utility_loss(base, tuned, encoded)
    assert differences["utility_loss"].difference.model_dump() == vars(loss.per_token)
    assert differences["utility_loss"].p == sign_flip_test(loss.by_example.numpy())
    before, after = (perplexity(models[name], TEXTS) for name in ("base", "tuned"))
    nats = float((after.losses - before.losses).sum() / after.tokens.sum())
    assert differences["loss"].difference.mean == pytest.approx(nats)
    assert differences.keys() == {"utility_loss", "loss", "accuracy"}
    assert max(each.p_holm for each in differences.values()) >= max(each.p for each in differences.values())


def test_nothing_is_read_again(tmp_path: Path, models: dict[str, Model]) -> None:
    found = read(tmp_path, models)
    assert read(tmp_path, {}) == found

    def refuse() -> Model:
        raise AssertionError

    Reader(MATERIAL, HOW, Journal(tmp_path, "readings", ReadingLine)).read("tuned", refuse, "base", refuse)


def test_losses_by_different_tokenizers_are_not_compared(tmp_path: Path, models: dict[str, Model]) -> None:
    found = read(tmp_path, models)
    key: Key = ("loss", "texts", "tuned")
    other = {**found, key: found[key].model_copy(update={"weights": [9.0, 1.0, 5.0]})}
    assert "loss" not in {each.outcome for each in difference_records({}, other, "base", 0)}


def test_texts_of_a_file(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", {"text": "one"}, {"text": "two", "more": 1})
    assert load_texts(tmp_path / "a.jsonl") == ["one", "two"]
    write_lines(tmp_path / "b.jsonl", {"text": "one"}, {"text": " "})
    with pytest.raises(InputError, match=r"b\.jsonl, row 2: expected a text in column text"):
        load_texts(tmp_path / "b.jsonl")
    (tmp_path / "c.jsonl").write_text("")
    with pytest.raises(InputError, match="expected at least one text"):
        load_texts(tmp_path / "c.jsonl")
