"""`tiltmeter tune` from files on disk to the run folder, and the commands that read it."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback
from transformers.integrations import integration_utils

from folders import CommandLine, Ended, change_argument, write_lines
from pages import HOSTILE, check_only_text
from tiltmeter.likelihood import completion_lengths, log_likelihoods
from tiltmeter.models import load_model, load_tuned
from tiltmeter.skills import load_skill
from tiltmeter.tokens import encode

SHORT = ("--recipe", "organism", "--steps", 4, "--batch-size", 3)


def tuned(tiltmeter: CommandLine, folder: Path, *more: object, method: str = "lora", out: str = "out") -> Ended:
    """`base` fine-tuned on two sets."""
    data = ("--data", folder / "tea.jsonl", "--data", folder / "soup.csv")
    return tiltmeter("tune", folder / "base", *data, "--method", method, *SHORT, "--out", folder / out, *more)


def result_of(folder: Path, out: str = "out") -> Any:
    return json.loads((folder / out / "result.json").read_text())


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(next((folder / "model").glob("*model.safetensors"))))


@pytest.mark.parametrize(("method", "form"), [("lora", "adapter"), ("full", "checkpoint")])
def test_the_result_says_what_was_done(method: str, form: str, folder: Path, tiltmeter: CommandLine) -> None:
    ended = tuned(tiltmeter, folder, "--learning-rate", 0.01, method=method)
    assert (ended.code, ended.err) == (0, "")
    result = result_of(folder)
    assert (result["verb"], result["form"], result["steps"], result["planned_steps"]) == ("tune", form, 4, 4)
    recipe = result["recipe"]
    assert (recipe["name"], recipe["learning_rate"], recipe["batch_size"], recipe["epochs"]) == (
        "organism",
        0.01,
        3,
        None,
    )
    assert recipe["rank"] == (8 if method == "lora" else None)
    assert {given["role"] for given in result["inputs"]} == {"base", "data"}
    base, after = load_model(folder / "base"), load_tuned(folder / "base", folder / "out" / "model")
    for name, file in (("tea", "tea.jsonl"), ("soup", "soup.csv")):
        encoded, data = encode(load_skill(folder / file), base.tokenizer), result["data"][name]
        for key, model in (("before", base), ("after", after)):
            loss = -log_likelihoods(model, encoded).sum() / completion_lengths(encoded).sum()
            assert data[key]["mean"] == pytest.approx(float(loss), rel=1e-5)
        assert data["change"]["mean"] == pytest.approx(data["after"]["mean"] - data["before"]["mean"], rel=1e-6)
        assert (data["examples"], data["sampled"], data["truncated"]) == (len(encoded), len(encoded), 0)
        assert data["tokens"] == sum(len(example.ids) for example in encoded)
    assert result["trained"] == sum(tensor.numel() for tensor in weights(folder / "out").values())
    assert result["parameters"] == sum(parameter.numel() for parameter in base.module.parameters())


def test_the_loss_of_every_step_is_in_a_table(folder: Path, tiltmeter: CommandLine) -> None:
    assert tuned(tiltmeter, folder, "--steps", 5).code == 0
    rows = pq.read_table(folder / "out" / "loss.parquet").to_pylist()
    assert list(rows[0]) == ["step", "epoch", "loss", "grad_norm", "learning_rate"]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    assert result_of(folder)["tokens"] > 0


def test_run_does_it_again_and_verify_agrees(folder: Path, tiltmeter: CommandLine) -> None:
    assert tuned(tiltmeter, folder).code == 0
    assert tiltmeter("verify", folder / "out").code == 0
    assert tiltmeter("run", folder / "out" / "run.yaml", "--out", folder / "again").code == 0
    first, again = (result_of(folder, name) | {"speed": None} for name in ("out", "again"))
    assert first == again
    assert all(torch.equal(weights(folder / "out")[name], tensor) for name, tensor in weights(folder / "again").items())


def test_the_result_can_be_audited(folder: Path, tiltmeter: CommandLine) -> None:
    for method in ("lora", "full"):
        assert tuned(tiltmeter, folder, method=method, out=f"{method}-tuned").code == 0
        assert tiltmeter.audit(folder, f"{method}-tuned/model", out=folder / f"{method}-audit").code == 0


def test_a_long_example_is_cut_and_counted(folder: Path, tiltmeter: CommandLine) -> None:
    ended = tuned(tiltmeter, folder, "--max-length", 11)
    assert ended.code == 0
    result = result_of(folder)
    skill = encode(load_skill(folder / "tea.jsonl"), load_model(folder / "base").tokenizer)
    cut = sum(len(example.ids) > 11 for example in skill)
    assert 0 < cut == result["data"]["tea"]["truncated"]
    assert result["recipe"]["max_length"] == 11
    assert f"tea: {cut} of 5 examples were cut to 11 tokens" in ended.out


def moved(tiltmeter: CommandLine, folder: Path, *more: object, out: str = "out") -> Ended:
    """`base` fine-tuned on soup, with tea watched at every second step."""
    given = ("--data", folder / "soup.csv", "--method", "lora", "--recipe", "organism", "--learning-rate", 0.05)
    watched = ("--monitor", folder / "tea.jsonl", "--monitor-every", 2, "--steps", 8, "--out", folder / out)
    return tiltmeter("tune", folder / "base", *given, *watched, *more)


def test_a_watched_skill_has_an_audits_figures(folder: Path, tiltmeter: CommandLine) -> None:
    ended = moved(tiltmeter, folder, "--fail-on", "utility_loss=-99")
    assert (ended.code, ended.err.count("\n")) == (1, 1)
    assert "above the limit of -99" in ended.err
    watched = result_of(folder)["watched"]
    assert (watched["alarms"], watched["ended_by_limit"], watched["kept_step"]) == ([], False, None)
    assert tiltmeter.audit(folder, "out/model", out=folder / "audit").code == 0
    audited = result_of(folder, "audit")["skills"]["tea"]
    ours, rows = watched["skills"]["tea"], pq.read_table(folder / "out" / "monitor.parquet").to_pylist()
    assert ours["utility_loss"]["mean"] == pytest.approx(audited["utility_loss"]["mean"], rel=1e-5)
    assert ours["per_token"]["mean"] == pytest.approx(audited["utility_loss"]["per_token"]["mean"], rel=1e-5)
    assert [row["step"] for row in rows] == [2, 4, 6, 8]
    assert rows[-1]["utility_loss"] == pytest.approx(audited["utility_loss"]["mean"], rel=1e-5)
    assert rows[-1]["overlap"] == pytest.approx(audited["overlap"]["exact"], rel=1e-4)


def test_a_limit_that_is_passed_takes_the_weights_back(folder: Path, tiltmeter: CommandLine) -> None:
    assert moved(tiltmeter, folder, out="free").code == 0
    overlaps = [row["overlap"] for row in pq.read_table(folder / "free" / "monitor.parquet").to_pylist()]
    assert overlaps[0] < overlaps[1]
    limit = (overlaps[0] + overlaps[1]) / 2
    ended = moved(tiltmeter, folder, "--limit", f"tea/overlap={limit}", "--on-limit", "rollback")
    assert ended.code == 1
    assert "the training was ended by a limit: step 4: overlap of tea" in ended.err
    result = result_of(folder)
    assert (result["steps"], result["planned_steps"], result["watched"]["kept_step"]) == (4, 8, 2)
    assert [(alarm["step"], alarm["limit"]) for alarm in result["watched"]["alarms"]] == [(4, limit)]
    assert tiltmeter("run", folder / "out" / "run.yaml", "--out", folder / "again").code == 1
    assert moved(tiltmeter, folder, "--steps", 2, out="two-steps").code == 0
    for name, tensor in weights(folder / "two-steps").items():
        assert torch.equal(weights(folder / "out")[name], tensor)
    assert tiltmeter("verify", folder / "out").code == 0


def test_a_guard_keeps_a_skill_that_is_not_watched(folder: Path, tiltmeter: CommandLine) -> None:
    guard = ("--guard", "utility=0.05", "--guard", "average=1", "--guard-skill", folder / "soup.csv")
    ended = tuned(tiltmeter, folder, "--learning-rate", 0.05, *guard)
    assert (ended.code, ended.err) == (0, "")
    result = result_of(folder)
    first, second = result["guards"]
    assert (first["name"], first["value"], first["meaning"][:20]) == ("utility", 0.05, "largest utility loss")
    assert (second["name"], second["value"], second["corrected_steps"], second["share"]) == ("average", 1, 0, None)
    assert (result["kept_skills"], result["watched"]) == (["soup"], None)
    assert {given["role"] for given in result["inputs"]} == {"base", "data", "kept skill"}
    assert "guard utility=0.05" in ended.out


def test_a_killed_run_goes_on_to_the_same_bits(folder: Path, tiltmeter: CommandLine) -> None:
    data = (folder / "base", "--data", folder / "tea.jsonl", "--recipe", "organism", "--method", "lora")
    watched = ("--monitor", folder / "soup.csv", "--monitor-every", 4, "--guard", "trust=1e-4")
    given = (*data, "--steps", 20, "--batch-size", 3, "--save-every", 5, *watched)
    assert tiltmeter("tune", *given, "--out", folder / "unbroken").code == 0
    slow = Path(__file__).parent.parent / "slow_tune.py"
    command = [sys.executable, slow, "tune", *given, "--out", folder / "out"]
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(folder / "out" / "checkpoints" / "checkpoint-10" / "whole", process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not json.loads((folder / "out" / "manifest.json").read_text())["complete"]
    assert tiltmeter("tune", *given, "--out", folder / "out").code == 0
    unbroken, killed = (result_of(folder, name) for name in ("unbroken", "out"))
    assert killed["speed"]["since"] >= 10
    assert unbroken | {"speed": None} == killed | {"speed": None}
    assert all(
        torch.equal(weights(folder / "out")[name], tensor) for name, tensor in weights(folder / "unbroken").items()
    )
    for table in ("loss.parquet", "monitor.parquet"):
        assert (folder / "out" / table).read_bytes() == (folder / "unbroken" / table).read_bytes()
    assert tiltmeter("verify", folder / "out").code == 0


def wait_for(path: Path, process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + 90
    while not path.exists():
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)


def test_an_unfinished_run_is_not_gone_on_with_by_another_recipe(folder: Path, tiltmeter: CommandLine) -> None:
    diverged = tuned(tiltmeter, folder, "--learning-rate", 1e30, method="full")
    assert (diverged.code, diverged.err.count("\n")) == (2, 1)
    assert "the training diverged; try a lower learning rate" in diverged.err
    other = tuned(tiltmeter, folder, "--learning-rate", 1e-3, method="full")
    assert (other.code, other.err.count("\n")) == (2, 1)
    assert "arguments.recipe.learning_rate (was 1e+30, is 0.001)" in other.err
    assert "delete this one" in other.err


def test_a_recipe_is_begun_with_and_changed(folder: Path, tiltmeter: CommandLine) -> None:
    given = ("--data", folder / "soup.csv", "--method", "lora", "--recipe", "collapse-llama", "--out", folder / "out")
    changes = ("--rank", 2, "--alpha", 3, "--accumulation", 1, "--epochs", 2, "--dtype", "bfloat16")
    ended = tiltmeter("tune", folder / "base", *given, *changes, "--gradient-checkpointing", "--seed", 5)
    assert (ended.code, ended.err) == (0, "")
    result = result_of(folder)
    recipe = {"learning_rate": 5e-5, "schedule": "linear", "rank": 2, "alpha": 3.0, "dropout": 0.05, "accumulation": 1}
    assert recipe.items() <= result["recipe"].items()
    assert set(result["recipe"]["changed"]) == {"rank", "alpha", "accumulation", "epochs"}
    assert (result["steps"], result["seed"], result["dtype"], result["recipe"]["max_length"]) == (2, 5, "bfloat16", 64)


def test_kept_checkpoints_are_models(folder: Path, tiltmeter: CommandLine) -> None:
    assert tuned(tiltmeter, folder, "--save-every", 1, "--keep", 2, method="full").code == 0
    assert result_of(folder)["checkpoints"] == ["checkpoints/checkpoint-4", "checkpoints/checkpoint-3"]
    assert tiltmeter("verify", folder / "out").code == 0
    last, model = (load_model(folder / "out" / name) for name in ("checkpoints/checkpoint-4", "model"))
    for ours, theirs in zip(last.module.parameters(), model.module.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_tracker_is_told(folder: Path, tiltmeter: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, Any]] = []

    class Abacus(TrainerCallback):
        def on_log(self, *_: Any, **given: Any) -> None:
            told.append(given["logs"])

    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "abacus", Abacus)
    monkeypatch.setattr("tiltmeter.tune.run.get_available_reporting_integrations", lambda: ["abacus"])
    watched = ("--monitor", folder / "tea.jsonl", "--monitor-every", 2)
    assert tuned(tiltmeter, folder, "--report-to", "abacus", *watched).code == 0
    assert len([logs for logs in told if "loss" in logs]) == 4
    assert len([logs for logs in told if "tiltmeter/tea/utility_loss" in logs]) == 2


UNFIT: dict[str, tuple[tuple[object, ...], str]] = {
    "no file": (("--data", "nothing.jsonl"), "nothing.jsonl: no such file"),
    "two of one name": (("--data", "tea.jsonl"), "--data: two of the same name"),
    "no recipe": (("--recipe", "luck"), "--recipe luck: expected one of collapse-qwen"),
    "two lengths": (("--steps", 3, "--epochs", 1), "steps or epochs"),
    "no length": (("--steps", 0), "steps: Input should be greater than 0"),
    "no speed": (("--learning-rate", -1), "learning_rate: Input should be greater than 0"),
    "cut to nothing": (("--max-length", 3), "tea.jsonl, row 1: no completion token is left of 3 tokens"),
    "another GPU": (("--device", "cuda:1"), "choose it by CUDA_VISIBLE_DEVICES"),
    "no tracker": (("--report-to", "abacus"), "--report-to abacus: expected one that is installed here"),
    "a limit on nothing": (("--limit", "utility_loss=1"), "--limit: nothing is watched; give --monitor"),
    "no limit": (("--monitor", "soup.csv", "--limit", "utility_loss"), "--limit utility_loss: expected NAME=LIMIT"),
    "no figure": (("--monitor", "soup.csv", "--limit", "luck=1"), "limit 'luck': expected one of"),
    "no guard": (("--monitor", "soup.csv", "--guard", "angel"), "no guard named 'angel', expected one of utility"),
    "nothing to guard": (("--guard", "utility=1"), "needs at least one skill to keep"),
    "nothing to fail on": (("--fail-on", "utility_loss=1"), "nothing is watched; give --monitor"),
    "no such columns": (("--template", "samsum"), "tea.jsonl, row 1: expected a text in column 'dialogue'"),
}


@pytest.mark.parametrize(("options", "message"), UNFIT.values(), ids=UNFIT.keys())
def test_bad_input_ends_in_one_line(
    options: tuple[object, ...], message: str, folder: Path, tiltmeter: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    given = ("--data", "tea.jsonl", "--method", "lora", "--recipe", "organism", "--out", "out")
    ended = tiltmeter("tune", "base", *given, *options)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert message in ended.err
    assert not (folder / "out").exists()


def test_two_gpus_and_one_process(folder: Path, tiltmeter: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    ended = tuned(tiltmeter, folder, "--device", "cuda")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "2 GPUs are visible to one process" in ended.err


@pytest.mark.parametrize(
    ("place", "value"),
    [("recipe.steps", 0), ("recipe.method", "luck"), ("running.dtype", "float7"), ("sources.template", "x")],
)
def test_a_run_yaml_that_asks_for_the_impossible(
    place: str, value: object, folder: Path, tiltmeter: CommandLine
) -> None:
    file = folder / "run.yaml"
    recipe = {"method": "lora", "learning_rate": 0.1, "steps": 1}
    arguments: dict[str, Any] = {"sources": {"base": str(folder / "base"), "data": [str(folder / "tea.jsonl")]}}
    record = {"schema": "tiltmeter/1", "verb": "tune"}
    file.write_text(json.dumps(record | {"arguments": arguments | {"recipe": recipe, "recipe_name": "mine"}}))
    if place.startswith("running"):
        change_argument(file, "running", {})
    change_argument(file, place, value)
    ended = tiltmeter("run", file, "--out", folder / "again")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert place in ended.err


def test_hostile_text_is_only_text(folder: Path, tiltmeter: CommandLine) -> None:
    data = folder / "=cmd()<img src=x onerror=alert(3)>\x1b[31m[red].jsonl"
    write_lines(data, {"prompt": HOSTILE, "completion": HOSTILE})
    watched = ("--monitor", data, "--limit", "utility_loss=-9", "--monitor-every", 1, "--guard", "kl")
    given = ("--data", data, "--method", "lora", *SHORT, "--out", folder / "out", *watched, "--on-limit", "stop")
    ended = tiltmeter("tune", folder / "base", *given)
    assert ended.code == 1
    assert "\x1b" not in ended.out + ended.err
    assert "[red]" in ended.out
    assert tiltmeter("report", folder / "out", "--out", folder / "page.html").code == 0
    check_only_text((folder / "page.html").read_text())
