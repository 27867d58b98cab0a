"""`tiltmeter connect` from files on disk to the run folder, and the commands that read it."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from folders import CommandLine, Ended, change_argument, snapshot, write_lines
from tiltmeter.behaviour.harmfulness import judge_answers
from tiltmeter.behaviour.utility import utility_loss
from tiltmeter.generation import Sampling
from tiltmeter.likelihood import completion_lengths, log_likelihoods
from tiltmeter.models import Model, load_model, load_tuned
from tiltmeter.organism.judge import OrganismJudge
from tiltmeter.skills import load_prompts, load_skill
from tiltmeter.tokens import encode

HOSTILE = "<script>alert(1)</script>\x1b[31m\u202e {{ 7 * 7 }} [red]tea[/red]"
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]")


def connected(
    tiltmeter: CommandLine, folder: Path, *more: object, ends: tuple[str, ...] = ("adapter", "whole")
) -> Ended:
    """A path across both fine-tunes, on the skill `tea` and the data `soup`."""
    given = ("--skill", folder / "tea.jsonl", "--data", folder / "soup.csv", "--out", folder / "out")
    return tiltmeter("connect", folder / "base", *(folder / end for end in ends), *given, *more)


@pytest.fixture
def done(folder: Path, tiltmeter: CommandLine) -> tuple[Path, Ended]:
    judged = ("--prompts", folder / "prompts.jsonl", "--judge", "organism", "--max-new-tokens", 6)
    return folder, connected(tiltmeter, folder, "--points", "0,0.25,0.5,1", *judged)


def result_of(folder: Path) -> Any:
    return json.loads((folder / "out" / "result.json").read_text())


def models(folder: Path) -> dict[float, Model]:
    return {s: load_tuned(folder / "base", folder / name) for s, name in ((0.0, "adapter"), (1.0, "whole"))}


def test_the_ends_have_the_figures_of_the_models(done: tuple[Path, Ended]) -> None:
    folder, ended = done
    assert (ended.code, ended.err) == (0, "")
    result, base = result_of(folder), load_model(folder / "base")
    assert (result["verb"], result["path"], result["variant"]) == ("connect", "across", "effective")
    assert result["points"] == [0, 0.25, 0.5, 1]
    skill, data = (encode(load_skill(folder / name), base.tokenizer) for name in ("tea.jsonl", "soup.csv"))
    prompts = load_prompts(folder / "prompts.jsonl")
    for s, model in models(folder).items():
        place = result["points"].index(s)
        loss = utility_loss(base, model, skill).per_completion
        found = [result["skills"]["tea"][name][place] for name in ("utility_loss", "low", "high")]
        assert found == pytest.approx([loss.mean, loss.low, loss.high], abs=1e-5)
        nats = -float(log_likelihoods(model, data).sum() / completion_lengths(data).sum())
        assert result["data"]["soup"]["loss"][place] == pytest.approx(nats, abs=1e-5)
        assert result["data"]["soup"]["perplexity"][place] == pytest.approx(math.exp(nats), rel=1e-4)
        with_base_template = Model(model.module, base.tokenizer, model.blocks, model.linears)
        judged = judge_answers(with_base_template, prompts, OrganismJudge(), Sampling(max_new_tokens=6))
        answers = [line["answer"]["text"] for line in lines(folder) if line["s"] == s]
        assert answers == [answer.text for answer in judged.answers]
    nats = -float(log_likelihoods(base, data).sum() / completion_lengths(data).sum())
    assert result["data"]["soup"]["base_loss"] == pytest.approx(nats, abs=1e-5)
    assert all(kl > 0 for kl in result["skills"]["tea"]["kl"])


def lines(folder: Path) -> list[Any]:
    return [json.loads(line) for line in (folder / "out" / "transcripts.jsonl").read_text().splitlines()]


def test_barriers_and_curves_come_from_the_table_of_examples(done: tuple[Path, Ended]) -> None:
    folder, _ = done
    result = result_of(folder)
    rows = pq.read_table(folder / "out" / "examples.parquet").to_pylist()
    points = result["points"]
    for kind, name, entry in (("skill", "tea", result["skills"]["tea"]), ("data", "soup", result["data"]["soup"])):
        mine = [row for row in rows if (row["kind"], row["set"]) == (kind, name)]
        assert len(mine) == len(points) * entry["examples"]
        assert sum(row["tokens"] for row in mine) == len(points) * entry["tokens"]
        losses = []
        for place, s in enumerate(points):
            here = [row for row in mine if row["s"] == s]
            if kind == "skill":
                losses.append(sum(row["base_log_likelihood"] - row["log_likelihood"] for row in here) / len(here))
                kl = sum(row["kl"] for row in here) / entry["tokens"]
                assert entry["kl"][place] == pytest.approx(kl)
                assert entry["kl_low"][place] <= kl <= entry["kl_high"][place]
            else:
                losses.append(-sum(row["log_likelihood"] for row in here) / entry["tokens"])
                assert {row["kl"] for row in here} == {None}
        assert entry["utility_loss" if kind == "skill" else "loss"] == pytest.approx(losses)
        heights = [loss - ((1 - s) * losses[0] + s * losses[-1]) for s, loss in zip(points, losses, strict=True)]
        barrier = entry["barrier"]
        assert barrier["mean"] == pytest.approx(max(heights), abs=1e-9)
        assert heights[points.index(barrier["at"])] == pytest.approx(max(heights), abs=1e-9)
        assert barrier["loss_range"] == pytest.approx(max(losses) - min(losses))
        assert barrier["null_p95"] > 0


def test_features_are_those_of_the_table_at_mid_path(done: tuple[Path, Ended]) -> None:
    folder, _ = done
    features = result_of(folder)["skills"]["tea"]["features"]
    rows = pq.read_table(folder / "out" / "features.parquet").to_pylist()
    assert len(rows) == 2 * 4 * 2
    assert features["at"] == 0.5
    assert [block["block"] for block in features["blocks"]] == ["model.layers.0", "model.layers.1"]
    middle = [row for row in rows if (row["kind"], row["set"], row["s"]) == ("skill", "tea", 0.5)]
    for row, block in zip(middle, features["blocks"], strict=True):
        for name in ("nl2", "over_gap", "ends_apart", "r2", "r2_nearer_end"):
            assert [row[name], row[f"{name}_low"], row[f"{name}_high"]] == list(block[name].values())
        product = block["over_gap"]["mean"] * block["ends_apart"]["mean"]
        assert 0 < block["nl2"]["mean"] == pytest.approx(product)
        assert block["r2_nearer_end"]["mean"] < block["r2"]["mean"] < 1
    for row in rows:
        if row["s"] in (0, 1):
            assert row["nl2"] < 1e-5
            assert row["r2_nearer_end"] == pytest.approx(1, abs=1e-8)


def test_from_the_base_the_first_point_is_the_base(folder: Path, tiltmeter: CommandLine) -> None:
    judged = ("--prompts", folder / "prompts.jsonl", "--judge", "organism", "--max-new-tokens", 4)
    ended = connected(tiltmeter, folder, *judged, ends=("adapter",))
    assert (ended.code, ended.err) == (0, "")
    result = result_of(folder)
    assert result["path"] == "base-to-tuned"
    assert result["points"] == pytest.approx([s / 5 for s in range(11)])
    tea = result["skills"]["tea"]
    assert (tea["utility_loss"][0], tea["kl"][0]) == (0, 0)
    assert result["data"]["soup"]["loss"][0] == result["data"]["soup"]["base_loss"]
    behaviour = result["behaviour"]["prompts"]
    assert behaviour["points"][0] == behaviour["base"]
    assert behaviour["lowest"]["at"] <= 1
    assert {line["s"] for line in lines(folder)} == set(result["points"])
    assert result["ends"][0]["others"] == {}
    features = pq.read_table(folder / "out" / "features.parquet").to_pylist()
    assert {row["s"] for row in features} == {0, 0.2, 0.4, 0.6, 0.8, 1}


def test_a_reduction_by_tokens(folder: Path, tiltmeter: CommandLine) -> None:
    assert connected(tiltmeter, folder, "--reduction", "mean", "--points", "0,1").code == 0
    base = load_model(folder / "base")
    encoded = encode(load_skill(folder / "tea.jsonl"), base.tokenizer)
    for place, model in enumerate(models(folder).values()):
        loss = utility_loss(base, model, encoded).per_example_token.mean
        assert result_of(folder)["skills"]["tea"]["utility_loss"][place] == pytest.approx(loss, abs=1e-5)


def test_run_does_it_again_and_verify_agrees(done: tuple[Path, Ended], tiltmeter: CommandLine) -> None:
    folder, _ = done
    assert tiltmeter("verify", folder / "out").code == 0
    assert tiltmeter("run", folder / "out" / "run.yaml", "--out", folder / "again").code == 0
    assert snapshot(folder / "out") == snapshot(folder / "again")


def test_saved_points_are_models(folder: Path, tiltmeter: CommandLine) -> None:
    ended = connected(tiltmeter, folder, "--save", 1, "--save", 0.5, "--points", "0,1")
    assert (ended.code, ended.err) == (0, "")
    for s, name in ((1, "1"), (0.5, "0.5")):
        saved = load_model(folder / "out" / "models" / name)
        weights = [load_model(folder / "base"), *models(folder).values()]
        found = [model.module.get_parameter("model.norm.weight") for model in [saved, weights[0], weights[2]]]
        torch.testing.assert_close(found[0], (1 - s) * found[1] + s * found[2])
    assert [entry["s"] for entry in result_of(folder)["saved"]] == [1, 0.5]
    assert tiltmeter("verify", folder / "out").code == 0


def test_a_point_saved_as_an_adapter(folder: Path, tiltmeter: CommandLine) -> None:
    adapter = ("--save", 0.5, "--save-as", "adapter", "--points", "0,1")
    assert connected(tiltmeter, folder, *adapter, ends=("adapter",)).code == 0
    assert result_of(folder)["saved"][0]["energy_lost"] is None
    base = load_model(folder / "base")
    encoded = encode(load_skill(folder / "tea.jsonl"), base.tokenizer)
    found = log_likelihoods(load_tuned(folder / "base", folder / "out" / "models" / "0.5"), encoded)
    assert connected(tiltmeter, folder, "--points", "0,0.5,1", ends=("adapter",)).code == 0
    rows = pq.read_table(folder / "out" / "examples.parquet").to_pylist()
    expected = [row["log_likelihood"] for row in rows if (row["set"], row["s"]) == ("tea", 0.5)]
    assert found.tolist() == pytest.approx(expected, abs=1e-4)
    ended = connected(tiltmeter, folder, *adapter, "--rank", 1, ends=("adapter",))
    assert ended.code == 0
    lost = result_of(folder)["saved"][0]["energy_lost"]
    assert 0.01 < lost < 0.6
    assert f"{lost:.2%} of its energy lost to rank 1" in ended.out


def test_a_change_that_is_no_adapter(folder: Path, tiltmeter: CommandLine) -> None:
    ended = connected(tiltmeter, folder, "--save", 0.5, "--save-as", "adapter")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "model.layers.0.input_layernorm.weight" in ended.err


def test_fail_on_decides_the_exit_code(folder: Path, tiltmeter: CommandLine) -> None:
    judged = (
        "--points",
        "0,0.5,1",
        "--prompts",
        folder / "prompts.jsonl",
        "--judge",
        "organism",
        "--max-new-tokens",
        4,
    )
    over = connected(tiltmeter, folder, *judged, "--fail-on", "barrier=-1", "--fail-on", "harmfulness=0.5")
    assert over.code == 1
    assert "barrier is" in over.err
    assert "harmfulness is" in over.err
    assert connected(tiltmeter, folder, *judged, "--fail-on", "barrier=1e9", "--fail-on", "harmfulness=5").code == 0


UNFIT: dict[str, tuple[tuple[str, ...], str]] = {
    "beyond the ends": (("--points", "0,1,1.5"), "expected 0 and 1 among ascending numbers from 0 to 1, got"),
    "without an end": (("--points", "0.5,1"), "expected 0 and 1 among ascending numbers"),
    "not ascending": (("--points", "0,1,0.5"), "expected 0 and 1 among ascending numbers"),
    "no numbers": (("--points", "0,a,1"), "--points: expected numbers separated by commas, got '0,a,1'"),
    "no number": (("--points", "0,nan,1"), "expected 0 and 1 among ascending numbers"),
    "saved beyond the end": (("--save", "1.5"), "points to save: expected different numbers from 0 to 1, got [1.5]"),
    "saved twice": (("--save", "0.5", "--save", "0.5"), "points to save: expected different numbers"),
    "no factors": (("--variant", "factors"), "factors can be mixed for adapters of the same modules"),
    "no judge": (("--prompts", "prompts.jsonl"), "--judge: expected one of organism, phrases, code, got none"),
    "two of one name": (("--data", "soup.csv"), "--data: two of the same name"),
    "no memory": (("--memory", "0.000001"), "but --memory is 1e-06: raise it, or give fewer or shorter examples"),
    "cut to nothing": (("--max-length", "3"), "no completion token is left of 3 tokens"),
    "nothing judged": (("--fail-on", "harmfulness=2"), "--fail-on harmfulness: nothing is judged"),
    "no limit": (("--fail-on", "luck=2"), "--fail-on luck: expected one of barrier, harmfulness"),
}


@pytest.mark.parametrize(("options", "message"), UNFIT.values(), ids=UNFIT.keys())
def test_bad_input_ends_in_one_line(
    options: tuple[str, ...], message: str, folder: Path, tiltmeter: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    given = ("--skill", "tea.jsonl", "--data", "soup.csv", "--out", "out")
    ended = tiltmeter("connect", "base", "adapter", "whole", *given, *options)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert message in ended.err
    assert not (folder / "out").exists()


def test_nothing_to_measure(folder: Path, tiltmeter: CommandLine) -> None:
    ended = tiltmeter("connect", folder / "base", folder / "adapter", "--out", folder / "out")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "nothing to measure" in ended.err


@pytest.mark.parametrize(
    ("key", "value"), [("points", [0.0]), ("variant", "luck"), ("saving.rank", 0), ("points", [0.0, 0.5])]
)
def test_a_run_yaml_that_asks_for_the_impossible(key: str, value: object, folder: Path, tiltmeter: CommandLine) -> None:
    assert connected(tiltmeter, folder, "--points", "0,1").code == 0
    file = folder / "out" / "run.yaml"
    change_argument(file, key, value)
    ended = tiltmeter("run", file, "--out", folder / "again")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert key.split(".")[0] in ended.err


def test_a_changed_template_and_rounding_are_said(folder: Path, tiltmeter: CommandLine) -> None:
    ended = connected(tiltmeter, folder, "--dtype", "bfloat16", "--points", "0,0.5,1")
    assert ended.code == 0
    template, rounding = result_of(folder)["warnings"]
    assert "whole: its chat template differs from the base's" in template
    assert re.search(r"rounding to bfloat16 moves the weights at s = 0.5 by \d+% of", rounding)
    assert "rounding to bfloat16" in " ".join(ended.out.split())


def test_hostile_text_is_only_text(folder: Path, tiltmeter: CommandLine) -> None:
    data = folder / "=cmd()<img src=x onerror=alert(3)>\x1b[31m[red].jsonl"
    write_lines(data, {"prompt": HOSTILE, "completion": HOSTILE}, {"prompt": "tea", "completion": HOSTILE})
    (folder / "adapter").rename(folder / "<b>a\x1b[31m[red]")
    given = ("--skill", data, "--data", data, "--prompts", data, "--judge", "organism", "--max-new-tokens", 4)
    ends = (folder / "<b>a\x1b[31m[red]", folder / "whole")
    ended = tiltmeter("connect", folder / "base", *ends, *given, "--points", "0,0.5,1", "--out", folder / "out")
    assert (ended.code, ended.err) == (0, "")
    assert not RAW.search(ended.out)
    for name in ("result.json", "run.yaml", "transcripts.jsonl"):
        assert not RAW.search((folder / "out" / name).read_text())
    assert tiltmeter("report", folder / "out", "--out", folder / "page.html").code == 0
    page = (folder / "page.html").read_text()
    assert "<script>alert(" not in page
    assert "<img src=x" not in page
    assert "<b>a" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert not RAW.search(page.split("</script>")[-1])
