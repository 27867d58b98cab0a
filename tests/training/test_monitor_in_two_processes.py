import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import two_processes

METHODS = ["full", "lora"]
SCRIPT = Path(two_processes.__file__)
# What starts several processes; the script itself asks for the CPU.
LAUNCH = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
PLAIN = ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes saw, by method."""
    folder, tests = tmp_path_factory.mktemp("two"), SCRIPT.parent.parent
    path = os.pathsep.join([str(tests), str(tests.parent / "src")])
    subprocess.run(
        [sys.executable, *LAUNCH, *PLAIN, str(SCRIPT), str(folder), *METHODS],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=300,  # a deadlock is a failure
        capture_output=True,
    )
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_see_what_one_sees(method: str, launched: list[dict[str, Any]], tmp_path: Path) -> None:
    first, second = (each[method] for each in launched)
    assert first == second
    assert first["same"]
    alone = two_processes.seen(tmp_path, method, 1)
    assert (first["ended"], first["kept_step"]) == (alone["ended"], alone["kept_step"]) == (4, 2)
    for one, two in zip(alone["coordinates"], first["coordinates"], strict=True):
        assert two == pytest.approx(list(one), rel=1e-4, abs=1e-6)
    for mine, theirs in zip(alone["rows"], first["rows"], strict=True):
        assert mine.keys() == theirs.keys()
        assert theirs["utility_loss"] == pytest.approx(mine["utility_loss"], rel=1e-4)
    assert first["sum"] == pytest.approx(alone["sum"], rel=1e-5)
