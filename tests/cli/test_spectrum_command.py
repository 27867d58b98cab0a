"""`tiltmeter spectrum` from files on disk to the run folder, and the commands that read it."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from scipy.linalg import subspace_angles
from torch import Tensor

from folders import CommandLine, Ended, snapshot, write_lines
from tiltmeter.curvature.fisher import Fisher
from tiltmeter.models import Model, assemble, load_model
from tiltmeter.skills import load_skill
from truth import example_gradients

NAME = "=cmd()<img src=x onerror=alert(3)>\x1b[31m[red]\x07"
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]")


def result_of(folder: Path) -> Any:
    return json.loads((folder / "result.json").read_text())


def run(tiltmeter: CommandLine, folder: Path, *more: object) -> Ended:
    return tiltmeter(
        "spectrum", folder / "base", "--skill", folder / "tea.jsonl", "--dims", 2, "--draws", 2, "--out",
        folder / "out", *more,
    )  # fmt: skip


@pytest.fixture
def done(folder: Path, tiltmeter: CommandLine) -> tuple[Path, Ended]:
    return folder, run(tiltmeter, folder, "--against", folder / "adapter", "--against", folder / "whole")


def stacked(model: Model, fisher: Fisher) -> Tensor:
    """[N, n] over all measured modules."""
    found = example_gradients(model, fisher.encoded)
    return torch.stack([torch.cat([g[name].flatten() for name in fisher.modules]) for g in found]).double()


def test_figures_are_those_of_dense_gradients_at_both_models(done: tuple[Path, Ended]) -> None:
    folder, ended = done
    assert (ended.code, ended.err) == (0, "")
    base = load_model(folder / "base")
    fisher = Fisher(base, load_skill(folder / "tea.jsonl"))
    adapted: Any = PeftModel.from_pretrained(load_model(folder / "base").module, str(folder / "adapter"))
    G = stacked(base, fisher)
    H = stacked(assemble(adapted.merge_and_unload().requires_grad_(), base.tokenizer), fisher)
    values = torch.linalg.svdvals(G).square() / 5
    skill = result_of(folder / "out")["skills"]["tea"]
    assert skill["data"]["trace"] == pytest.approx(float(values.sum()), rel=1e-4)
    assert skill["data"]["lambda_d"] == pytest.approx(float(values[1]), rel=1e-4)
    assert skill["data"]["tail"] == pytest.approx(float(values[2:].sum()), rel=1e-4)
    assert skill["data"]["participation_ratio"]["mean"] == pytest.approx(
        float(values.sum() ** 2 / values.square().sum()), rel=1e-4
    )
    assert skill["flat"]["size"] == G.shape[1]
    assert skill["flat"]["loss"] == pytest.approx(float(values.sum()) / (2 * G.shape[1]), rel=1e-4)
    first, second = (torch.linalg.svd(each, full_matrices=False).Vh[:2].T.numpy() for each in (G, H))
    adapter, whole = skill["rotations"]
    assert (adapter["checkpoint"], whole["checkpoint"]) == (str(folder / "adapter"), str(folder / "whole"))
    angles = np.degrees(subspace_angles(first, second))
    assert adapter["turned"]["angles"] == pytest.approx(angles.tolist(), rel=1e-2)
    # The nonzero eigenvalues of H^T H - G^T G = (H, G)^T (H, -G) are those of the small product the other way round.
    small = torch.cat([H, -G]) @ torch.cat([H, G]).T / 5
    assert adapter["turned"]["distance"] == pytest.approx(np.abs(np.linalg.eigvals(small.numpy())).max(), rel=1e-3)
    assert whole["turned"]["sine"] > 0


def test_tables_and_arrays_hold_every_site(done: tuple[Path, Ended]) -> None:
    folder, _ = done
    rows = pq.read_table(folder / "out" / "spectrum.parquet").to_pylist()
    assert [row["scope"] for row in rows] == ["all", "block", "block"] + ["module"] * 14
    assert rows[0]["trace"] == pytest.approx(sum(row["trace"] for row in rows[3:]))
    assert rows[1]["trace"] == pytest.approx(sum(row["trace"] for row in rows[3:] if row["block"] == 0))
    assert all(0 < row["sampled_overlap"] <= 1 + 1e-9 for row in rows)
    assert all((row["output_rank"] is None) == (row["scope"] != "module") for row in rows)
    turned = pq.read_table(folder / "out" / "rotation.parquet").to_pylist()
    assert len(turned) == 2 * len(rows)
    assert all(row["sine"] <= row["bound"] for row in turned if row["bound"] is not None)
    arrays = load_file(folder / "out" / "arrays.safetensors")
    expected = torch.linalg.eigvalsh(arrays["tea.gram"].sum(0)).flip(0)
    torch.testing.assert_close(arrays["tea.data.eigenvalues"][0, 0], expected, rtol=1e-6, atol=1e-9)
    assert arrays["tea.random_text.eigenvalues"].shape == (2, 17, 5)
    assert not torch.equal(*arrays["tea.random_text.eigenvalues"][:, 0])
    assert arrays["tea.shuffled_completions.equalised"][:, 0].sum(1).tolist() == pytest.approx([5, 5])


def test_run_does_it_again_and_verify_agrees(done: tuple[Path, Ended], tiltmeter: CommandLine) -> None:
    folder, _ = done
    assert tiltmeter("run", folder / "out" / "run.yaml", "--out", folder / "again").code == 0
    first, again = snapshot(folder / "out"), snapshot(folder / "again")
    assert first.keys() == again.keys()
    assert [name for name in first if first[name] != again[name]] == []
    assert tiltmeter("verify", folder / "again").code == 0


def test_terminal_and_page_say_what_was_found(done: tuple[Path, Ended], tiltmeter: CommandLine) -> None:
    folder, ended = done
    for part in ("random text", "shuffled completions", "Davis-Kahan", "null: halves of the skill"):
        assert part in ended.out
    made = tiltmeter("report", folder / "out", "--out", folder / "page.html")
    assert (made.code, made.err) == (0, "")
    page = (folder / "page.html").read_text()
    for part in ("Against the number of examples", "Rotation along the checkpoints", "The rank bound"):
        assert part in page


def test_without_checkpoints_there_is_no_rotation(folder: Path, tiltmeter: CommandLine) -> None:
    ended = run(tiltmeter, folder, "--reduction", "mean", "--max-length", 12)
    assert (ended.code, ended.err) == (0, "")
    assert result_of(folder / "out")["skills"]["tea"]["rotations"] == []
    assert not (folder / "out" / "rotation.parquet").exists()
    tiltmeter("report", folder / "out", "--out", folder / "page.html")
    assert "Rotation along the checkpoints" not in (folder / "page.html").read_text()


def test_bad_input_ends_in_one_line(folder: Path, tiltmeter: CommandLine) -> None:
    write_lines(folder / "one.jsonl", {"prompt": "make tea", "completion": "boil"})
    for more, expected in (
        (["--dims", 9], "skill tea: 5 examples, expected at least 9"),
        (["--skill", folder / "one.jsonl", "--dims", 1], "skill one: 1 examples, expected at least 2"),
        (["--against", folder / "nowhere"], "nowhere: no such folder"),
        (["--against", folder / "whole", "--against", folder / "whole"], "given twice"),
    ):
        ended = run(tiltmeter, folder, *more)
        assert ended.code == 2
        assert expected in ended.err
        assert ended.err.count("\n") == 1
        assert not (folder / "out").exists()


def test_hostile_names_stay_text(folder: Path, tiltmeter: CommandLine) -> None:
    (folder / "tea.jsonl").rename(folder / f"{NAME}.jsonl")
    (folder / "adapter").rename(folder / NAME)
    ended = tiltmeter(
        "spectrum", folder / "base", "--skill", folder / f"{NAME}.jsonl", "--dims", 2, "--draws", 1, "--out",
        folder / "out", "--against", folder / NAME,
    )  # fmt: skip
    assert (ended.code, ended.err) == (0, "")
    assert not RAW.search(ended.out)
    assert r"\x1b[31m[red]" in ended.out
    tiltmeter("report", folder / "out", "--out", folder / "page.html")
    page = (folder / "page.html").read_text()
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(3)&gt;" in page
    assert "\x1b" not in page.split("</script>")[-1]
