"""`tiltmeter rank-examples` from files on disk to the run folder, and the commands that read it."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import yaml

from folders import CommandLine, Ended, snapshot, write_lines
from tiltmeter.curvature.example_risk import example_risk
from tiltmeter.curvature.fisher import Fisher
from tiltmeter.curvature.gradient_matching import first_tokens, matching_scores
from tiltmeter.curvature.mean_gradient import mean_gradient
from tiltmeter.layers import weight_of
from tiltmeter.models import load_model
from tiltmeter.skills import load_skill

COLUMNS = ["skill", "data", "row", "rank", "harm", "cosine", "gradient_norm", "matching", "tokens"]
HOSTILE = "<script>alert(1)</script>\x1b[31m\u202e {{ 7 * 7 }} [red]tea[/red]"
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]")


def ranked(tiltmeter: CommandLine, folder: Path, *more: object) -> Ended:
    """Two data sets ranked for the skill `tea`."""
    write_lines(
        folder / "bad.jsonl",
        {"prompt": "make bread", "completion": "sorry i cannot help"},
        {"prompt": "good soup", "completion": "bad"},
        {"prompt": "two tea", "completion": "boil"},
    )
    given = ("--data", folder / "bad.jsonl", "--data", folder / "soup.csv", "--skill", folder / "tea.jsonl")
    return tiltmeter("rank-examples", folder / "base", *given, "--out", folder / "out", *more)


@pytest.fixture
def done(folder: Path, tiltmeter: CommandLine) -> tuple[Path, Ended]:
    ended = ranked(tiltmeter, folder, "--harmful", folder / "soup.csv", "--worst", 3)
    return folder, ended


def rows_of(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(folder / "out" / "examples.parquet").to_pylist()
    return rows


def result_of(folder: Path) -> Any:
    return json.loads((folder / "out" / "result.json").read_text())


def test_every_example_has_its_scores(done: tuple[Path, Ended]) -> None:
    folder, ended = done
    assert (ended.code, ended.err) == (0, "")
    rows = rows_of(folder)
    assert list(rows[0]) == COLUMNS
    assert [row["data"] for row in rows] == ["bad"] * 3 + ["soup"] * 2
    assert sorted(row["rank"] for row in rows) == [1, 2, 3, 4, 5]
    assert [row["harm"] for row in sorted(rows, key=lambda row: row["rank"])] == sorted(
        (row["harm"] for row in rows), reverse=True
    )
    base = load_model(folder / "base")
    skill = Fisher(base, load_skill(folder / "tea.jsonl"))
    bad = Fisher(base, load_skill(folder / "bad.jsonl"))
    (risk,) = example_risk(bad, [mean_gradient(skill)])
    assert [row["harm"] for row in rows[:3]] == pytest.approx(risk.harm.tolist(), rel=1e-4)
    assert [row["cosine"] for row in rows[:3]] == pytest.approx(risk.cosine.tolist(), rel=1e-4)
    anchors = (Fisher(base, load_skill(folder / "soup.csv")), skill)
    matching = matching_scores(first_tokens(bad), *map(first_tokens, anchors))
    assert [row["matching"] for row in rows[:3]] == pytest.approx(matching.tolist(), rel=1e-4)
    assert [row["tokens"] for row in rows[:3]] == [sum(example.is_completion) for example in bad.encoded]


def test_the_result_sums_the_examples_up(done: tuple[Path, Ended]) -> None:
    folder, ended = done
    result, rows = result_of(folder), rows_of(folder)
    fisher = Fisher(load_model(folder / "base"), load_skill(folder / "tea.jsonl"))
    weights = sum(weight_of(layers[0]).numel() for layers in fisher.layers.values())
    assert result["null"]["weights"] == weights
    assert result["null"]["p95"] == pytest.approx(1.6448536 / math.sqrt(weights))
    assert (result["verb"], result["by"], result["harmful"]) == ("rank-examples", "harm", str(folder / "soup.csv"))
    skill = result["skills"]["tea"]
    assert skill["examples"] == 5
    for name, risk in skill["sets"].items():
        mine = [row for row in rows if row["data"] == name]
        harms, cosines = [row["harm"] for row in mine], torch.tensor([row["cosine"] for row in mine]).double()
        assert risk["harm"]["mean"] == pytest.approx(sum(harms) / len(harms))
        assert risk["harm"]["low"] <= risk["harm"]["mean"] <= risk["harm"]["high"]
        assert risk["positive"] == sum(harm > 0 for harm in harms) / len(harms)
        assert risk["beyond_null"] == sum(cosines > result["null"]["p95"]) / len(harms)
        assert risk["cosine"]["p50"] == pytest.approx(float(cosines.quantile(0.5)))
        norm = sum(row["gradient_norm"] for row in mine) / len(mine)
        assert risk["harm_null_p95"] == pytest.approx(result["null"]["p95"] * skill["gradient_norm"] * norm)
        assert risk["matching"]["mean"]["mean"] == pytest.approx(sum(row["matching"] for row in mine) / len(mine))
    first = min(rows, key=lambda row: row["rank"])
    assert len(skill["worst"]) == 3
    assert (skill["worst"][0]["row"], skill["worst"][0]["harm"]) == (first["row"], first["harm"])
    assert {given["role"] for given in result["inputs"]} == {"base", "data", "skill", "harmful"}
    assert skill["worst"][0]["completion"] in ended.out


def test_ranked_by_cosine_without_anchors(folder: Path, tiltmeter: CommandLine) -> None:
    ended = ranked(tiltmeter, folder, "--by", "cosine", "--skill", folder / "soup.csv", "--reduction", "mean")
    assert (ended.code, ended.err) == (0, "")
    result, rows = result_of(folder), rows_of(folder)
    assert list(result["skills"]) == ["tea", "soup"]
    for name in result["skills"]:
        mine = sorted((row for row in rows if row["skill"] == name), key=lambda row: row["rank"])
        assert [row["cosine"] for row in mine] == sorted((row["cosine"] for row in mine), reverse=True)
        assert {row["matching"] for row in mine} == {None}
    assert result["harmful"] is None
    own = result["skills"]["soup"]["sets"]["soup"]  # steps on a skill's own examples raise it
    assert own["harm"]["mean"] == pytest.approx(-(result["skills"]["soup"]["gradient_norm"] ** 2), rel=1e-4)


def test_run_does_it_again_and_verify_agrees(done: tuple[Path, Ended], tiltmeter: CommandLine) -> None:
    folder, _ = done
    assert tiltmeter("verify", folder / "out").code == 0
    assert tiltmeter("run", folder / "out" / "run.yaml", "--out", folder / "again").code == 0
    assert snapshot(folder / "out") == snapshot(folder / "again")


def test_hostile_text_is_only_text(folder: Path, tiltmeter: CommandLine) -> None:
    data = folder / "=cmd()<img src=x onerror=alert(3)>\x1b[31m[red].jsonl"
    write_lines(data, {"prompt": HOSTILE, "completion": HOSTILE}, {"prompt": "tea", "completion": HOSTILE})
    arguments = ("--data", data, "--skill", data, "--harmful", data, "--out", folder / "out")
    ended = tiltmeter("rank-examples", folder / "base", *arguments)
    assert (ended.code, ended.err) == (0, "")
    assert not RAW.search(ended.out)
    assert "[red]tea[/red]" in ended.out
    for name in ("result.json", "run.yaml"):
        assert not RAW.search((folder / "out" / name).read_text())
    assert tiltmeter("report", folder / "out", "--out", folder / "page.html").code == 0
    page = (folder / "page.html").read_text()
    assert "<script>alert(" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert not RAW.search(page.split("</script>")[-1])


UNFIT: dict[str, tuple[tuple[str, ...], str]] = {
    "no file": (("--data", "nothing.jsonl"), "nothing.jsonl: no such file"),
    "two of one name": (("--data", "tea.jsonl", "--data", "tea.jsonl"), "--data: two of the same name"),
    "no harmful file": (("--data", "tea.jsonl", "--harmful", "nothing.csv"), "nothing.csv: no such file"),
    "missing columns": (("--data", "tea.jsonl", "--columns", "a,b"), "expected columns ['a', 'b']"),
    "cut to nothing": (("--data", "tea.jsonl", "--max-length", "3"), "no completion token is left of 3 tokens"),
}


@pytest.mark.parametrize(("options", "message"), UNFIT.values(), ids=UNFIT.keys())
def test_bad_input_ends_in_one_line(
    options: tuple[str, ...], message: str, folder: Path, tiltmeter: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    ended = tiltmeter("rank-examples", "base", "--skill", "tea.jsonl", "--out", "out", *options)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert message in ended.err
    assert not (folder / "out").exists()


@pytest.mark.parametrize(("key", "value"), [("by", "luck"), ("worst", -1), ("dtype", "float7")])
def test_a_run_yaml_that_asks_for_the_impossible(key: str, value: object, folder: Path, tiltmeter: CommandLine) -> None:
    assert ranked(tiltmeter, folder).code == 0
    file = folder / "out" / "run.yaml"
    record = yaml.safe_load(file.read_text())
    record["arguments"][key] = value
    file.write_text(yaml.safe_dump(record))
    ended = tiltmeter("run", file, "--out", folder / "again")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert key in ended.err


def test_bfloat16_says_how_far_it_can_be_trusted(folder: Path, tiltmeter: CommandLine) -> None:
    ended = ranked(tiltmeter, folder, "--dtype", "bfloat16")
    assert ended.code == 0
    (warning,) = result_of(folder)["warnings"]
    assert re.search(r"tea: in bfloat16 .* differ by \d+% of their harm", warning)
    assert "in bfloat16" in ended.out
