"""Two processes train one model as one does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from folders import write_lines
from tiltmeter.errors import InputError
from tiltmeter.training.processes import share_of_batch

STARTER = str(Path(sys.executable).with_name("tiltmeter"))


def tune(folder: Path, out: str, *launcher: str) -> str:
    """`tiltmeter tune` in a process of its own, or in several; what it printed."""
    given = ["tune", "base", "--data", "four.jsonl", "--method", "lora", "--recipe", "organism", "--steps", "6"]
    watched = ["--monitor", "soup.csv", "--monitor-every", "3", "--guard", "trust=1e-4"]
    more = ["--batch-size", "2", "--accumulation", "2", "--save-every", "4", "--keep", "1", "--out", out]
    program = [sys.executable, *launcher, STARTER, *given, *watched, *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(program, cwd=folder, env=environment, capture_output=True, text=True, timeout=200)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.slow
def test_two_processes_learn_what_one_does(folder: Path) -> None:
    write_lines(folder / "four.jsonl", *map(json.loads, (folder / "tea.jsonl").read_text().splitlines()[:4]))
    tune(folder, "one")
    told = tune(folder, "two", "-m", "torch.distributed.run", "--nproc-per-node", "2", "--")
    assert told.count("written to two") == 1
    one, two = (load_file(folder / name / "model" / "adapter_model.safetensors") for name in ("one", "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-4, atol=1e-6)
    results = [json.loads((folder / name / "result.json").read_text()) for name in ("one", "two")]
    assert [result["tokens"] for result in results] == [results[0]["tokens"]] * 2
    assert [result["checkpoints"] for result in results] == [["checkpoints/checkpoint-6"]] * 2
    assert "trained by 2 processes" in results[1]["warnings"][0]


def test_a_batch_that_cannot_be_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert share_of_batch(6) == 3
    with pytest.raises(InputError, match="a batch of 3 examples cannot be divided among 2 processes"):
        share_of_batch(3)
