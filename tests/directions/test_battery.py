"""The battery through a real model: what it lets pass and what it does not; its figures are those of the answers."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import planted
from planted import PROMPTS, WordJudge
from tiltmeter.activations.direction import Direction
from tiltmeter.activations.specificity.controls import isotropic
from tiltmeter.activations.specificity.wording import sentence
from tiltmeter.behaviour.judges import JudgeOfOne, Verdict
from tiltmeter.behaviour.outcomes import OUTCOMES
from tiltmeter.directions.battery import wants_lower
from tiltmeter.directions.bench import Bench
from tiltmeter.directions.steer_record import TUNED
from tiltmeter.directions.steer_request import Gate
from tiltmeter.errors import NothingMeasuredError
from tiltmeter.generation import MODEL_ITSELF

ALL = [pytest.param(seed, marks=[pytest.mark.slow] if seed >= 8 else []) for seed in range(20)]


@pytest.mark.parametrize("seed", ALL)
def test_a_planted_direction_is_specific(tmp_path: Path, seed: int) -> None:
    made = planted.bench(tmp_path / "found", seed=seed)
    assert planted.tried(tmp_path / "run", made, WordJudge()).battery.verdict == "specific"


@pytest.mark.parametrize("seed", range(20))
def test_a_random_direction_is_not(tmp_path: Path, seed: int) -> None:
    made = planted.bench(tmp_path / "found", seed=seed)
    block = list(made.model.blocks)[-1]
    chance = isotropic(torch.ones(planted.WIDTH), 1, 1000 + seed)[0] * made.found.direction.norm(block)
    made = replace(made, found=replace(made.found, direction=Direction({block: chance.float()})))
    assert planted.tried(tmp_path / "run", made, WordJudge()).battery.verdict == "none"


@pytest.mark.parametrize("seed", range(2))
def test_nor_is_the_planted_one_where_many_vectors_do_as_well(tmp_path: Path, seed: int) -> None:
    made = planted.bench(tmp_path / "found", shift=4.0, seed=seed, elsewhere=12.0)
    (arm,) = planted.tried(tmp_path / "run", made, WordJudge()).battery.arms
    assert arm.verdict == "not specific"
    assert arm.p_causal < 0.01 < 0.1 < arm.p_specific


class KnowsBabble(WordJudge):
    """To it, GOOD is no answer to the watched prompts."""

    def verdict(self, prompt: str, answer: str) -> Verdict:
        """Otherwise as its class."""
        found = super().verdict(prompt, answer)
        return replace(found, coherent=False) if prompt in WATCHED and found.refused else found


WATCHED = [f"wait then {prompt}" for prompt in PROMPTS]


def test_a_model_that_babbles_on_watched_prompts_is_broken_however_well_it_does_on_the_others(tmp_path: Path) -> None:
    made = planted.bench(tmp_path / "found")
    calm = planted.tried(tmp_path / "calm", made, WordJudge(), watch=WATCHED).battery
    assert (calm.verdict, calm.arms[0].measured.coherence_fall.mean) == ("specific", 0)  # type: ignore[union-attr]
    babbles = planted.tried(tmp_path / "babbles", made, KnowsBabble(), watch=WATCHED).battery
    assert babbles.verdict == "broke"
    assert babbles.arms[0].measured.coherence_fall.mean == 1  # type: ignore[union-attr]
    assert "the share of coherent answers to watched fell by 1 (" in sentence(babbles)


def test_a_neighbouring_block_has_the_same_direction_and_is_no_control(tmp_path: Path) -> None:
    made = planted.bench(tmp_path / "found", blocks=3)
    _, before, last = made.found.direction.vectors.values()
    assert torch.cosine_similarity(before, last, dim=0) > 0.8
    assert planted.tried(tmp_path / "run", made, WordJudge()).battery.verdict == "specific"


def few_draws(made: Bench, draws: int) -> Bench:
    return replace(made, request=replace(made.request, gate=Gate(draws=draws)))


def test_controls_are_tried_where_there_is_an_effect_only(tmp_path: Path) -> None:
    made = few_draws(planted.bench(tmp_path / "found", doses=(0.1, 1.0)), 3)
    judge = WordJudge()
    found = planted.tried(tmp_path / "run", made, judge)
    assert [(arm.name, len(controls)) for arm, controls in found.controls.items()] == [("1 x0.1", 0), ("1 x1", 14)]
    assert [arm.verdict for arm in found.battery.arms] == ["none", "not specific"]
    assert judge.asked == 17 * len(PROMPTS) + planted.canaries(17)
    assert found.draws == 3
    assert not found.battery.can_pass
    said = sentence(found.battery)
    assert "out of reach of any effect with 3 draws and 13 prompts in 2 arms: it takes 39 draws" in said


def test_figures_are_those_of_the_answers(tmp_path: Path) -> None:
    made = few_draws(planted.bench(tmp_path / "found", shift=4.0, elsewhere=12.0), 5)
    answering = replace(
        made.request.answering, sampling=replace(MODEL_ITSELF, temperature=0.3, max_new_tokens=1), samples=2
    )
    made = replace(made, request=replace(made.request, answering=answering))
    (arm,) = planted.tried(tmp_path / "run", made, WordJudge()).battery.arms
    lines = [json.loads(line) for line in (tmp_path / "run" / "answers.jsonl").read_text().splitlines()]
    plain = harms(lines, TUNED)
    effect = float(np.mean(plain - harms(lines, "1 x1")))
    assert arm.measured.effect is not None
    assert arm.measured.effect.mean == pytest.approx(effect)
    assert 0.5 < effect < 4
    assert len(arm.measured.drawn) == 4
    for drawn in arm.measured.drawn:
        effects = [float(np.mean(plain - harms(lines, f"{drawn.kind} {number}: 1 x1"))) for number in range(1, 6)]
        assert drawn.draws == 5
        assert drawn.mean == pytest.approx(sum(effects) / 5)
        assert drawn.p95 == pytest.approx(max(effects))
        assert drawn.p == (1 + sum(each >= effect - 1e-9 for each in effects)) / 6
    for given in arm.measured.single:
        assert given.excess is not None
        excess = harms(lines, f"{given.kind}: 1 x1") - harms(lines, "1 x1")
        assert given.excess.mean == pytest.approx(np.mean(excess))
    for line in lines:
        verdict = vars(WordJudge().verdict(line["prompt"], line["text"]))
        assert line["verdicts"]["words"] == verdict


def harms(lines: list[Any], trial: str) -> NDArray[Any]:
    """Mean harm of each prompt's two answers."""
    found: dict[str, list[int]] = {prompt: [] for prompt in PROMPTS}
    for line in lines:
        if line["model"] == trial:
            found[line["prompt"]].append(line["verdicts"]["words"]["harm"])
    means: NDArray[Any] = np.array(list(found.values()), dtype=float).reshape(len(PROMPTS), 2).mean(1)
    return means


class Silent(JudgeOfOne):
    """Says nothing of harm, or fails."""

    name = "silent"

    def __init__(self, verdict: Verdict) -> None:
        self.said, self.asked = verdict, 0

    def verdict(self, prompt: str, answer: str) -> Verdict:
        self.asked += 1
        return self.said


@pytest.mark.parametrize(
    ("verdict", "message"),
    [
        (Verdict(refused=True), "silent gives no harmfulness for any answer$"),
        (Verdict(failure="no score"), "for any answer: no score$"),
    ],
)
def test_nothing_is_steered_where_nothing_is_measured(tmp_path: Path, verdict: Verdict, message: str) -> None:
    judge = Silent(verdict)
    with pytest.raises(NothingMeasuredError, match=message):
        planted.tried(tmp_path / "run", planted.bench(tmp_path / "found"), judge)
    assert judge.asked == len(PROMPTS) + planted.canaries(1)


def test_which_way_is_wanted() -> None:
    harm = {"harmfulness", "fives", "misaligned", "code"}
    for outcome in OUTCOMES:
        assert wants_lower(outcome, adds=False) == (outcome in harm)
        assert wants_lower(outcome, adds=True) == (outcome not in harm)
