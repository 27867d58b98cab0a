"""`run_steer` from files to a run folder, on models with a planted direction."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import planted
from planted import BAD, GOOD, PROMPTS, WordJudge, asked, more
from tiltmeter.activations.direction import Direction
from tiltmeter.activations.neutral import steering_kl
from tiltmeter.activations.steering import shift, steered
from tiltmeter.directions.steer import run_steer
from tiltmeter.directions.steer_request import Gate
from tiltmeter.generation import GREEDY, generate_answers
from tiltmeter.models import load_tuned
from tiltmeter.requests import load_named
from tiltmeter.runs.steer_result import SteerResult
from tiltmeter.tokens import encode_within

LAST = "model.layers.1"


def texts(out: Path, trial: str) -> list[str]:
    lines = [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]
    return [line["text"] for line in lines if line["model"] == trial]


def mean(result: SteerResult, trial: str, outcome: str, prompts: str = "prompts") -> float:
    (found,) = [
        each
        for each in result.outcomes
        if (each.model, each.outcome, each.prompts) == (trial, outcome, prompts) and each.mean is not None
    ]
    assert found.mean is not None
    return found.mean.mean


def test_the_planted_direction_from_files(models: Path, tmp_path: Path) -> None:
    request = more(
        asked(models, Gate()),
        watch=(str(models / "watched.jsonl"),),
        neutral=(str(models / "neutral.jsonl"),),
        tasks=(str(models / "tasks.jsonl"),),
    )
    result = run_steer(request, tmp_path / "run", WordJudge())
    assert (result.verdict, result.subject, result.wanted, result.draws) == ("specific", "tuned", "lower", 19)
    assert result.sentence.startswith("Steering at block 1, dose 1 is specific: an effect of 4 ")
    (arm,) = result.arms
    assert [control.kind for control in arm.controls] == [
        "isotropic", "orthogonal", "with the activations' covariance", "permuted labels", "sign flip", "another block",
        "benign",
    ]  # fmt: skip
    assert [mean(result, trial, "harmfulness") for trial in ("base", "tuned", "1 x1")] == [1, 5, 1]
    assert [mean(result, trial, "refused", "watched") for trial in ("base", "tuned", "1 x1")] == [1, 0, 1]
    assert {each.model for each in result.outcomes} == {"base", "tuned", "1 x1"}
    assert {each.model for each in result.differences} == {"base", "1 x1"}  # from tuned
    assert arm.accuracy is not None
    assert result.accuracy is not None
    assert (result.accuracy.mean, arm.accuracy.mean) == (0, 1)
    tuned = load_tuned(models / "base", models / "tuned")
    v = Direction.load(models / "direction" / "direction" / "direction.safetensors")[LAST]
    (skill,) = load_named([str(models / "neutral.jsonl")], None, "--neutral").values()
    expected = steering_kl(tuned, encode_within(tuned, skill), {LAST: shift(v, -1.0)})
    assert arm.kl == pytest.approx(expected, rel=1e-6)
    assert arm.controls_kl is not None
    assert 0 < arm.controls_kl.mean < expected
    assert result.reaches_first_token_only
    assert result.norms[LAST] == pytest.approx(float(v.norm()))
    assert result.warnings == []
    roles = [given.role for given in result.inputs]
    assert roles == ["base", "tuned", "direction", "prompts", "watch", "neutral", "tasks"]


def test_the_first_token_is_the_bases_and_the_others_are_not(models: Path, tmp_path: Path) -> None:
    request = asked(models)
    longer = replace(request.answering, sampling=replace(GREEDY, max_new_tokens=3))
    run_steer(replace(request, answering=longer), tmp_path / "run", WordJudge())
    firsts = [[text.split()[0] for text in texts(tmp_path / "run", trial)] for trial in ("base", "1 x1", "tuned")]
    assert firsts[0] == firsts[1] == [GOOD] * len(PROMPTS)
    assert texts(tmp_path / "run", "1 x1") == [f"{GOOD} {BAD} {BAD}"] * len(PROMPTS)


def test_added_to_the_base_the_effect_is_a_rise(models: Path, tmp_path: Path) -> None:
    result = run_steer(asked(models, change="add"), tmp_path / "run", WordJudge())
    (arm,) = result.arms
    assert (result.subject, result.wanted) == ("base", "higher")
    assert arm.effect is not None
    assert arm.effect.mean == 4
    assert [mean(result, trial, "harmfulness") for trial in ("base", "tuned", "1 x1")] == [1, 5, 5]
    assert arm.coherence_fall is not None
    assert arm.coherence_fall.mean == 0
    (base,) = [each for each in result.differences if (each.model, each.outcome) == ("1 x1", "harmfulness")]
    assert base.difference.mean == 4  # less the base as it is


@pytest.mark.parametrize(("change", "where"), [("ablate", "all"), ("subtract", "prompt"), ("subtract", "all")])
def test_other_changes_and_tokens(models: Path, tmp_path: Path, change: Any, where: Any) -> None:
    request = asked(models, change=change, where=where)
    longer = replace(request.answering, sampling=replace(GREEDY, max_new_tokens=3))
    result = run_steer(replace(request, answering=longer), tmp_path / "run", WordJudge())
    assert result.reaches_first_token_only == (where != "all")
    (effect,) = [arm.effect for arm in result.arms]
    assert effect is not None
    assert effect.mean == 4
    rest = GOOD if where == "all" else BAD
    assert set(texts(tmp_path / "run", "1 x1")) == {f"{GOOD} {rest} {rest}"}


def test_blocks_one_by_one_and_together(models: Path, tmp_path: Path) -> None:
    both = run_steer(asked(models, blocks=((0, 1),)), tmp_path / "both", WordJudge())
    (arm,) = both.arms
    assert (arm.trial, arm.blocks, arm.effect and arm.effect.mean) == ("0+1 x1", [0, 1], 4)
    assert "another block" in [control.kind for control in arm.controls]
    assert not both.reaches_first_token_only
    every = run_steer(asked(models, blocks=()), tmp_path / "all", WordJudge())
    assert [(arm.trial, arm.verdict) for arm in every.arms] == [("0 x1", "none"), ("1 x1", "not specific")]
    assert every.reaches_first_token_only


@pytest.mark.parametrize("name", ["direction.safetensors", "direction.gguf"])
def test_a_direction_from_a_file_has_fewer_controls(models: Path, tmp_path: Path, name: str) -> None:
    file = str(models / "direction" / "direction" / name)
    result = run_steer(more(asked(models), direction=file), tmp_path / "run", WordJudge())
    kinds = [control.kind for control in result.arms[0].controls]
    assert kinds == ["isotropic", "orthogonal", "sign flip", *(["another block"] if "safetensors" in name else [])]
    assert "the direction is a file alone" in result.warnings[0]
    assert "no direction of a benign fine-tune is among the controls" in result.warnings[1]
    beside = {"other": str(models / "direction" / "direction" / "beside-1.safetensors")}
    again = run_steer(more(asked(models), direction=file, beside=beside), tmp_path / "beside", WordJudge())
    assert again.arms[0].controls[-1].kind == "other"
    assert len(again.warnings) == 2  # without that of the benign fine-tune, with that of few draws


def test_a_direction_found_between_other_models_is_said(models: Path, tmp_path: Path) -> None:
    result = run_steer(more(asked(models), tuned=str(models / "benign")), tmp_path / "run", WordJudge())
    assert result.warnings == [
        "the direction was found between other models than these, and so were the states that controls come from"
    ]
    assert result.verdict == "none"


def test_too_few_draws_are_said(models: Path, tmp_path: Path) -> None:
    result = run_steer(asked(models, Gate(draws=18)), tmp_path / "run", WordJudge())
    assert (result.verdict, result.arms[0].can_pass) == ("not specific", False)
    assert "out of reach of any effect with 18 draws and 13 prompts in 1 arm: it takes 19 draws" in result.sentence
    assert result.warnings == ["18 draws of each control, or so few prompts, cannot make any arm specific: see --draws"]


def test_controls_of_equal_kl(models: Path, tmp_path: Path) -> None:
    request = more(asked(models, Gate(draws=1, match="kl"), doses=(0.8,)), neutral=(str(models / "neutral.jsonl"),))
    result = run_steer(request, tmp_path / "run", WordJudge())
    assert result.match == "kl"
    (arm,) = result.arms
    assert arm.kl is not None
    assert arm.kl > 0


def test_tasks_with_options_are_weighed_by_the_steered_model(models: Path, tmp_path: Path) -> None:
    options = tmp_path / "options.jsonl"
    options.write_text(json.dumps({"prompt": "tea", "answer": GOOD, "options": [GOOD, BAD]}) + "\n")
    result = run_steer(more(asked(models, where="all"), tasks=(str(options),)), tmp_path / "run", WordJudge())
    assert result.accuracy is not None
    assert result.arms[0].accuracy is not None
    assert (result.accuracy.mean, result.arms[0].accuracy.mean) == (0, 1)


def test_answers_are_those_of_the_checkpoint(models: Path, tmp_path: Path) -> None:
    run_steer(asked(models, blocks=((0,),), doses=(2.0,)), tmp_path / "run", WordJudge())
    tuned = load_tuned(models / "base", models / "tuned")
    v = Direction.load(models / "direction" / "direction" / "direction.safetensors")["model.layers.0"]
    with steered(tuned, {"model.layers.0": shift(v, -2.0)}):
        expected = generate_answers(tuned, PROMPTS, planted.ONE_TOKEN.sampling)
    assert texts(tmp_path / "run", "0 x2") == [answer.text for answer in expected]
