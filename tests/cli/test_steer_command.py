"""`tiltmeter steer` from files on disk to the run folder, and the commands that read it."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from folders import CommandLine, Ended, snapshot, write_lines
from pages import check_only_text
from planted import BAD, GOOD, PROMPTS
from tiltmeter.activations.direction import Direction

RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]")


@pytest.fixture
def work(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to change, and the place where the command runs."""
    shutil.copytree(models, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def steered(tiltmeter: CommandLine, *options: object, direction: str = "direction", tuned: str = "tuned") -> Ended:
    """The planted direction, judged by whether an answer refuses; unless options say otherwise."""
    chosen: dict[str, object] = {
        "--direction": direction,
        "--judge": "phrases",
        "--outcome": "refused",
        "--sampling": "greedy",
        "--max-new-tokens": 1,
        "--dose": 1,
        "--draws": 2,
        "--out": "out",
        "--prompts": "prompts.jsonl",
    }
    given = [text for name, value in chosen.items() if name not in options for text in (name, value)]
    return tiltmeter("steer", "base", tuned, *given, *options)


def result_of(folder: str = "out") -> Any:
    return json.loads((Path(folder) / "result.json").read_text())


def test_the_planted_direction_is_specific_by_the_command_line(work: Path, tiltmeter: CommandLine) -> None:
    more = ("--watch", "watched.jsonl", "--neutral", "neutral.jsonl", "--tasks", "tasks.jsonl")
    ended = steered(tiltmeter, *more, "--draws", 19, "--fail-on", "effect=0.9", "--fail-on", "p_specific=0.05")
    assert (ended.code, ended.err) == (0, "")
    result = result_of()
    assert (result["verb"], result["verdict"], result["wanted"], result["outcome"]) == (
        "steer", "specific", "higher", "refused",
    )  # fmt: skip
    for text in (
        "100 %",
        "Specific: Steering at block 1, dose 1 is specific",
        "watched",
        "another block",
        "tasks right",
    ):
        assert text in ended.out
    assert "note: at the last block, an edit of the prompt changes the first generated token" in ended.out
    assert tiltmeter("verify", "out").code == 0
    assert tiltmeter("report", "out", "--out", "page.html").code == 0
    page = check_only_text(Path("page.html").read_text())
    assert any("Steering at block 1, dose 1 is specific" in words for words in page.words)


def test_the_same_run_again_has_the_same_bytes(work: Path, tiltmeter: CommandLine) -> None:
    more = ("--neutral", "neutral.jsonl", "--match", "kl", "--draws", 1, "--sampling", "model", "--samples", 2)
    assert (
        steered(tiltmeter, *more, "--beside", "b=direction/direction/beside-1.safetensors", "--block", "0+1").code == 0
    )
    before = snapshot(work / "out")
    assert tiltmeter("run", "out", "--out", "again").code == 0
    assert snapshot(work / "again") == before
    assert tiltmeter("run", "out").code == 0  # in its own place
    assert snapshot(work / "out") == before


def test_limits_decide_the_exit_code(work: Path, tiltmeter: CommandLine) -> None:
    ended = steered(tiltmeter, "--dose", 0.1, "--fail-on", "effect=0.5", "--fail-on", "p_specific=0.05")
    assert ended.code == 1
    assert "effect is 0, below the limit of 0.5" in ended.err
    assert "p_specific is 1, above the limit of 0.05" in ended.err


def test_verify_sees_a_change_in_the_direction(work: Path, tiltmeter: CommandLine) -> None:
    assert steered(tiltmeter).code == 0
    assert tiltmeter("verify", "out").code == 0
    for name in ("activations/tuned-0-00000.safetensors", "direction/beside-1.safetensors"):
        file = work / "direction" / name
        whole = file.read_bytes()
        file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        ended = tiltmeter("verify", "out")
        assert ended.code == 1
        assert f"input changed: direction: direction: {name} has another content" in ended.out + ended.err
        file.write_bytes(whole)
    (work / "direction" / "activations" / "base-00000.safetensors").unlink()
    assert tiltmeter("verify", "out").code == 1


def test_blocks_and_doses_by_the_command_line(work: Path, tiltmeter: CommandLine) -> None:
    assert steered(tiltmeter, "--block", "0+1", "--block", "-1", "--dose", 0.25, "--dose", 1).code == 0
    assert [arm["trial"] for arm in result_of()["arms"]] == ["0+1 x0.25", "0+1 x1", "1 x0.25", "1 x1"]
    assert steered(tiltmeter, "--block", "all", "--change", "ablate", "--where", "all").code == 0
    result = result_of()
    assert [arm["blocks"] for arm in result["arms"]] == [[0], [1]]
    assert (result["change"], result["where"]) == ("ablate", "all")
    assert [arm["effect"]["mean"] for arm in result["arms"]] == [0, 1]


def test_a_sampling_with_several_answers(work: Path, tiltmeter: CommandLine) -> None:
    assert steered(tiltmeter, "--sampling", "model", "--samples", 2, "--seed", 3, "--change", "add").code == 0
    result = result_of()
    assert (result["subject"], result["wanted"]) == ("base", "lower")
    assert (result["sampling"]["temperature"], result["seed"]) == (1, 3)
    assert result["sets"] == {"prompts": {"prompts": 13, "different": 13, "samples": 2}}


def test_nothing_measured_ends_with_3_before_anything_is_steered(work: Path, tiltmeter: CommandLine) -> None:
    unsaid = steered(tiltmeter, "--outcome", "harmfulness")
    assert (unsaid.code, unsaid.err.count("\n")) == (3, 1)
    assert "phrases gives no harmfulness for any answer" in unsaid.err
    assert "x1" not in (work / "out" / ".tiltmeter-journal-answers.jsonl").read_text()
    failing = steered(tiltmeter, "--judge", "organism", "--out", "failing")
    assert (failing.code, failing.err.count("\n")) == (3, 1)
    assert "organism gives no refused for any answer: a prompt outside the organism's grammar" in failing.err
    assert not (work / "failing" / "result.json").exists()


UNFIT: dict[str, tuple[tuple[object, ...], str]] = {
    "unknown outcome": (("--outcome", "luck"), "--outcome: expected one of harmfulness"),
    "no dose": (("--dose", 0), "--dose: expected a number above 0, got 0"),
    "negative dose": (("--dose", -1), "--dose: expected a number above 0, got -1"),
    "same dose twice": (("--dose", 1, "--dose", 1), "--block, --dose: given twice among 1 x1, 1 x1"),
    "no such block": (("--block", 2), "--block 2: the model has blocks 0 to 1"),
    "block in words": (("--block", "last"), "--block last: expected a number, numbers joined by +, or all by itself"),
    "all and one": (("--block", "all", "--block", "0"), "--block all: expected a number"),
    "same set twice": (("--watch", "prompts.jsonl"), "--prompts, --watch: both have a set prompts: rename a file"),
    "match without pairs": (("--match", "kl"), "--match kl: give pairs of prompt and completion"),
    "no direction": (("--direction", "nowhere"), "nowhere: not found"),
    "another run": (("--direction", "out-of-judge"), "out-of-judge: not found"),
    "no file of a direction": (("--direction", "prompts.jsonl"), "prompts.jsonl: cannot be read as a direction"),
    "a folder of none": (("--direction", "base"), "manifest.json: not found: not a finished tiltmeter run"),
    "beside of a control's name": (
        ("--beside", "sign flip=direction/direction/beside-1.safetensors"),
        "--beside sign flip: the name of another control: choose another",
    ),
    "beside of the run's name": (
        ("--beside", "benign=direction/direction/beside-1.safetensors"),
        "--beside benign: the name of another control: choose another",
    ),
    "two models": (
        ("--judge", "rubric", "--endpoint", "http://127.0.0.1:1/v1", "--judge-model", "m", "--judge-folder", "base"),
        "--judge rubric: expected one model that it asks, got 2",
    ),
    "nobody to ask": (("--judge", "rubric"), "judge rubric: expected an endpoint"),
    "no limit": (("--fail-on", "luck=1"), "--fail-on luck: expected one of effect, p_specific"),
}


@pytest.mark.parametrize(("options", "message"), UNFIT.values(), ids=UNFIT.keys())
def test_bad_input_ends_in_one_line(
    options: tuple[object, ...], message: str, models: Path, tiltmeter: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(models)
    ended = steered(tiltmeter, *options)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert message in ended.err
    assert not Path("out").exists()


def test_a_direction_of_another_width_is_refused_before_any_answer(
    given: Path, models: Path, tmp_path: Path, tiltmeter: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    prompts = ("--prompts", models / "prompts.jsonl", "--judge", "phrases", "--out", "out")
    ended = tiltmeter("steer", given / "base", given / "adapter", "--direction", models / "direction", *prompts)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "model.layers.0: a vector of width 64, the model's states have 16" in ended.err
    assert not Path("out").exists()


def test_a_run_of_another_verb_is_no_direction(work: Path, tiltmeter: CommandLine) -> None:
    assert steered(tiltmeter).code == 0
    ended = steered(tiltmeter, "--direction", "out", "--out", "other")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "out: expected a run of direction, found one of steer" in ended.err


HOSTILE = "=cmd()<img src=x onerror=alert(3)>\x1b[31m[red]tea[/red]\u202e{{ 7 * 7 }}"


def test_hostile_text_is_only_text(work: Path, tiltmeter: CommandLine) -> None:
    file = work / f"{HOSTILE.replace('/', '')}.jsonl"
    write_lines(file, *({"prompt": f"{HOSTILE} {prompt}"} for prompt in PROMPTS))
    found = Direction.load("direction/direction/beside-1.safetensors")
    hostile = f"<script>alert(1)</script>{HOSTILE}"
    Direction(found.vectors, about={"name": hostile}).save("direction/direction/beside-1.safetensors")
    beside = ("--beside", f"<b>{HOSTILE.replace('=', '')}=direction/direction/beside-1.safetensors")
    (work / "tuned").rename(work / "<b>a\x1b[31m[red]")
    ended = steered(tiltmeter, *beside, "--prompts", file, "--watch", "prompts.jsonl", tuned="<b>a\x1b[31m[red]")
    assert (ended.code, ended.err) == (0, "")
    assert not RAW.search(ended.out)
    assert r"\x1b[31m[red]" in ended.out
    for name in ("result.json", "run.yaml", "answers.jsonl"):
        assert not RAW.search((work / "out" / name).read_text())
    kinds = [control["kind"] for control in result_of()["arms"][0]["controls"]]
    assert hostile in kinds
    assert tiltmeter("report", "out", "--out", "page.html").code == 0
    check_only_text((work / "page.html").read_text())


def test_what_the_words_are(work: Path) -> None:
    """The judge of phrases takes one of the planted words for a refusal."""
    from tiltmeter.behaviour.judges.phrases import PhraseJudge

    assert [PhraseJudge().verdict("", word).refused for word in (GOOD, BAD)] == [True, False]
