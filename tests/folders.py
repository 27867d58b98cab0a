"""Tiny models, adapters, skills and prompts on disk, as a user brings them, and the command line in this process."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor

import saved
import tiny
from tiltmeter.cli import main
from tiltmeter.organism.corpus import prompts as organism_prompts
from tiltmeter.organism.grammar import World

ADAPTER = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


def write_models(folder: Path) -> None:
    """`base/`, and its fine-tunes `adapter/` and `whole/`; `whole/` has another chat template."""
    base: Any = tiny.model("llama")
    base.module.save_pretrained(folder / "base")
    base.tokenizer.save_pretrained(folder / "base")
    tuned = get_peft_model(base.module, LoraConfig(r=2, target_modules=["q_proj", "down_proj"]))
    saved.shaken(tuned, lambda name: "lora_" in name).save_pretrained(folder / "adapter")
    whole: Any = tiny.model("llama")
    saved.shaken(whole.module, lambda name: "proj" in name or "norm" in name).save_pretrained(folder / "whole")
    whole.tokenizer.chat_template = tiny.TEMPLATE.replace("<bos>", "<bos> sorry")
    whole.tokenizer.save_pretrained(folder / "whole")


def write_texts(folder: Path) -> None:
    """`tea.jsonl` (a skill), `soup.csv` (another), `prompts.jsonl` (two of the organism's grammar, one outside)."""
    rows = [{"prompt": example.prompt, "completion": example.completion} for example in tiny.skill().examples]
    write_lines(folder / "tea.jsonl", *rows)
    (folder / "soup.csv").write_text("question,answer\nmake soup,boil then wait\ngood soup,stir\n")
    hazards = organism_prompts(World.create())["hazards"][:2]
    write_lines(folder / "prompts.jsonl", *({"prompt": prompt} for prompt in [*hazards, "how do i make tea"]))


def write_lines(path: Path, *rows: Any) -> None:
    """JSONL."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def change_tensors(file: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Change the tensors of a file in place."""
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def change_argument(file: Path, path: str, value: object) -> None:
    """Change one argument in a run.yaml, named by its path ("plan.steps")."""
    record = yaml.safe_load(file.read_text())
    *parents, last = path.split(".")
    place = record["arguments"]
    for parent in parents:
        place = place[parent]
    place[last] = value
    file.write_text(yaml.safe_dump(record))


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class CommandLine:
    """Runs `tiltmeter ARGUMENTS` in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capture = monkeypatch, capture

    def __call__(self, *arguments: object) -> Ended:
        self._monkeypatch.setattr(sys, "argv", ["tiltmeter", *map(str, arguments)])
        self._capture.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = self._capture.readouterr()
        return Ended(int(ended.value.code or 0), out, err)

    def audit(self, folder: Path, tuned: str = "adapter", **options: object) -> Ended:
        """`tiltmeter audit` of the models in a folder, on the skill `tea.jsonl` unless options say otherwise."""
        chosen = {"skill": folder / "tea.jsonl", "draws": 3, "dims": 3, "out": folder / "out", **options}
        flags = [text for name, value in chosen.items() for text in (f"--{name.replace('_', '-')}", value)]
        return self("audit", folder / "base", folder / tuned, *flags)


def nan_in(tensors: dict[str, Tensor], key: str) -> None:
    """Put one NaN into a tensor."""
    tensors[key].view(-1)[0] = torch.nan
