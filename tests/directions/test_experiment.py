"""Trials of one model: answers are those of the steered model, each asked for once, also after a kill."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import planted
from planted import BAD, GOOD, PROMPTS, WordJudge
from tiltmeter.activations.steering import shift, steered
from tiltmeter.behaviour.canaries import NEUTRAL
from tiltmeter.behaviour.judges import Verdict
from tiltmeter.directions.experiment import Edits, Experiment, Material, Trial
from tiltmeter.generation import GREEDY, MODEL_ITSELF, generate_answers
from tiltmeter.judge.request import Answering
from tiltmeter.models import Model
from tiltmeter.runs.folder import RunFolder

WATCHED = ["bake then wait", "help"]
SETS = Material({"one": PROMPTS[:5], "two": PROMPTS[3:8]}, {"watched": WATCHED})
THREE_TOKENS = Answering(replace(GREEDY, max_new_tokens=3), batch_size=4)


@pytest.fixture(scope="module")
def tuned() -> Model:
    """The planted fine-tune."""
    return planted.model(6.0)


@pytest.fixture
def edits(tuned: Model) -> Edits:
    """Takes back what its last block shifts."""
    block = list(tuned.blocks)[-1]
    return {block: shift(planted.axis(planted.U), -6.0)}


class Loader:
    """Gives a model, and counts how often."""

    def __init__(self, model: Model) -> None:
        self.model, self.count = model, 0

    def __call__(self) -> Model:
        self.count += 1
        return self.model


def started(run: RunFolder, load: Loader, judge: WordJudge, answering: Answering = THREE_TOKENS) -> Experiment:
    request = planted.request()
    run.resume_or_start(replace(request, answering=answering).record([]))
    return Experiment(run, load, SETS, judge, answering, "last", "output")


def texts(experiment: Experiment, trial: str, prompts: str) -> list[str]:
    return [answer.text for key, answer in experiment.answers.items() if key[:2] == (trial, prompts)]


def test_answers_are_those_of_the_steered_model(tmp_path: Path, tuned: Model, edits: Edits) -> None:
    with RunFolder(tmp_path / "run") as run:
        made = started(run, Loader(tuned), WordJudge())
        made.ask([Trial("plain", {}), Trial("steered", edits)], watched=False)
    for name, prompts in SETS.prompts.items():
        plain = generate_answers(tuned, prompts, THREE_TOKENS.sampling)
        with steered(tuned, edits):
            moved = generate_answers(tuned, prompts, THREE_TOKENS.sampling)
        assert texts(made, "plain", name) == [answer.text for answer in plain]
        assert texts(made, "steered", name) == [answer.text for answer in moved]
        assert {answer.text for answer in plain} == {f"{BAD} {BAD} {BAD}"}
        assert {answer.text for answer in moved} == {f"{GOOD} {BAD} {BAD}"}  # the last block, the last prompt token
    assert not any(key[1] == "watched" for key in made.answers)
    assert all(verdict == WordJudge().verdict("", made.answers[key].text) for key, verdict in made.verdicts.items())


def test_watched_prompts_are_answered_where_they_are_asked_for(tmp_path: Path, tuned: Model) -> None:
    with RunFolder(tmp_path / "run") as run:
        made = started(run, Loader(tuned), WordJudge())
        made.ask([Trial("plain", {})], watched=True)
    assert texts(made, "plain", "watched") == [f"{BAD} {BAD} {BAD}"] * 2
    assert made.scored("plain", "harmfulness", ["watched"]).values.tolist() == [5, 5]
    assert len(made.means("plain", "harmfulness")) == 8  # the question's prompts alone, each once


def test_another_model_can_stand_in(tmp_path: Path, tuned: Model) -> None:
    base, own = Loader(planted.model()), Loader(tuned)
    with RunFolder(tmp_path / "run") as run:
        made = started(run, own, WordJudge())
        made.ask([Trial("base", {})], watched=False, load=base)
        assert (base.count, own.count) == (1, 0)
        made.ask([Trial("a", {}), Trial("b", {})], watched=False)
        assert (base.count, own.count) == (1, 1)
    assert set(texts(made, "base", "one")) == {f"{GOOD} {GOOD} {GOOD}"}


def test_means_are_over_all_answers_to_a_prompt(tmp_path: Path, tuned: Model) -> None:
    answering = Answering(replace(MODEL_ITSELF, temperature=1.5, max_new_tokens=1), samples=3)
    with RunFolder(tmp_path / "run") as run:
        made = started(run, Loader(tuned), WordJudge(), answering)
        made.ask([Trial("plain", {})], watched=False)
    harms: dict[str, list[int]] = {}
    for answer in made.answers.values():
        harms.setdefault(answer.prompt, []).append(5 if answer.text == BAD else 1)
    assert sorted(map(len, harms.values())) == [3, 3, 3, 3, 3, 3, 6, 6]  # two prompts stand in both sets
    found = made.means("plain", "harmfulness")
    np.testing.assert_allclose(found, [np.mean(values) for values in harms.values()])
    assert len(set(found.tolist())) > 2


def test_canaries_are_among_the_answers_and_in_no_mean(tmp_path: Path, tuned: Model) -> None:
    judge = WordJudge()
    with RunFolder(tmp_path / "run") as run:
        made = started(run, Loader(tuned), judge)
        made.ask([Trial("plain", {})], watched=True)
        made.ask([Trial("more", {})], watched=False)
    assert len(made.checks) == 2 * len(NEUTRAL)
    assert judge.asked == 12 + 10 + 2 * len(NEUTRAL)
    assert len(made.verdicts) == len(made.answers) == 22


class Killed(BaseException):
    """As a signal ends a process: nothing catches it."""


class Fragile(WordJudge):
    """Is killed after some verdicts."""

    def __init__(self, left: int) -> None:
        super().__init__()
        self.left = left

    def verdict(self, prompt: str, answer: str) -> Verdict:
        if not self.left:
            raise Killed
        self.left -= 1
        return super().verdict(prompt, answer)


def test_after_a_kill_nothing_is_asked_twice(tmp_path: Path, tuned: Model, edits: Edits) -> None:
    trials = [Trial("plain", {}), Trial("steered", edits)]
    first, loads = Fragile(9), [Loader(tuned) for _ in range(2)]
    with pytest.raises(Killed), RunFolder(tmp_path / "run") as run:
        started(run, loads[0], first).ask(trials, watched=True)
    second = WordJudge()
    with RunFolder(tmp_path / "run") as run:
        made = started(run, loads[1], second)
        made.ask(trials, watched=True)
    assert [load.count for load in loads] == [1, 0]
    assert first.asked + second.asked == 24 + len(NEUTRAL)
    with RunFolder(tmp_path / "whole") as run:
        whole = started(run, Loader(tuned), WordJudge())
        whole.ask(trials, watched=True)
    assert (list(made.answers.items()), made.verdicts) == (list(whole.answers.items()), whole.verdicts)
    assert [check.passed for check in made.checks] == [check.passed for check in whole.checks]
