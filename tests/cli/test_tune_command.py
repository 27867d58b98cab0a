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

from folders import CommandLine, Ended
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


def test_a_killed_run_goes_on_to_the_same_bits(folder: Path, tiltmeter: CommandLine) -> None:
    data = (folder / "base", "--data", folder / "tea.jsonl", "--recipe", "organism", "--method", "lora")
    given = (*data, "--steps", 40, "--batch-size", 3, "--save-every", 5)
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
    assert (folder / "out" / "loss.parquet").read_bytes() == (folder / "unbroken" / "loss.parquet").read_bytes()
    assert tiltmeter("verify", folder / "out").code == 0


def wait_for(path: Path, process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + 90
    while not path.exists():
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)
