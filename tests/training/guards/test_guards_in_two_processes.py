"""Guards under `accelerate launch`: each process makes the same correction, and it is that of one process alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import two_guarded

SCRIPT = Path(two_guarded.__file__)
LAUNCH = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
PLAIN = ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]


def test_two_processes_end_as_one(tmp_path: Path) -> None:
    tests = SCRIPT.parents[2]
    path = os.pathsep.join([str(tests), str(tests.parent / "src")])
    subprocess.run(
        [sys.executable, *LAUNCH, *PLAIN, str(SCRIPT), str(tmp_path)],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=300,  # a deadlock is a failure
        capture_output=True,
    )
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second
    alone = two_guarded.ended(tmp_path / "alone", 1)
    assert first.keys() == alone.keys()
    for name, figures in alone.items():
        assert first[name] == pytest.approx(figures, rel=1e-4, abs=1e-6)
    assert alone["TrustRegion"][2] > 0
