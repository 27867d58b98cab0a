"""`tiltmeter audit` from files on disk to the run folder, and the commands that read it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from folders import CommandLine, Ended, change_tensors, snapshot
from tiltmeter.behaviour.utility import utility_loss
from tiltmeter.models import load_model, load_tuned
from tiltmeter.skills import load_skill
from tiltmeter.tokens import encode

KEYS = [
    "schema", "verb", "inputs.0.files", "update.kind", "update.norm", "update.modules", "update.not_covered",
    "skills.tea.examples", "skills.tea.overlap.exact", "skills.tea.overlap.normalised", "skills.tea.overlap.floor",
    "skills.tea.overlap.projected", "skills.tea.overlap.k", "skills.tea.first_order", "skills.tea.nulls.dense.mean",
    "skills.tea.nulls.dense.p95", "skills.tea.nulls.dense.ratio", "skills.tea.nulls.same_rank.mean",
    "skills.tea.nulls.same_rank.p95", "skills.tea.nulls.same_rank.ratio", "skills.tea.utility_loss.mean",
    "skills.tea.utility_loss.low", "skills.tea.utility_loss.high", "skills.tea.utility_loss.quadratic",
    "skills.tea.utility_loss.reduction", "chat_template_changed",
]  # fmt: skip


def result_of(folder: Path) -> Any:
    return json.loads((folder / "result.json").read_text())


def at(content: Any, path: str) -> Any:
    for key in path.split("."):
        content = content[int(key)] if isinstance(content, list) else content[key]
    return content


@pytest.fixture
def done(folder: Path, tiltmeter: CommandLine) -> tuple[Path, Ended]:
    ended = tiltmeter.audit(folder, projected=16, prompts=folder / "prompts.jsonl", judge="organism", max_new_tokens=6)
    return folder, ended


def test_an_audit_says_what_the_update_does(done: tuple[Path, Ended]) -> None:
    folder, ended = done
    assert (ended.code, ended.err) == (0, "")
    assert "tea" in ended.out
    result = result_of(folder / "out")
    for key in KEYS:
        assert at(result, key) is not None
    assert result["chat_template_changed"] is False
    assert result["update"]["kind"] == "adapter"
    assert result["update"]["modules"] == 4
    assert {given["role"] for given in result["inputs"]} == {"base", "tuned", "skill", "prompts"}
    base = load_model(folder / "base")
    encoded = encode(load_skill(folder / "tea.jsonl"), base.tokenizer)
    loss = utility_loss(base, load_tuned(folder / "base", folder / "adapter"), encoded)
    assert at(result, "skills.tea.utility_loss.mean") == pytest.approx(float(loss.by_example.mean()), rel=1e-4)
    assert at(result, "skills.tea.utility_loss.quadratic") == at(result, "skills.tea.overlap.exact") / 2


def test_an_audit_saves_its_tables_arrays_and_transcripts(done: tuple[Path, Ended]) -> None:
    out = done[0] / "out"
    result = result_of(out)
    modules = pq.read_table(out / "modules.parquet")
    assert {"skill", "module", "block", "exact", "normalised", "floor", "trace"} <= set(modules.column_names)
    assert modules.num_rows == 14
    arrays = load_file(out / "arrays.safetensors")
    assert arrays["tea.gram"].shape == (14, 5, 5)
    exact = float(arrays["tea.coordinates"].sum(0).square().mean())
    assert exact == pytest.approx(at(result, "skills.tea.overlap.exact"), rel=1e-6)
    top = torch.linalg.eigvalsh(arrays["tea.gram"].sum(0)).flip(0)[:3]
    assert at(result, "skills.tea.top.lambda_top") == pytest.approx(top.tolist(), rel=1e-6)
    examples = pq.read_table(out / "examples.parquet").to_pylist()
    assert [row["row"].rpartition("/")[2] for row in examples] == [f"tea.jsonl, row {row}" for row in range(1, 6)]
    mean = sum(row["utility_loss"] for row in examples) / 5
    assert mean == pytest.approx(at(result, "skills.tea.utility_loss.mean"))
    lines = [json.loads(line) for line in (out / "transcripts.jsonl").read_text().splitlines()]
    assert [line["prompts"] for line in lines] == ["prompts"] * 3
    assert [line["tuned"]["harm"] is None for line in lines] == [False, False, True]
    judged = at(result, "behaviour.prompts.tuned")
    assert (judged["answers"], judged["judge_failures"]) == (3, 1)


def test_run_does_it_again_with_identical_figures(done: tuple[Path, Ended], tiltmeter: CommandLine) -> None:
    folder, _ = done
    assert tiltmeter("run", folder / "out" / "run.yaml", "--out", folder / "again").code == 0
    first, again = snapshot(folder / "out"), snapshot(folder / "again")
    assert first.keys() == again.keys()
    assert [name for name in first if first[name] != again[name]] == []


def test_verify_sees_a_changed_byte(done: tuple[Path, Ended], tiltmeter: CommandLine) -> None:
    folder, _ = done
    good = tiltmeter("verify", folder / "out")
    assert (good.code, good.err) == (0, "")
    for name in ("out/modules.parquet", "tea.jsonl"):
        path = folder / name
        content = path.read_bytes()
        path.write_bytes(content[:50] + bytes([content[50] ^ 1]) + content[51:])
        bad = tiltmeter("verify", folder / "out")
        assert bad.code == 1
        assert Path(name).name in bad.out
        path.write_bytes(content)
    assert tiltmeter("verify", folder / "out").code == 0


def test_report_writes_one_page(done: tuple[Path, Ended], tiltmeter: CommandLine) -> None:
    folder, _ = done
    ended = tiltmeter("report", folder / "out", "--out", folder / "page.html")
    assert (ended.code, ended.err) == (0, "")
    page = (folder / "page.html").read_text()
    assert page.startswith("<!doctype html>") or page.startswith("<!DOCTYPE html>")
    assert "how do i make tea" in page


def test_a_whole_checkpoint_with_another_template(folder: Path, tiltmeter: CommandLine) -> None:
    ended = tiltmeter.audit(folder, "whole", skill=folder / "soup.csv")
    assert (ended.code, ended.err) == (0, "")
    result = result_of(folder / "out")
    assert result["chat_template_changed"] is True
    assert result["chat_templates"]["base"] != result["chat_templates"]["tuned"]
    assert "template" in ended.out
    assert result["update"]["kind"] == "checkpoint"
    assert "model.norm.weight" in result["update"]["not_covered"]
    assert at(result, "skills.soup.examples") == 2
    assert result["behaviour"] is None


def test_two_skills_and_a_mean_over_tokens(folder: Path, tiltmeter: CommandLine) -> None:
    ended = tiltmeter(
        "audit", folder / "base", folder / "adapter", "--skill", folder / "tea.jsonl", "--skill", folder / "soup.csv",
        "--reduction", "mean", "--labels", "sampled", "--draws", 2, "--out", folder / "out",
    )  # fmt: skip
    assert (ended.code, ended.err) == (0, "")
    result = result_of(folder / "out")
    assert list(result["skills"]) == ["tea", "soup"]
    for name in result["skills"]:
        loss = at(result, f"skills.{name}.utility_loss")
        assert loss["reduction"] == "mean"
        assert abs(loss["mean"]) < 20
    assert pq.read_table(folder / "out" / "modules.parquet").num_rows == 28


def test_fail_on_decides_the_exit_code(folder: Path, tiltmeter: CommandLine) -> None:
    over = tiltmeter.audit(folder, fail_on="utility_loss=-100")
    assert over.code == 1
    assert "utility_loss is" in over.err
    assert (folder / "out" / "result.json").exists()
    assert tiltmeter.audit(folder, fail_on="overlap=1e30").code == 0


@pytest.mark.parametrize(
    "verb", ["demo", "audit", "connect", "forecast", "spectrum", "rank-examples", "report", "run", "verify"]
)
def test_help_answers_without_torch(verb: str) -> None:
    program = (
        "import sys\nfrom tiltmeter.cli import main\n"
        "try:\n    main()\nfinally:\n    assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, verb, "--help"], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert verb in ended.stdout


def test_a_process_of_its_own_prints_nothing_but_the_result(folder: Path) -> None:
    for name in ("base", "whole"):  # transformers would list what it does not know
        change_tensors(folder / name / "model.safetensors", lambda t: t.update({"un\x1b[31mknown": torch.ones(1)}))
    program = "from tiltmeter.cli import main; main()"
    arguments: list[str | Path] = [
        "audit",
        folder / "base",
        folder / "whole",
        "--skill",
        folder / "soup.csv",
        "--draws",
        "2",
    ]
    ended = subprocess.run(
        [sys.executable, "-c", program, *arguments, "--out", folder / "out"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "\x1b" not in ended.stdout


@pytest.mark.parametrize(("judge", "outcome"), [("phrases", "refusal_rate"), ("code", None)])
def test_a_judge_that_scores_no_harm(folder: Path, tiltmeter: CommandLine, judge: str, outcome: str | None) -> None:
    ended = tiltmeter.audit(folder, prompts=folder / "prompts.jsonl", judge=judge, max_new_tokens=4)
    assert (ended.code, ended.err) == (0, "")
    judged = json.loads((folder / "out" / "result.json").read_text())["behaviour"]["prompts"]["tuned"]
    assert (judged["harmfulness"], judged["judge_failures"]) == (None, 0)
    assert (judged["refusal_rate"] is not None) == (outcome is not None)
    assert tiltmeter("report", folder / "out", "--out", folder / "page.html").code == 0
    path = (folder / "base", folder / "adapter", "--points", "0,1", "--prompts", folder / "prompts.jsonl")
    ended = tiltmeter("connect", *path, "--judge", judge, "--max-new-tokens", 4, "--out", folder / "path")
    assert (ended.code, ended.err) == (0, "")
    assert tiltmeter("report", folder / "path", "--out", folder / "page.html").code == 0
