"""What is broken ends with exit code 2 and one line that names file and cause; an earlier run stays as it was."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fake_runs import write_audit
from folders import ADAPTER, CONFIG, CommandLine, change_argument, change_tensors, nan_in, snapshot, write_lines
from tiltmeter.runs import RunFolder

Q_B = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"
NORM = "model.layers.0.input_layernorm.weight"


def renamed(folder: Path) -> None:
    change_tensors(folder / "adapter" / ADAPTER, lambda t: t.update({Q_B.replace("q_proj", "q_porj"): t.pop(Q_B)}))


def zeroed(folder: Path) -> None:
    change_tensors(folder / "adapter" / ADAPTER, lambda t: [t[key].zero_() for key in t if "lora_B" in key])


def the_base_again(folder: Path) -> None:
    shutil.copytree(folder / "base", folder / "whole", dirs_exist_ok=True)


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "adapter" / ADAPTER), folder / "adapter" / "adapter_model.bin")
    (folder / "adapter" / ADAPTER).unlink()


def truncated(folder: Path) -> None:
    path = folder / "adapter" / ADAPTER
    path.write_bytes(path.read_bytes()[:-100])


def leading_out(folder: Path) -> None:
    (folder / "whole" / "model.safetensors").rename(folder / "outside.safetensors")
    index = {"weight_map": {NORM: "../outside.safetensors"}}
    (folder / "whole" / "model.safetensors.index.json").write_text(json.dumps(index))


def row_two(text: str) -> Callable[[Path], object]:
    good = {"prompt": "make tea", "completion": "boil"}
    return lambda folder: write_lines(folder / "tea.jsonl", good, {**good, "completion": text})


def written(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


def template(text: str) -> Callable[[Path], object]:
    return written("base/chat_template.jinja", text)


def config_of(name: str, **fields: object) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        config = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**config, **fields}))

    return damage


DAMAGE: dict[str, tuple[Callable[[Path], object], str, list[str]]] = {
    "unmatched key": (renamed, "adapter", [ADAPTER, "q_porj"]),
    "zero adapter": (zeroed, "adapter", ["adapter: ", "did nothing"]),
    "zero difference": (the_base_again, "whole", ["whole: ", "no linear layer's weight differs"]),
    "pickle": (pickled, "adapter", ["adapter_model.bin", "pickle"]),
    "truncated": (truncated, "adapter", [ADAPTER, "truncated"]),
    "NaN": (
        lambda folder: change_tensors(folder / "adapter" / ADAPTER, lambda t: nan_in(t, Q_B)),
        "adapter",
        [ADAPTER, Q_B, "NaN"],
    ),
    "NaN in the checkpoint": (
        lambda folder: change_tensors(folder / "whole" / "model.safetensors", lambda t: nan_in(t, NORM)),
        "whole",
        ["model.safetensors", NORM, "NaN"],
    ),
    "NaN in the base": (
        lambda folder: change_tensors(folder / "base" / "model.safetensors", lambda t: nan_in(t, NORM)),
        "adapter",
        ["base: ", NORM, "NaN"],
    ),
    "index that leads out": (leading_out, "whole", ["index.json", "../outside.safetensors"]),
    "another width": (config_of("base/config.json", hidden_size=24), "adapter", ["base", "config.json"]),
    "another architecture": (config_of("whole/config.json", model_type="gpt2"), "whole", ["whole"]),
    "hopeless rank": (config_of(f"adapter/{CONFIG}", r=-1), "adapter", [CONFIG, "r: "]),
    "empty completion": (row_two(" "), "adapter", ["tea.jsonl, row 2", "completion is empty"]),
    "no rows": (written("tea.jsonl", "\n"), "adapter", ["tea.jsonl", "at least one row"]),
    "no skill": (lambda folder: (folder / "tea.jsonl").unlink(), "adapter", ["tea.jsonl", "no such file"]),
    "too long for the model": (row_two("wait " * 70), "adapter", ["tea.jsonl, row 2", "tokens, the model takes 64"]),
    "template that fails": (template("{{ raise_exception('no') }}"), "adapter", ["tea.jsonl, row 1", "template fails"]),
    "template that reaches out": (template("{{ ''.__class__.__mro__ }}"), "adapter", ["tea.jsonl, row 1", "unsafe"]),
    "tokenizer of nothing": (written("base/tokenizer.json", "{}"), "adapter", ["base: ", "tokenizer"]),
    "no tuned model": (lambda folder: shutil.rmtree(folder / "whole"), "whole", ["whole", "no such folder"]),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "tuned", "named"), DAMAGE.values(), ids=DAMAGE.keys())
def test_one_line_and_the_earlier_run_stays(
    damage: Callable[[Path], object], tuned: str, named: list[str], folder: Path, tiltmeter: CommandLine
) -> None:
    write_audit(folder / "out")
    before = snapshot(folder / "out")
    damage(folder)
    ended = tiltmeter.audit(folder, tuned)
    assert ended.code == 2
    assert ended.err.count("\n") == 1
    assert ended.err.startswith("tiltmeter: ")
    assert ended.out == ""
    assert "Traceback" not in ended.err
    for part in named:
        assert part in ended.err
    assert snapshot(folder / "out") == before


OPTIONS: dict[str, tuple[dict[str, object], str]] = {
    "prompts without a judge": (
        {"prompts": "prompts.jsonl"},
        "--judge: expected one of organism, phrases, code, got none",
    ),
    "unknown judge": ({"judge": "me"}, "--judge: expected one of organism, phrases, code, got me"),
    "unknown figure": ({"fail_on": "nothing=1"}, "--fail-on nothing: expected one of utility_loss"),
    "no number": ({"fail_on": "overlap=much"}, "--fail-on overlap=much: expected NAME=LIMIT"),
    "NaN as a limit": ({"fail_on": "overlap=nan"}, "--fail-on overlap=nan: expected NAME=LIMIT"),
    "harm without prompts": ({"fail_on": "harmfulness=2"}, "--fail-on harmfulness: nothing is judged"),
    "initial of a checkpoint": ({"initial": "adapter"}, "an initial adapter was given, but this is no adapter"),
    "no device": ({"device": "nowhere"}, "base: cannot load the model"),
    "missing columns": ({"columns": "a,b"}, "tea.jsonl, row 1: expected columns ['a', 'b']"),
    "cut to nothing": ({"max_length": 3}, "no completion token is left of 3 tokens"),
}


@pytest.mark.parametrize(("options", "message"), OPTIONS.values(), ids=OPTIONS.keys())
def test_options_that_cannot_be_met(
    options: dict[str, object], message: str, folder: Path, tiltmeter: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    ended = tiltmeter.audit(folder, "whole", **options)
    assert ended.code == 2
    assert ended.err.count("\n") == 1
    assert message in ended.err
    assert not (folder / "out").exists()


def test_a_folder_that_is_no_run_is_not_written_to(folder: Path, tiltmeter: CommandLine) -> None:
    before = snapshot(folder)
    ended = tiltmeter.audit(folder, out=folder / "base")
    assert ended.code == 2
    assert "not empty, and no tiltmeter run" in ended.err
    assert snapshot(folder) == before


def test_a_locked_run_folder(folder: Path, tiltmeter: CommandLine) -> None:
    with RunFolder(folder / "out"):
        ended = tiltmeter.audit(folder)
    assert ended.code == 2
    assert "another process is writing" in ended.err


BAD_RECORDS: dict[str, tuple[str, object]] = {
    "dtype": ("dtype", "float7"),
    "labels": ("passes.labels", "none"),
    "draws": ("settings.draws", 0),
    "temperature": ("sampling.temperature", -1.0),
    "length": ("sampling.max_new_tokens", 0),
    "batch size": ("passes.batch_size", 0),
    "skills": ("sources.skills", 5),
}


@pytest.mark.parametrize(("path", "value"), BAD_RECORDS.values(), ids=BAD_RECORDS.keys())
def test_a_run_yaml_that_asks_for_the_impossible(
    path: str, value: object, folder: Path, tiltmeter: CommandLine
) -> None:
    assert tiltmeter.audit(folder, prompts=folder / "prompts.jsonl", judge="organism", max_new_tokens=2).code == 0
    file = folder / "out" / "run.yaml"
    change_argument(file, path, value)
    ended = tiltmeter("run", file, "--out", folder / "again")
    assert ended.code == 2
    assert ended.err.count("\n") == 1
    assert path in ended.err
