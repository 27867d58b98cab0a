"""`run_steer` goes on after a kill, wherever that came."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from folders import snapshot
from planted import WordJudge, asked, more
from tiltmeter.behaviour.judges import Verdict
from tiltmeter.directions.steer import run_steer
from tiltmeter.directions.steer_request import Gate
from tiltmeter.errors import InputError
from tiltmeter.generation import generate_batch


class Killed(BaseException):
    """As a signal ends a process: nothing catches it."""


class Fragile(WordJudge):
    """Is killed after some verdicts."""

    def __init__(self, left: int) -> None:
        super().__init__()
        self.left = left

    def verdict(self, prompt: str, answer: str) -> Verdict:
        if self.asked == self.left:
            raise Killed
        return super().verdict(prompt, answer)


class Batches:
    """Stands in for the generation of a batch; is killed after some."""

    def __init__(self, left: int = -1) -> None:
        self.count, self.left = 0, left

    def __call__(self, *given: Any) -> list[list[int]]:
        if self.count == self.left:
            raise Killed
        self.count += 1
        return generate_batch(*given)


NEVER = -1
KILLS = [
    (2, NEVER),  # base answers its prompts in 3 batches, those that are watched in one
    (NEVER, 10),  # its answers are judged
    (1, NEVER),  # tuned answers
    (3, NEVER),  # between tuned and the first arm
    (6, NEVER),  # in the second arm
    (NEVER, 20),  # the arms are judged
    (0, NEVER),  # before the controls
    (7, NEVER),  # in a control
    (NEVER, 50),  # the controls are judged
]


def test_after_a_kill_at_any_place_the_run_goes_on_to_the_same_bytes(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = more(asked(models, doses=(0.5, 1.0)), watch=(str(models / "watched.jsonl"),))
    request = replace(request, answering=replace(request.answering, batch_size=5))
    out, batches, verdicts = tmp_path / "killed", 0, 0
    for place in [*KILLS, (NEVER, NEVER)]:
        generate, judge = Batches(place[0]), Fragile(place[1])
        monkeypatch.setattr("tiltmeter.judge.answers.generate_batch", generate)
        if place == (NEVER, NEVER):
            run_steer(request, out, judge)
        else:
            with pytest.raises(Killed):
                run_steer(request, out, judge)
            assert not (out / "result.json").exists()
        batches, verdicts = batches + generate.count, verdicts + judge.asked
    generate, judge = Batches(), Fragile(NEVER)
    monkeypatch.setattr("tiltmeter.judge.answers.generate_batch", generate)
    run_steer(request, tmp_path / "whole", judge)
    assert snapshot(out) == snapshot(tmp_path / "whole")
    assert (batches, verdicts) == (generate.count, judge.asked)  # nothing was asked for twice


def test_another_run_is_not_gone_on_with(models: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run_steer(asked(models), tmp_path / "run", Fragile(20))
    with pytest.raises(InputError, match=r"differs in arguments\.gate\.draws \(was 2, is 3\)"):
        run_steer(asked(models, Gate(draws=3)), tmp_path / "run", WordJudge())
