"""Answers of a run that goes on are those of a run that was never stopped, and none is generated twice."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import tiny
from tiltmeter.generation import Answer, Draw, Sampling, generate_answers, generate_batch
from tiltmeter.judge.answers import Answerer, AnswerLine, Key
from tiltmeter.judge.request import Answering
from tiltmeter.models import Model
from tiltmeter.runs.journal import Journal

SETS = {"teas": ["how do i make tea", "tea", "make tea first"], "soups": ["make soup", "good soup"]}
HOW = Answering(Sampling(temperature=1.0, top_p=1.0, top_k=0, max_new_tokens=6, seed=3), samples=3, batch_size=2)
ALL = 3 * (3 + 2)


@pytest.fixture(scope="module")
def models() -> dict[str, Callable[[], Model]]:
    made = {"one": tiny.model("llama", seed=1), "two": tiny.model("llama", seed=2)}
    return {name: lambda model=model: model for name, model in made.items()}  # type: ignore[misc]


def journal(folder: Path) -> Journal[AnswerLine]:
    return Journal(folder, "answers", AnswerLine)


def answer_all(models: dict[str, Callable[[], Model]], folder: Path) -> dict[Key, Answer]:
    answerer = Answerer(SETS, HOW, journal(folder))
    for name, load in models.items():
        answerer.answer(name, load)
    return answerer.answers


def test_each_prompt_is_answered_by_each_model(tmp_path: Path, models: dict[str, Callable[[], Model]]) -> None:
    found = answer_all(models, tmp_path)
    assert [*found] == [
        (model, name, row, sample)
        for model in models
        for name, prompts in SETS.items()
        for row in range(len(prompts))
        for sample in range(3)
    ]
    for model, name in (("one", "teas"), ("two", "soups")):
        first = [found[model, name, row, 0] for row in range(len(SETS[name]))]
        assert first == generate_answers(models[model](), SETS[name], HOW.sampling)
    assert len({answer.text for answer in found.values()}) > ALL


@pytest.mark.parametrize("lines", [0, 1, 3, 8, 17, 30])
def test_after_a_kill_only_what_is_missing_is_generated(
    lines: int, tmp_path: Path, models: dict[str, Callable[[], Model]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "whole").mkdir()
    expected = answer_all(models, tmp_path / "whole")
    written = journal(tmp_path / "whole").records
    journal(tmp_path).append(*written[:lines])
    drawn: list[Draw] = []

    def counted(
        model: Model, prompts: Sequence[list[int]], draws: Sequence[Draw], sampling: Sampling
    ) -> list[list[int]]:
        drawn.extend(draws)
        return generate_batch(model, prompts, draws, sampling)

    monkeypatch.setattr("tiltmeter.judge.answers.generate_batch", counted)
    assert answer_all(models, tmp_path) == expected
    again = len(drawn) - (2 * ALL - lines)
    assert 0 <= again < HOW.batch_size  # a batch that was cut off is made as a whole
    assert {line.key for line in journal(tmp_path).records} == set(expected)


def test_a_model_with_nothing_to_do_is_not_loaded(tmp_path: Path, models: dict[str, Callable[[], Model]]) -> None:
    expected = answer_all(models, tmp_path)

    def refuse() -> Model:
        raise AssertionError

    assert answer_all(dict.fromkeys(models, refuse), tmp_path) == expected
