"""Every verb that computes gives the same result on a GPU as on the CPU. Skipped where there is no GPU."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import kindred
from folders import CommandLine
from tiltmeter.curvature.coordinates import ModuleCoordinates
from tiltmeter.curvature.gradients import gradients
from tiltmeter.updates.update import Update

DEVICE = "cuda"
OTHERWISE = ("versions", "speed")  # differ from run to run
JUDGED = ("--judge", "phrases", "--outcome", "refused", "--sampling", "greedy", "--max-new-tokens", 1)

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture
def same(tiltmeter: CommandLine, tmp_path: Path) -> Any:
    """Runs a command on both devices and compares the results; numbers may differ by a share, of 1 where smaller.

    transformers computes norms and angles in float32, whatever the dtype.
    """

    def compare(*arguments: object, dtype: str = "float64", share: float = 1e-5) -> None:
        found = []
        for device in ("cpu", DEVICE):
            out = tmp_path / f"{arguments[0]}-{device}"
            ended = tiltmeter(*arguments, "--dtype", dtype, "--device", device, "--out", out)
            assert ended.code == 0, ended.err
            found.append(dict(figures(json.loads((out / "result.json").read_text()))))
        on_cpu, on_gpu = found
        assert on_cpu.keys() == on_gpu.keys()
        far = {key: (one, on_gpu[key]) for key, one in on_cpu.items() if not close(one, on_gpu[key], share)}
        assert not far
        assert any(isinstance(one, float) for one in on_cpu.values())

    return compare


def figures(content: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of a result by its path, but for what differs from run to run."""
    if isinstance(content, dict | list):
        pairs = content.items() if isinstance(content, dict) else enumerate(content)
        for key, each in pairs:
            if key not in OTHERWISE:
                yield from figures(each, f"{path}/{key}")
    else:
        yield path, content


def close(one: Any, other: Any, share: float) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= share * max(1.0, abs(one))
    return bool(one == other)


def test_gradients_of_bfloat16_lose_nothing() -> None:
    draw = torch.Generator().manual_seed(0)
    a, delta = (torch.randn(3, 200, width, generator=draw).bfloat16() for width in (48, 80))
    truth = torch.bmm(delta.double().mT, a.double())
    found = gradients(a.to(DEVICE), delta.to(DEVICE), torch.float32).double().cpu()
    assert torch.get_float32_matmul_precision() == "highest"
    assert (found - truth).norm() < 1e-5 * truth.norm()  # TF32 alone rounds to 5e-4, bfloat16 to 4e-3
    dense = torch.randn(1, 80, 48, generator=draw)
    observer = ModuleCoordinates([Update.from_tensors({"m": dense[0]})["m"]], 3, torch.float32, torch.device(DEVICE))
    observer(slice(0, 3), a.to(DEVICE), delta.to(DEVICE))
    expected = (truth * dense.double()).sum((1, 2))
    assert (observer.values[0].cpu() - expected).norm() < 1e-5 * expected.norm()


def test_an_audit(folder: Path, same: Any) -> None:
    skill = ("--skill", folder / "tea.jsonl", "--draws", 3, "--dims", 3, "--projected", 16)
    same("audit", folder / "base", folder / "adapter", *skill)


def test_a_spectrum(folder: Path, same: Any) -> None:
    skill = ("--skill", folder / "tea.jsonl", "--draws", 2, "--dims", 2)
    same("spectrum", folder / "base", *skill, "--against", folder / "whole")


def test_a_ranking(folder: Path, same: Any) -> None:
    same("rank-examples", folder / "base", "--data", folder / "soup.csv", "--skill", folder / "tea.jsonl")


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_forecast(folder: Path, same: Any, method: str) -> None:
    sets = ("--data", folder / "soup.csv", "--skill", folder / "tea.jsonl", "--steps", 4, "--train-batch-size", 2)
    lora = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "down_proj"]}
    (folder / "lora").mkdir()
    (folder / "lora" / "adapter_config.json").write_text(json.dumps(lora))
    more = ("--adapter", folder / "lora") if method == "lora" else ()
    few = ("--products", 2, "--points", 3, "--dims", 2, "--groups", 2)
    same("forecast", folder / "base", *sets, *few, *more, share=1e-3)  # quotients of small numbers


def test_a_path(folder: Path, same: Any) -> None:
    sets = ("--skill", folder / "tea.jsonl", "--data", folder / "soup.csv", "--points", "0,0.5,1")
    same("connect", folder / "base", folder / "adapter", folder / "whole", *sets)


def test_judging(folder: Path, same: Any) -> None:
    asked = ("--base", folder / "base", "--prompts", folder / "prompts.jsonl", "--skill", folder / "tea.jsonl")
    same("judge", folder / "base", folder / "whole", *asked, "--judge", "organism", "--max-new-tokens", 6)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_training(folder: Path, same: Any, method: str) -> None:
    data = ("--data", folder / "tea.jsonl", "--recipe", "organism", "--steps", 4, "--batch-size", 3)
    watched = ("--monitor", folder / "tea.jsonl", "--monitor-every", 2)
    same("tune", folder / "base", *data, "--method", method, *watched, dtype="float32", share=1e-3)


def test_a_direction(folder: Path, models: Path, same: Any) -> None:
    tests = ("--permutations", 19, "--folds", 3)
    same("direction", folder / "base", folder / "adapter", "--prompts", models / "prompts.jsonl", *tests)


@pytest.mark.parametrize("change", ["subtract", "ablate"])
def test_steering(models: Path, same: Any, change: str) -> None:
    ends = (models / "base", models / "tuned", "--direction", models / "direction", "--change", change, "--dose", 1)
    files = ("--prompts", models / "prompts.jsonl", "--neutral", models / "neutral.jsonl")
    same("steer", *ends, *files, *JUDGED, "--draws", 2, "--match", "kl")


def test_transfer(tmp_path: Path, same: Any) -> None:
    made = kindred.write(tmp_path / "kindred")
    one, two = made / "one", made / "two"
    ends = (f"one={one / 'base'},{one / 'tuned'}", f"two={two / 'base'},{two / 'tuned'}")
    files = ("--common", made / "common.jsonl", "--prompts", made / "asked.jsonl")
    same("transfer", *ends, *files, *JUDGED, "--draws", 2, "--map", "ridge", "--map", "stitch", "--span", 2)
