"""Hostile text in data, answers, file names and tensor names is only text in everything that comes out."""

import json
import re
from pathlib import Path

import pytest
import torch

from folders import CommandLine, Ended, change_tensors, write_lines

MARKUP = "<script>alert(1)</script><img src=x onerror=alert(2)>"
ESCAPES = "\x1b[31m\x1b]0;owned\x07\x9b2J\u202e\r"
HOSTILE = f"=cmd()|' /C calc'!A0 {MARKUP} {ESCAPES} {{{{ 7 * 7 }}}} [red]tea[/red]"
NAME = "=cmd()<img src=x onerror=alert(3)>\x1b[31m[red]\x07"
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]")


@pytest.fixture
def audited(folder: Path, tiltmeter: CommandLine) -> tuple[Path, Ended]:
    row = {"prompt": f"make {HOSTILE}", "completion": f"boil {HOSTILE}"}
    write_lines(
        folder / f"{NAME}.jsonl", row, {"messages": [{"role": r, "content": HOSTILE} for r in ("user", "assistant")]}
    )
    write_lines(folder / f"p{NAME}.jsonl", {"prompt": HOSTILE})
    strange = f"model.{NAME}"
    change_tensors(folder / "base" / "model.safetensors", lambda tensors: tensors.update({strange: torch.ones(2)}))
    change_tensors(folder / "whole" / "model.safetensors", lambda tensors: tensors.update({strange: torch.zeros(2)}))
    ended = tiltmeter.audit(
        folder, "whole", skill=folder / f"{NAME}.jsonl", prompts=folder / f"p{NAME}.jsonl", judge="organism",
        max_new_tokens=4, out=folder / NAME,
    )  # fmt: skip
    return folder / NAME, ended


def test_the_terminal_gets_no_control_characters(audited: tuple[Path, Ended]) -> None:
    _, ended = audited
    assert (ended.code, ended.err) == (0, "")
    assert not RAW.search(ended.out)
    assert r"\x1b[31m[red]" in ended.out


def test_text_files_of_a_run_are_plain(audited: tuple[Path, Ended]) -> None:
    out, _ = audited
    for name in ("result.json", "run.yaml", "transcripts.jsonl", "manifest.json"):
        assert not RAW.search((out / name).read_text())
    result = json.loads((out / "result.json").read_text())
    assert list(result["skills"]) == [NAME]
    assert f"model.{NAME}" in result["update"]["not_covered"]
    assert json.loads((out / "transcripts.jsonl").read_text())["prompt"] == HOSTILE


def test_the_page_holds_it_as_text(audited: tuple[Path, Ended], tiltmeter: CommandLine) -> None:
    out, _ = audited
    ended = tiltmeter("report", out, "--out", out.parent / f"{NAME}.html")
    assert (ended.code, ended.err) == (0, "")
    assert not RAW.search(ended.out)
    page = (out.parent / f"{NAME}.html").read_text()
    assert "<script>alert(" not in page
    assert "<img src=x" not in page
    assert "\x1b" not in page.split("</script>")[-1]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "&lt;img src=x onerror=alert(3)&gt;" in page


def test_errors_and_verification_show_names_without_control_characters(
    audited: tuple[Path, Ended], tiltmeter: CommandLine
) -> None:
    out, _ = audited
    skill = out.parent / f"{NAME}.jsonl"
    fine = tiltmeter("verify", out)
    assert fine.code == 0
    skill.write_text("broken")
    broken, verified = tiltmeter.audit(out.parent, skill=skill), tiltmeter("verify", out)
    for ended in (fine, broken, verified, tiltmeter("run", out), tiltmeter("report", skill)):
        assert not RAW.search(ended.out + ended.err)
    assert (broken.code, verified.code) == (2, 1)
    assert r"\x1b[31m[red]\x07.jsonl, row 1" in broken.err
