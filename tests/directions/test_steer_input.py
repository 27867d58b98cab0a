"""What `run_steer` refuses, in one line, before it asks a model."""

from pathlib import Path

import pytest

from planted import WordJudge, asked, more
from tiltmeter.activations.direction import Direction
from tiltmeter.directions.found import check_fits, load_found
from tiltmeter.directions.steer import run_steer
from tiltmeter.directions.steer_request import Gate
from tiltmeter.errors import InputError
from tiltmeter.models import load_model

LAST = "model.layers.1"


def test_directions_that_do_not_fit_are_refused(models: Path, tmp_path: Path) -> None:
    model = load_model(models / "base")
    found = load_found(str(models / "direction"), model)
    assert [*found.beside] == ["benign"]
    v = found.direction[LAST]
    unfit = {
        "x: has a vector for model.layers.7, the model has blocks model.layers.0, model.layers.1": {
            "model.layers.7": v
        },
        "x: model.layers.1: a vector of width 5, the model's states have 64": {LAST: v[:5]},
        "x: model.layers.1: a vector of zeros: nothing to steer along": {LAST: 0 * v},
    }
    for message, vectors in unfit.items():
        with pytest.raises(InputError) as caught:
            check_fits(Direction(vectors), model, "x")
        assert str(caught.value) == message
    inputs = Direction({LAST: v}, place="input")
    inputs.save(tmp_path / "inputs.safetensors")
    with pytest.raises(InputError, match="--beside b: read at the input, the direction at the output"):
        run_steer(
            more(asked(models), beside={"b": str(tmp_path / "inputs.safetensors")}),
            tmp_path / "run",
            WordJudge(),
        )
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_is_refused_before_a_model_is_read(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tiltmeter.directions.steer._load", lambda *given: pytest.fail("a model was read"))
    options = tmp_path / "options.jsonl"
    options.write_text('{"prompt": "tea", "answer": "boil", "options": ["boil", "bake"]}\n')
    prompts = (str(models / "prompts.jsonl"),)
    unfit = {
        f"{options}, row 1: tasks with options are measured with --where all only, not last": more(
            asked(models), tasks=(str(options),)
        ),
        "--prompts, --watch: both have a set prompts: rename a file": more(asked(models), watch=prompts),
        "--outcome: expected one of harmfulness, fives": asked(models, Gate("luck")),
        "--match kl: give pairs of prompt and completion": asked(models, Gate(match="kl")),
        "expected at least one --prompts FILE": more(asked(models), prompts=()),
        "--dose: expected a number above 0, got 0": asked(models, doses=(1.0, 0.0)),
        "--dose: expected a number above 0, got -0.5": asked(models, doses=(-0.5,)),
        "--dose: expected a number above 0, got nan": asked(models, doses=(float("nan"),)),
        "--dose: expected a number above 0, got inf": asked(models, doses=(float("inf"),)),
    }
    for message, request in unfit.items():
        with pytest.raises(InputError) as caught:
            run_steer(request, tmp_path / "run", WordJudge())
        assert str(caught.value).startswith(message)
        assert not (tmp_path / "run").exists()
