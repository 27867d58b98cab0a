"""What a result may hold, and how a bad one is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from fake_runs import audit_result, demo_result, write_audit
from tiltmeter.errors import InputError
from tiltmeter.runs import load_run, read_result, read_table, read_transcripts
from tiltmeter.runs.results import Interval, Null

KEYS = {"schema", "verb", "inputs", "versions", "seed", "dtype", "labels", "reduction", "warnings"}


def test_keys_are_those_promised() -> None:
    audit = audit_result().model_dump(mode="json")
    assert KEYS | {"update", "skills", "chat_template_changed", "behaviour"} <= audit.keys()
    assert {"kind", "norm", "modules", "not_covered"} <= audit["update"].keys()
    skill = audit["skills"]["refusal"]
    assert {"examples", "overlap", "first_order", "nulls", "utility_loss"} <= skill.keys()
    assert {"exact", "normalised", "floor", "projected", "k"} <= skill["overlap"].keys()
    assert {"mean", "p95", "ratio"} <= skill["nulls"]["dense"].keys()
    assert {"mean", "low", "high", "quadratic", "reduction"} <= skill["utility_loss"].keys()
    demo = demo_result().model_dump(mode="json")
    assert KEYS | {"rows", "correlations", "reference"} <= demo.keys()
    assert {"skill", "of", "with", "spearman", "low", "high", "runs"} == demo["correlations"][0].keys()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_are_finite(value: float) -> None:
    with pytest.raises(ValidationError, match="finite number"):
        Null(mean=value, p95=1.0, ratio=None, draws=8)


def test_interval_is_ordered() -> None:
    with pytest.raises(ValidationError, match="above high"):
        Interval(mean=0.0, low=1.0, high=-1.0)


def _broken(content: dict[str, Any]) -> dict[str, str]:
    skill = content["skills"]["refusal"]
    return {
        "not valid JSON": json.dumps(content)[:-5],
        "Infinity is not JSON": json.dumps({**content, "seed": float("inf")}),
        "schema 'tiltmeter/9'": json.dumps({**content, "schema": "tiltmeter/9"}),
        "not written by tiltmeter": json.dumps([content]),
        "unexpected_tag|does not match|verb": json.dumps({**content, "verb": "cook"}),
        "seed: Input should be a valid integer": json.dumps({**content, "seed": "x"}),
        "surprise: Extra inputs": json.dumps({**content, "surprise": 1}),
        r"skills\.refusal\.nulls: Field required": json.dumps(
            {**content, "skills": {"refusal": {key: skill[key] for key in skill if key != "nulls"}}}
        ),
        "maximum recursion|not valid JSON": '{"schema": ' + "[" * 100_000,
    }


@pytest.mark.parametrize("cause", list(_broken(audit_result().model_dump(mode="json"))))
def test_bad_result_is_named_in_one_line(tmp_path: Path, cause: str) -> None:
    folder = write_audit(tmp_path / "run")
    text = _broken(audit_result().model_dump(mode="json"))[cause]
    (folder / "result.json").write_text(text)
    with pytest.raises(InputError, match=cause) as caught:
        read_result(folder)
    assert "result.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_pieces_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: not found"):
        read_result(tmp_path / "nowhere")
    with pytest.raises(InputError, match="not a finished tiltmeter run"):
        read_result(tmp_path)
    folder = write_audit(tmp_path / "run")
    with pytest.raises(InputError, match="no column curvature"):
        read_table(folder, "modules", ["module", "curvature"])
    (folder / "modules.parquet").write_bytes(b"PAR1 no PAR1")
    with pytest.raises(InputError, match="not a readable Parquet file"):
        read_table(folder, "modules", ["module"])
    (folder / "transcripts.jsonl").write_text('{"prompts": 1}\n')
    with pytest.raises(InputError, match="line 1: prompts"):
        read_transcripts(folder)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("verb: [audit", "cannot be read as YAML"),
        ("schema: tiltmeter/1\nverb: &a audit\narguments: {x: *a}", "aliases"),
        ("!!python/object/apply:os.system [id]", "cannot be read as YAML"),
        ("schema: tiltmeter/1\nverb: audit\narguments: {x: .nan}", "arguments.x.*finite number"),
        ("schema: tiltmeter/1\nverb: audit", "arguments: Field required"),
        ("[" * 5000, "cannot be read as YAML"),
        ("- a", "not written by tiltmeter"),
    ],
)
def test_bad_record_is_named_in_one_line(tmp_path: Path, text: str, cause: str) -> None:
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(InputError, match=cause) as caught:
        load_run(tmp_path / "run.yaml")
    assert "\n" not in str(caught.value)
