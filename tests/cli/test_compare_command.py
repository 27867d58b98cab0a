"""`tiltmeter compare` from files on disk to the run folder, and the commands that read it."""

import json
import re
import shutil
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

import saved
import tiny
from folders import ADAPTER, CommandLine, Ended, snapshot

NAME = "=cmd()<img src=x onerror=alert(3)>\x1b[31m[red]\x07"
INNER = "<b>{}[/red]\x1b[31m[red]\x07"  # without a sign of equality, so as to be a name that is given
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]")
SMALL = ("--subspace", 2, "--components", 2, "--angles", 2, "--draws", 9)
TARGETS = ("q_proj", "down_proj")


def adapter(folder: Path, start: int, trained: int, rank: int = 2, targets: Sequence[str] = TARGETS) -> Path:
    """A LoRA adapter of `base/` that starts at one seed and moves by another: B far, A a little."""
    base: Any = tiny.model("llama")
    torch.manual_seed(start)
    tuned = get_peft_model(base.module, LoraConfig(r=rank, target_modules=list(targets)))
    torch.manual_seed(trained)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_" in name:
                parameter.add_((0.1 if "lora_B" in name else 0.02) * torch.randn_like(parameter))
    tuned.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def compared(given: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`base/`, `whole/`, and adapters: `one/` and `two/` share an initialisation, `other/` has its own."""
    folder = Path(shutil.copytree(given, tmp_path_factory.mktemp("compare") / "work"))
    for name, start, trained in (("one", 0, 1), ("two", 0, 2), ("other", 7, 3)):
        adapter(folder / name, start, trained)
    return folder


def run(tiltmeter: CommandLine, folder: Path, out: Path, *more: object, names: str = "one two other") -> Ended:
    updates = [folder / name for name in names.split()]
    return tiltmeter("compare", folder / "base", *updates, "--out", out, *SMALL, *more)


def result_of(folder: Path) -> Any:
    return json.loads((folder / "result.json").read_text())


def pair_of(result: Any, one: str, two: str) -> Any:
    return next(pair for pair in result["pairs"] if (pair["one"], pair["two"]) == (one, two))


def changes(folder: Path) -> dict[str, Any]:
    """Module -> dense change, from the adapter's tensors: B A times alpha/r."""
    tensors = {key: tensor.double().numpy() for key, tensor in load_file(folder / ADAPTER).items()}
    config = json.loads((folder / "adapter_config.json").read_text())
    modules = [key.removesuffix(".lora_A.weight") for key in tensors if key.endswith(".lora_A.weight")]
    scale = config["lora_alpha"] / config["r"]
    return {
        module.removeprefix("base_model.model."): scale
        * (tensors[f"{module}.lora_B.weight"] @ tensors[f"{module}.lora_A.weight"])
        for module in modules
    }


def test_figures_are_those_of_dense_changes(compared: Path, tmp_path: Path, tiltmeter: CommandLine) -> None:
    ended = run(tiltmeter, compared, tmp_path / "out")
    assert (ended.code, ended.err) == (0, "")
    result = result_of(tmp_path / "out")
    for one, two in combinations(("one", "two", "other"), 2):
        a, b = changes(compared / one), changes(compared / two)
        cosines: dict[str, list[float]] = {}
        overlaps: dict[str, list[float]] = {}
        for module in a:
            block = module.split(".layers.")[1].split(".")[0]
            norms = np.linalg.norm(a[module]) * np.linalg.norm(b[module])
            cosines.setdefault(block, []).append(float((a[module] * b[module]).sum() / norms))
            left = [np.linalg.svd(change[module])[0][:, :2] for change in (a, b)]
            overlaps.setdefault(block, []).append(float(np.linalg.norm(left[0].T @ left[1]) ** 2 / 2))
        figures = pair_of(result, one, two)["figures"]
        assert figures["cosine"]["value"] == pytest.approx(np.mean([np.mean(x) for x in cosines.values()]), rel=1e-9)
        assert figures["overlap_left"]["value"] == pytest.approx(
            np.mean([np.mean(x) for x in overlaps.values()]), rel=1e-9
        )
        assert figures["cosine"]["std"] == pytest.approx(np.std([np.mean(x) for x in cosines.values()]), rel=1e-6)
        assert result["updates"][one]["norm"] == pytest.approx(
            np.sqrt(sum(np.linalg.norm(change) ** 2 for change in a.values())), rel=1e-9
        )


def test_a_common_start_is_found_and_named(compared: Path, tmp_path: Path, tiltmeter: CommandLine) -> None:
    ended = run(tiltmeter, compared, tmp_path / "out", "--group", "same=one,two", "--group", "rest=other")
    result = result_of(tmp_path / "out")
    rows = {(pair["one"], pair["two"]): pair["row_spaces"]["shared"] for pair in result["pairs"]}
    assert rows == {("one", "two"): True, ("one", "other"): False, ("two", "other"): False}
    assert pair_of(result, "one", "two")["figures"]["overlap_right"]["reference"] == "shared_initialisation"
    assert pair_of(result, "one", "other")["figures"]["overlap_right"]["reference"] == "same_spectrum"
    assert "one and two share their initialisation" in " ".join(ended.out.split())
    assert "shared initialisation: 1 of 3 pairs" in ended.out
    assert [(each["one"], each["two"], each["pairs"], each["shared"]) for each in result["group_pairs"]] == [
        ("same", "same", 1, 1),
        ("same", "rest", 2, 0),
    ]
    assert sorted(result["ordering"]["names"]) == ["one", "other", "two"]


def test_tables_hold_a_row_for_every_figure(compared: Path, tmp_path: Path, tiltmeter: CommandLine) -> None:
    run(tiltmeter, compared, tmp_path / "out")
    out, result = tmp_path / "out", result_of(tmp_path / "out")
    blocks = pq.read_table(out / "blocks.parquet").to_pylist()
    modules = pq.read_table(out / "modules.parquet").to_pylist()
    assert (len(blocks), len(modules)) == (3 * 2 * 9, 3 * 4 * 9)
    mine = [row["value"] for row in blocks if (row["one"], row["two"], row["figure"]) == ("one", "two", "cosine")]
    assert np.mean(mine) == pytest.approx(pair_of(result, "one", "two")["figures"]["cosine"]["value"])
    assert len(pq.read_table(out / "changes.parquet")) == 3 * 4


def test_a_recorded_run_gives_the_same_figures_again(compared: Path, tmp_path: Path, tiltmeter: CommandLine) -> None:
    run(tiltmeter, compared, tmp_path / "out", "--group", "same=one,two", "--against-base", names="one two whole")
    again = tiltmeter("run", tmp_path / "out" / "run.yaml", "--out", tmp_path / "again")
    assert (again.code, again.err) == (0, "")
    first, second = snapshot(tmp_path / "out"), snapshot(tmp_path / "again")
    assert {name for name in first if first[name] != second[name]} <= {"manifest.json"}
    assert result_of(tmp_path / "out") == result_of(tmp_path / "again")
    assert tiltmeter("verify", tmp_path / "out").code == 0


def test_files_that_changed_are_found(compared: Path, tmp_path: Path, tiltmeter: CommandLine) -> None:
    folder = Path(shutil.copytree(compared, tmp_path / "work"))
    run(tiltmeter, folder, tmp_path / "out")
    shutil.copy(folder / "two" / ADAPTER, folder / "one" / ADAPTER)
    found = tiltmeter("verify", tmp_path / "out")
    assert found.code == 1
    assert "one" in found.out


def test_reading_without_mapping_changes_nothing(compared: Path, tmp_path: Path, tiltmeter: CommandLine) -> None:
    for io in ("mmap", "read"):
        assert run(tiltmeter, compared, tmp_path / io, "--io", io, names="one two whole").code == 0
    one, two = (result_of(tmp_path / io) for io in ("mmap", "read"))
    assert one["pairs"] == two["pairs"]
    assert one["inputs"] == two["inputs"]


def test_a_checkpoint_has_no_initialisation_to_share(compared: Path, tmp_path: Path, tiltmeter: CommandLine) -> None:
    ended = run(tiltmeter, compared, tmp_path / "out", names="one whole")
    assert (ended.code, ended.err) == (0, "")
    result = result_of(tmp_path / "out")
    (pair,) = result["pairs"]
    assert pair["row_spaces"] is None
    assert all(each["shared_initialisation"] is None for each in pair["figures"].values())
    assert result["ordering"] is None
    assert result["updates"]["whole"]["kind"] == "checkpoint"
    assert "model.norm.weight" in result["updates"]["whole"]["not_covered"]
    assert "shared initialisation: cannot be asked" in ended.out


def test_against_the_base_adds_its_weights(compared: Path, tmp_path: Path, tiltmeter: CommandLine) -> None:
    ended = run(tiltmeter, compared, tmp_path / "out", "--against-base", names="one two")
    assert "against the base's own weights" in ended.out
    result = result_of(tmp_path / "out")
    weights = load_file(compared / "base" / "model.safetensors")
    a = changes(compared / "one")
    module = "model.layers.1.mlp.down_proj"
    dense = weights[f"{module}.weight"].double().numpy()
    wanted = (a[module] * dense).sum() / np.linalg.norm(a[module]) / np.linalg.norm(dense)
    rows = pq.read_table(tmp_path / "out" / "modules.parquet").to_pylist()
    (found,) = [
        row["value"]
        for row in rows
        if (row["one"], row["two"], row["module"], row["figure"]) == ("one", "base weights", module, "cosine")
    ]
    assert found == pytest.approx(wanted, rel=1e-6)
    assert result["updates"]["base weights"]["kind"] == "weights"
    assert "model.safetensors" in result["inputs"][0]["files"]
    run(tiltmeter, compared, tmp_path / "plain")
    assert "model.safetensors" not in result_of(tmp_path / "plain")["inputs"][0]["files"]


def test_unequal_ranks_and_modules_are_named(compared: Path, tmp_path: Path, tiltmeter: CommandLine) -> None:
    folder = Path(shutil.copytree(compared, tmp_path / "work"))
    adapter(folder / "narrow", 0, 5, rank=1)
    adapter(folder / "wider", 0, 6, targets=("q_proj", "down_proj", "o_proj"))
    adapter(folder / "elsewhere", 0, 7, targets=("gate_proj",))
    ended = run(tiltmeter, folder, tmp_path / "out", names="one narrow wider elsewhere")
    assert (ended.code, ended.err) == (0, "")
    notes = " ".join(ended.out.split())
    for text in (
        "note: narrow: ranks from 1: there, fewer than 2 directions enter",
        "note: wider: 2 modules that no other update changes, such as model.layers.0.self_attn.o_proj",
        "note: elsewhere: 2 modules that no other update changes, such as model.layers.0.mlp.gate_proj",
        "note: one and elsewhere: no module in a block that both change: nothing to compare",
    ):
        assert text in notes
    result = result_of(tmp_path / "out")
    assert pair_of(result, "one", "narrow")["row_spaces"]["factor_cosine"] is None
    assert pair_of(result, "one", "wider")["modules"] == 4
    assert result["ordering"] is None
    made = tiltmeter("report", tmp_path / "out", "--out", tmp_path / "page.html")
    assert (made.code, made.err) == (0, "")


def test_names_are_given_or_those_of_the_folders(compared: Path, tmp_path: Path, tiltmeter: CommandLine) -> None:
    ended = tiltmeter(
        "compare", compared / "base", compared / "one", f"mine={compared / 'two'}", "--out", tmp_path / "out", *SMALL
    )
    assert (ended.code, ended.err) == (0, "")
    assert list(result_of(tmp_path / "out")["updates"]) == ["one", "mine"]
    assert "one / mine" in ended.out


def test_hub_ids_are_names(
    compared: Path, tmp_path: Path, tiltmeter: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(repo_id: str, **_: object) -> str:
        return str(compared / repo_id.rpartition("/")[2])

    monkeypatch.setattr("tiltmeter.models.snapshot_download", download)
    ended = tiltmeter("compare", "org/base", "org/one", "short=org/two", "--out", tmp_path / "out", *SMALL)
    assert (ended.code, ended.err) == (0, "")
    result = result_of(tmp_path / "out")
    assert list(result["updates"]) == ["org/one", "short"]
    assert [given["path"] for given in result["inputs"]] == ["org/base", "org/one", "org/two"]


def broken(folder: Path) -> None:
    """`empty/` is no model, `foreign/` an adapter of another base, `single.txt` a file."""
    (folder / "empty").mkdir()
    (folder / "single.txt").write_text("text")
    base: Any = tiny.model("gpt2")
    saved.shaken(
        get_peft_model(base.module, LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True)),
        lambda name: "lora_" in name,
    ).save_pretrained(folder / "foreign")
    shutil.copytree(folder / "one", folder / "misfit")
    tensors = load_file(folder / "misfit" / ADAPTER)
    save_file(
        {key: torch.ones(tensor.shape[0], 9) if "lora_A" in key else tensor for key, tensor in tensors.items()},
        folder / "misfit" / ADAPTER,
    )


@pytest.mark.parametrize(
    ("names", "more", "expected"),
    [
        ("one", (), "expected at least two updates to compare, got 1"),
        ("one one", (), "the name 'one' is"),
        ("one two", ("--group", "bad=one,three"), "--group bad: no update is named 'three'; they are one, two"),
        ("one two", ("--group", "one,two"), "--group one,two: expected NAME=VALUE, each name once"),
        ("one two", ("--group", "a=one", "--group", "a=two"), "--group a=two: expected NAME=VALUE, each name once"),
        ("one two", ("--initial", "three=x"), "--initial: no update is named 'three'"),
        ("one two", ("--accuracy", 0), "--accuracy: expected a number between 0 and 1, got 0"),
        ("one two", ("--accuracy", "nan"), "--accuracy: expected a number between 0 and 1, got nan"),
        ("one empty", (), "empty"),
        ("one single.txt", (), "expected a folder in Hugging Face format, found a file"),
        ("one foreign", (), "foreign"),
        ("one misfit", (), "misfit"),
        ("one nowhere", (), "nowhere"),
        ("one whole", ("--initial", "whole=x"), "is no adapter"),
        ("one base", (), "base"),
    ],
)
def test_bad_input_ends_in_one_line(
    compared: Path, tmp_path: Path, tiltmeter: CommandLine, names: str, more: tuple[object, ...], expected: str
) -> None:
    folder = Path(shutil.copytree(compared, tmp_path / "work"))
    broken(folder)
    ended = run(tiltmeter, folder, tmp_path / "out", *more, names=names)
    assert ended.code == 2, ended.err
    assert expected in ended.err
    assert ended.err.count("\n") == 1
    assert not (tmp_path / "out" / "result.json").exists()


def test_updates_without_a_common_module_measure_nothing(
    compared: Path, tmp_path: Path, tiltmeter: CommandLine
) -> None:
    folder = Path(shutil.copytree(compared, tmp_path / "work"))
    adapter(folder / "elsewhere", 0, 7, targets=("gate_proj",))
    ended = run(tiltmeter, folder, tmp_path / "out", names="one elsewhere")
    assert (ended.code, ended.err) == (3, "tiltmeter: no two of one, elsewhere change the same module of a block\n")
    assert not (tmp_path / "out").exists()


def test_hostile_names_stay_text(compared: Path, tmp_path: Path, tiltmeter: CommandLine) -> None:
    folder = Path(shutil.copytree(compared, tmp_path / "work"))
    (folder / "one").rename(folder / NAME)
    ended = tiltmeter(
        "compare", folder / "base", folder / NAME, f"{INNER}={folder / 'two'}", folder / "other",
        "--group", f"{INNER}={INNER},other", "--out", tmp_path / "out", *SMALL,
    )  # fmt: skip
    assert (ended.code, ended.err) == (0, "")
    assert not RAW.search(ended.out)
    assert r"\x1b[31m[red]" in "".join(ended.out.split())
    tiltmeter("report", tmp_path / "out", "--out", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<img" not in page.split("</script>")[-1]
    assert "&lt;img src=x onerror=alert(3)&gt;" in page
    assert "\x1b" not in page.split("</script>")[-1]
    assert tiltmeter("run", tmp_path / "out" / "run.yaml", "--out", tmp_path / "again").code == 0
