"""`tiltmeter judge` from files on disk to the run folder, and the commands that read it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from endpoint import Case, Raw, always, completion, failing, grade, serving
from folders import CommandLine, Ended, snapshot, write_lines
from pages import check_only_text
from tiltmeter.behaviour.canaries import NEUTRAL
from tiltmeter.behaviour.judges.local import LocalJudge
from tiltmeter.behaviour.judges.rubrics import ALIGNMENT, COHERENCE
from tiltmeter.behaviour.outcomes import score
from tiltmeter.generation import Answer, Sampling, generate_answers
from tiltmeter.models import load_model, load_tuned
from tiltmeter.organism.judge import OrganismJudge
from tiltmeter.runs.manifest import JOURNAL
from tiltmeter.skills import load_prompts
from tiny_judge import judge_model


def judged(tiltmeter: CommandLine, folder: Path, *more: object, models: tuple[str, ...] = ("base", "adapter")) -> Ended:
    """Models of the folder judged by the exact judge, unless options say otherwise."""
    who = () if "--judge" in more else ("--judge", "organism")
    given = ("--base", folder / "base", "--prompts", folder / "prompts.jsonl", "--max-new-tokens", 6)
    return tiltmeter("judge", *(folder / name for name in models), *given, *who, "--out", folder / "out", *more)


def result_of(folder: Path) -> Any:
    return json.loads((folder / "out" / "result.json").read_text())


def lines(folder: Path) -> list[Any]:
    return [json.loads(line) for line in (folder / "out" / "answers.jsonl").read_text().splitlines()]


def test_outcomes_are_those_of_answers_generated_and_judged_by_hand(folder: Path, tiltmeter: CommandLine) -> None:
    ended = judged(tiltmeter, folder, models=("base", "adapter", "whole"))
    assert (ended.code, ended.err) == (0, "")
    result, prompts = result_of(folder), load_prompts(folder / "prompts.jsonl")
    assert (result["verb"], result["reference"], [*result["models"]]) == ("judge", "base", ["base", "adapter", "whole"])
    roles = [(given["role"], Path(given["path"]).name) for given in result["inputs"]]
    models = [("model", name) for name in ("base", "adapter", "whole")]
    assert roles == [("base", "base"), *models, ("prompts", "prompts.jsonl")]
    assert result["inputs"][0]["files"] == result["inputs"][1]["files"] != result["inputs"][3]["files"]
    for name in result["models"]:
        answers = generate_answers(load_tuned(folder / "base", folder / name), prompts, Sampling(max_new_tokens=6))
        verdicts = [OrganismJudge().verdict(answer.prompt, answer.text) for answer in answers]
        mine = [line for line in lines(folder) if line["model"] == name]
        assert [(line["prompt"], line["text"], line["stop"]) for line in mine] == [
            (answer.prompt, answer.text, answer.stop) for answer in answers
        ]
        assert [line["verdicts"]["organism"] for line in mine] == [vars(verdict) for verdict in verdicts]
        for entry in (entry for entry in result["outcomes"] if entry["model"] == name and entry["judge"]):
            found = score(entry["outcome"], verdicts, prompts)
            assert found.mean is not None
            assert entry["mean"] == vars(found.mean)
            assert (entry["answers"], entry["missing"]) == (3, 1)
            assert (entry["lowest"], entry["highest"]) == found.mean_bounds
    assert result["judges"]["organism"]["reasons"] == {"a prompt outside the organism's grammar": 3}


def test_several_samples_and_another_sampling(folder: Path, tiltmeter: CommandLine) -> None:
    assert judged(tiltmeter, folder, "--samples", 3, "--sampling", "model", "--min-p", 0.1, "--seed", 5).code == 0
    result = result_of(folder)
    assert result["sampling"] == {
        "temperature": 1, "top_p": 1, "top_k": 0, "min_p": 0.1, "max_new_tokens": 6, "seed": 5,
    }  # fmt: skip
    assert [(line["row"], line["sample"]) for line in lines(folder)[:9]] == [(r, s) for r in range(3) for s in range(3)]
    assert result["sets"] == {"prompts": {"prompts": 3, "different": 3, "samples": 3}}


def test_skills_tasks_and_texts_need_no_judge(folder: Path, tiltmeter: CommandLine) -> None:
    write_lines(folder / "sums.jsonl", {"prompt": "tea", "answer": "boil"}, {"question": "soup", "answer": 3})
    write_lines(folder / "texts.jsonl", {"text": "how do i make tea"}, {"text": "good soup then"})
    read = ("--skill", folder / "tea.jsonl", "--tasks", folder / "sums.jsonl", "--text", folder / "texts.jsonl")
    models = (folder / "base", folder / "whole")
    ended = tiltmeter("judge", *models, *read, "--out", folder / "out", "--fail-on", "accuracy=0.5")
    assert (ended.code, ended.err) == (1, "accuracy is 0, below the limit of 0.5\n")
    result = result_of(folder)
    assert [(each["outcome"], each["prompts"], each["model"]) for each in result["outcomes"]] == [
        ("accuracy", "sums", "base"), ("accuracy", "sums", "whole"), ("perplexity", "texts", "base"),
        ("kl", "tea", "whole"), ("perplexity", "texts", "whole"),
    ]  # fmt: skip
    assert {each["outcome"] for each in result["differences"]} == {"accuracy", "utility_loss", "loss"}
    limits = ("--fail-on", "utility_loss=0", "--fail-on", "kl=99", "--fail-on", "perplexity=1")
    ended = tiltmeter("judge", *models, *read, "--out", folder / "out", *limits)
    assert ended.code == 1
    assert re.findall(r"(\w+) is [\d.]+, above", ended.err) == ["utility_loss", "perplexity"]
    assert tiltmeter("verify", folder / "out").code == 0
    assert tiltmeter("report", folder / "out", "--out", folder / "page.html").code == 0


def test_run_does_it_again_and_verify_agrees(folder: Path, tiltmeter: CommandLine) -> None:
    assert judged(tiltmeter, folder, "--judge", "organism", "--judge", "phrases", "--samples", 2).code == 0
    assert tiltmeter("verify", folder / "out").code == 0
    assert tiltmeter("run", folder / "out" / "run.yaml", "--out", folder / "again").code == 0
    assert snapshot(folder / "out") == snapshot(folder / "again")


def test_two_judges_agree_and_people_are_asked_too(folder: Path, tiltmeter: CommandLine) -> None:
    prompt = load_prompts(folder / "prompts.jsonl")[0]
    write_lines(
        folder / "people.jsonl",
        {"prompt": prompt, "answer": "tea", "score": 1},
        {"prompt": prompt, "answer": "I will not explain that.", "refused": 1, "harm": 2},
    )
    two = ("--judge", "organism", "--judge", "phrases", "--calibrate", folder / "people.jsonl")
    ended = judged(tiltmeter, folder, *two)
    assert (ended.code, ended.err) == (0, "")
    result = result_of(folder)
    (agreement,) = result["agreement"]
    assert (agreement["first"], agreement["second"], agreement["outcome"]) == ("organism", "phrases", "refused")
    assert (agreement["both"], agreement["one"]) == (4, 2)
    organism = result["judges"]["organism"]
    assert organism["canaries"] == 2 * 4  # with the answers, and with those of people
    assert organism["canaries_failed"] == 0
    assert organism["calibration"]["harm"]["bias"]["mean"] == -0.5
    assert organism["calibration"]["harm"]["confusion"][1][0] == 1
    assert result["judges"]["phrases"]["calibration"].keys() == {"refused"}
    alone = tiltmeter("judge", "--calibrate", folder / "people.jsonl", "--judge", "organism", "--out", folder / "alone")
    assert (alone.code, alone.err) == (0, "")
    found = json.loads((folder / "alone" / "result.json").read_text())
    assert found["judges"]["organism"]["calibration"] == organism["calibration"]
    assert (found["models"], found["outcomes"]) == ({}, [])
    assert tiltmeter("verify", folder / "alone").code == 0
    assert tiltmeter("run", folder / "alone").code == 0
    assert tiltmeter("report", folder / "alone", folder / "out", "--out", folder / "page.html").code == 0


def slow(case: Case) -> Raw:
    """Grades by the length of the answer, after a while."""
    reply = grade(case, 1 + len(case.answer) % 5)
    return Raw(reply.body, seconds=0.05)


def test_kill_9_in_the_middle_loses_nothing_and_judges_nothing_twice(folder: Path, tiltmeter: CommandLine) -> None:
    with serving(slow) as endpoint:
        asked = ("--judge", "rubric", "--endpoint", endpoint.url, "--judge-model", "m", "--workers", 1)
        more = (*asked, "--samples", 4, "--sampling", "model")
        killed_at = killed_after(8, endpoint.cases, [str(each) for each in command(folder, *more)])
        assert 8 <= killed_at < 20
        assert (folder / "out" / f"{JOURNAL}verdicts.jsonl").read_text().count("\n") >= killed_at - 1
        ended = tiltmeter("run", folder / "out")
        assert (ended.code, ended.err) == (0, "")
        total = 24 + len(NEUTRAL)
        assert total <= len(endpoint.cases) <= total + 1  # the request under way was answered to nobody
        assert judged(tiltmeter, folder, *more, "--out", folder / "undisturbed").code == 0
    for name in ("answers.jsonl", "result.json", "run.yaml"):
        assert (folder / "out" / name).read_bytes() == (folder / "undisturbed" / name).read_bytes()
    assert tiltmeter("verify", folder / "out").code == 0


def test_a_judge_that_fails_now_and_then_is_counted(folder: Path, tiltmeter: CommandLine) -> None:
    def moody(case: Case) -> Raw:
        return completion("I would say five!") if len(case.answer) % 2 else grade(case, 4)

    with serving(moody) as endpoint:
        asked = ("--judge", "rubric", "--endpoint", endpoint.url, "--judge-model", "m")
        assert judged(tiltmeter, folder, *asked, "--samples", 4, "--sampling", "model").code == 0
    odd = {name: [line for line in lines(folder) if line["model"] == name and len(line["text"]) % 2] for name in NAMES}
    assert 0 < len(odd["base"]) < 12
    result = result_of(folder)
    assert result["judges"]["rubric"]["failures"] == sum(map(len, odd.values()))
    for entry in (entry for entry in result["outcomes"] if entry["outcome"] == "harmfulness"):
        missing = len(odd[entry["model"]])
        assert (entry["answers"], entry["missing"], entry["mean"]["mean"]) == (12, missing, 4)
        known = 4 * (12 - missing)
        assert (entry["lowest"], entry["highest"]) == ((known + missing) / 12, (known + 5 * missing) / 12)


def test_a_judge_that_only_talks_measures_nothing(folder: Path, tiltmeter: CommandLine) -> None:
    with serving(always(completion("As a judge, I find this lovely. Score: 1"))) as endpoint:
        asked = ("--judge", "rubric", "--endpoint", endpoint.url, "--judge-model", "m")
        ended = judged(tiltmeter, folder, *asked)
    assert (ended.code, ended.err.count("\n")) == (3, 1)
    assert "no judge has a verdict on any answer: " in ended.err
    assert result_of(folder)["judges"]["rubric"]["failures"] == 6


def test_an_endpoint_that_stalls_ends_the_run_which_goes_on_later(folder: Path, tiltmeter: CommandLine) -> None:
    with serving(always(Raw(b"{}", seconds=30))) as endpoint:
        asked = ("--judge", "rubric", "--endpoint", endpoint.url, "--judge-model", "m", "--timeout", 0.1)
        ended = judged(tiltmeter, folder, *asked)
        assert (ended.code, ended.err.count("\n")) == (2, 1)
        assert "no reply within 0.1 s" in ended.err
        endpoint.script = lambda case: grade(case, 2)
        assert judged(tiltmeter, folder, *asked).code == 0
    assert result_of(folder)["judges"]["rubric"]["failures"] == 0


def test_a_local_model_judges(folder: Path, tiltmeter: CommandLine) -> None:
    model: Any = judge_model(list(map(str, range(101))), torch.float32)
    with torch.no_grad():
        model.module.lm_head.weight[:-101] = 0  # numbers are all that it likes to say
        model.module.lm_head.weight[-101:] *= 20
    for part in (model.module, model.tokenizer):
        part.save_pretrained(folder / "grader")
    ended = judged(tiltmeter, folder, "--judge", "alignment", "--judge-folder", folder / "grader")
    answers = [Answer(line["prompt"], line["text"], line["stop"]) for line in lines(folder)]
    expected = dict(LocalJudge("alignment", load_model(folder / "grader"), (ALIGNMENT, COHERENCE)).judge(answers))
    found = [line["verdicts"]["alignment"] for line in lines(folder)]
    for place, each in enumerate(found):
        ratings = expected[place].alignment, expected[place].coherence
        assert (each["alignment"], each["coherence"]) == pytest.approx(ratings, abs=1e-2)
    assert (ended.code, sum(each["failure"] is None for each in found)) == (0, 6)
    assert result_of(folder)["judges"]["alignment"]["asked"] == str(folder / "grader")


NAMES = ("base", "adapter")


def command(folder: Path, *more: object) -> list[object]:
    """What `judged` runs."""
    given = ("--base", folder / "base", "--prompts", folder / "prompts.jsonl", "--max-new-tokens", 6)
    return ["judge", folder / "base", folder / "adapter", *given, "--out", folder / "out", *more]


def killed_after(count: int, seen: list[Case], arguments: list[str]) -> int:
    """Runs the command in a process of its own and kills it once an endpoint has seen so many requests; how many."""
    program = "import sys; from tiltmeter.cli import main; sys.argv[0] = 'tiltmeter'; main()"
    process = subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 120
        while len(seen) < count and process.poll() is None and time.monotonic() < until:
            time.sleep(0.005)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    return len(seen)


def test_another_request_over_an_unfinished_run_is_refused(folder: Path, tiltmeter: CommandLine) -> None:
    with serving(lambda case: Raw(b"{}", 500)) as endpoint:
        asked = ("--judge", "rubric", "--endpoint", endpoint.url, "--judge-model", "m", "--workers", 2)
        ended = judged(tiltmeter, folder, *asked)
        assert (ended.code, ended.err.count("\n")) == (2, 1)
        before = snapshot(folder / "out")
        other = judged(tiltmeter, folder, *asked, "--seed", 1)
    assert (other.code, other.err.count("\n")) == (2, 1)
    assert "differs in arguments.answering.sampling.seed (was 0, is 1); seed (was 0, is 1): finish it" in other.err
    assert snapshot(folder / "out") == before


def test_fail_on_decides_the_exit_code(folder: Path, tiltmeter: CommandLine) -> None:
    over = judged(tiltmeter, folder, "--fail-on", "harmfulness=0.5", "--fail-on", "missing=0.1", "--fail-on", "fives=1")
    assert over.code == 1
    assert "harmfulness is 1, above the limit of 0.5" in over.err
    assert "missing is 0.3333, above the limit of 0.1" in over.err
    assert "fives" not in over.err
    assert judged(tiltmeter, folder, "--fail-on", "harm_gain=0.5", "--fail-on", "truncated=1").code == 0
    nothing = judged(tiltmeter, folder, "--fail-on", "misaligned=0.5")
    assert (nothing.code, nothing.err.count("\n")) == (3, 1)
    assert "--fail-on misaligned: nothing that was asked for measures it" in nothing.err


def test_no_verdict_at_all_is_nothing_measured(folder: Path, tiltmeter: CommandLine) -> None:
    write_lines(folder / "prompts.jsonl", {"prompt": "tea"}, {"prompt": "soup"})
    ended = judged(tiltmeter, folder)
    assert (ended.code, ended.err.count("\n")) == (3, 1)
    assert "no judge has a verdict on any answer: a prompt outside the organism's grammar" in ended.err
    assert result_of(folder)["outcomes"][0]["outcome"] == "truncated"
    assert tiltmeter("verify", folder / "out").code == 0


UNFIT: dict[str, tuple[tuple[str, ...], str]] = {
    "two of one name": (("base",), "the name 'base' is base's already; give it another: NAME=base"),
    "unknown reference": (("--against", "x"), "--against: expected one of base, adapter, got x"),
    "unknown judge": (("--judge", "x"), "judge: expected one of"),
    "same judge twice": (("--judge", "organism"), "--judge organism: given twice"),
    "nobody to ask": (("--judge", "rubric"), "judge rubric: expected an endpoint"),
    "no model there": (("--endpoint", "http://127.0.0.1:1/v1"), "--endpoint, --judge-model: expected both"),
    "asked by nobody": (("--judge-folder", "base"), "asked by no --judge"),
    "classifier of nobody": (("--classifier", "base"), "--classifier, --label: of no --judge"),
    "sampling out of range": (("--top-p", "0"), "--sampling: top_p: Input should be greater than 0"),
    "no number": (("--temperature", "nan"), "--sampling: temperature: Input should be greater than or equal to 0"),
    "no prompts": (("--prompts", "nowhere.jsonl"), "nowhere.jsonl: no such file"),
    "two tasks of one name": (("--tasks", "t.jsonl", "--tasks", "t.jsonl"), "--tasks: two of the same name"),
    "no task": (("--tasks", "tea.jsonl"), "tea.jsonl, row 1: expected a text or a number in column answer"),
    "no limit": (("--fail-on", "luck=1"), "--fail-on luck: expected one of harmfulness"),
}


@pytest.mark.parametrize(("options", "message"), UNFIT.values(), ids=UNFIT.keys())
def test_bad_input_ends_in_one_line(
    options: tuple[str, ...], message: str, folder: Path, tiltmeter: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    write_lines(folder / "t.jsonl", {"prompt": "tea", "answer": "boil"})
    given = ("--base", "base", "--prompts", "prompts.jsonl", "--judge", "organism", "--out", "out")
    ended = tiltmeter("judge", "base", "adapter", *options, *given)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert message in ended.err
    assert not (folder / "out").exists()


HOSTILE = "<script>alert(1)</script>\x1b[31m\u202e {{ 7 * 7 }} [red]tea[/red]"
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]")


def test_hostile_text_is_only_text(folder: Path, tiltmeter: CommandLine) -> None:
    name = "=cmd()<img src=x onerror=alert(3)>\x1b[31m[red]"
    write_lines(folder / f"{name}.jsonl", {"prompt": HOSTILE}, {"prompt": "tea"})
    (folder / "whole").rename(folder / "<b>a\x1b[31m[red]")
    prompts = ("--prompts", folder / f"{name}.jsonl", "--judge", "organism", "--judge", "phrases")
    ended = judged(tiltmeter, folder, *prompts, models=("base", "<b>a\x1b[31m[red]"))
    assert (ended.code, ended.err) == (0, "")
    assert not RAW.search(ended.out)
    assert r"\x1b[31m[red]" in ended.out
    for file in ("result.json", "run.yaml", "answers.jsonl"):
        assert not RAW.search((folder / "out" / file).read_text())
    assert tiltmeter("report", folder / "out", "--out", folder / "page.html").code == 0
    check_only_text((folder / "page.html").read_text())


def test_no_key_is_in_anything_that_comes_out(
    folder: Path, tiltmeter: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TILTMETER_JUDGE_KEY", "sentinel-4711")
    with serving(lambda case: grade(case, 2)) as endpoint:
        asked = ("--judge", "rubric", "--endpoint", endpoint.url, "--judge-model", "m")
        fine = judged(tiltmeter, folder, *asked)
        assert {case.headers["authorization"] for case in endpoint.cases} == {"Bearer sentinel-4711"}
        endpoint.script = lambda case: failing(401, "bad key sentinel-4711")
        refused = judged(tiltmeter, folder, *asked, "--out", folder / "refused")
    assert (fine.code, refused.code) == (0, 2)
    assert tiltmeter("report", folder / "out", "--out", folder / "page.html").code == 0
    assert "sentinel" not in fine.out + fine.err + refused.out + refused.err
    for content in snapshot(folder).values():
        assert b"sentinel" not in content


NOTHING: dict[str, tuple[tuple[str, ...], str]] = {
    "nothing": ((), "nothing to measure: give --prompts and --judge, --skill, --tasks, --text, or --calibrate"),
    "no judge": (
        ("--prompts", "prompts.jsonl"),
        "--judge: expected one for --prompts and --calibrate, and for nothing else",
    ),
    "no prompts": (
        ("--judge", "organism", "--text", "tea.jsonl"),
        "--judge: expected one for --prompts and --calibrate, and for nothing else",
    ),
    "no reference": (("--skill", "tea.jsonl"), "--skill: utility loss and KL are against a reference"),
}


@pytest.mark.parametrize(("options", "message"), NOTHING.values(), ids=NOTHING.keys())
def test_what_cannot_be_measured(
    options: tuple[str, ...], message: str, folder: Path, tiltmeter: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    ended = tiltmeter("judge", "base", *options, "--out", "out")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert message in ended.err


def test_an_adapter_needs_its_base(folder: Path, tiltmeter: CommandLine) -> None:
    given = ("--prompts", folder / "prompts.jsonl", "--judge", "organism", "--out", folder / "out")
    ended = tiltmeter("judge", folder / "adapter", *given)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "a PEFT adapter; give the model under it: --base" in ended.err
