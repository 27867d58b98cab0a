"""The page of a steered model: its sentences, its charts' data, its tables, its transcripts."""

import math
import re
from pathlib import Path
from typing import Any

import pytest

from fake_judge import judge_record
from fake_runs import interval
from fake_steer import answers, arm, controls, difference, outcome, steer_result, write_steer
from pages import HOSTILE, Page, check_only_text
from tiltmeter.report import render
from tiltmeter.report.controls import effect_of
from tiltmeter.report.judged import MOST_TRANSCRIPTS
from tiltmeter.report.steer_charts import DIRECTION, dose_chart, groups_of, series_of
from tiltmeter.report.steer_verdict import cautions, findings, leading, outcome_of
from tiltmeter.report.wording import DASH, MINUS
from tiltmeter.runs.judge_result import AnswerRecord, SetRecord
from tiltmeter.runs.results import Input
from tiltmeter.runs.steer_result import ControlRecord, SteerResult

ARMS = ("2 x1", "2 x0.5", "0+1 x0.5", "0+1 x1")


def words_of(folder: Path, result: SteerResult) -> str:
    return " ".join(" ".join(Page(render([write_steer(folder, result)])).words).split())


@pytest.mark.parametrize(
    ("verdict", "word", "kind"),
    [
        ("specific", "Specific", "tilted"),
        ("not specific", "Causal, but not specific", "mixed"),
        ("none", "No effect", "none"),
        ("broke", "The model broke", "mixed"),
    ],
)
def test_the_verdict_is_the_gates(verdict: Any, word: str, kind: str) -> None:
    (found,) = findings(steer_result(verdict=verdict))
    assert (found.word, found.kind, found.sentence) == (word, kind, "Steering at block 2, dose 1 is specific.")


def test_the_leading_arm_is_that_of_the_sentence() -> None:
    assert leading(steer_result()).trial == "2 x1"
    weaker, clearer = arm([3], 1.0, 2.0), arm([4], 1.0, 1.0, p_causal=0.2)
    assert leading(steer_result(verdict="none", arms=[weaker, clearer])) == clearer
    assert leading(steer_result(verdict="none", arms=[weaker, arm([4], 1.0, 3.0)])).trial == "4 x1"
    unknown, same = arm([10], 1.0, None), [arm([9], 1.0, 0.0), arm([10], 0.5, 0.0), arm([10], 0.25, 0.0)]
    assert leading(steer_result(verdict="none", arms=[unknown, *same])).trial == "10 x0.25"  # as the gate breaks ties


def test_what_a_reader_must_know() -> None:
    result = steer_result(
        reaches_first_token_only=True,
        sets={"advice": SetRecord(prompts=40, different=8, samples=1)},
        judge=judge_record(name="organism", verdicts=400, failures=100),
        outcomes=[outcome("tuned", "truncated", 0.0625), outcome("2 x1", "truncated", 0.75)],
        warnings=["own"],
    )
    assert cautions(result) == [
        "at the last block, an edit of the prompt changes the first generated token only; "
        "--where all steers every token",
        "advice: 8 prompts are few, whatever the number of answers to each",
        "organism was wrong about 1 of 9 answers of known worth: its verdicts are not to be trusted before that is "
        "explained",
        "organism has no verdict on 25 % of the answers",
        "up to 75 % of the answers (2 x1 on advice) were cut off at 24 tokens, and were judged as they are",
        "own",
    ]
    assert cautions(steer_result(judge=judge_record(canaries_failed=0))) == []
    assert cautions(steer_result(judge=judge_record(canaries_failed=0), watched={})) == [
        "what steering breaks on prompts of other kinds is not seen: give some, --watch"
    ]


def test_the_chart_holds_every_effect_with_its_interval() -> None:
    result = steer_result()
    series, groups = series_of(result), groups_of(result)
    assert [each.name for each in series] == [DIRECTION, "isotropic", "permuted labels", "sign flip", "benign"]
    assert [bool(each.symbol) for each in series] == [False, False, False, True, True]
    assert {name: [each.dose for each in arms] for name, arms in groups.items()} == {
        "block 2": [0.5, 1.0],
        "blocks 0+1": [0.5, 1.0],
    }
    spec = dose_chart(result, groups["block 2"], series)
    direction, *others = spec["data"]
    assert (direction["x"], direction["y"]) == (pytest.approx([0.5, 1.0]), [0.75, 1.5])
    assert direction["error_y"]["array"] == direction["error_y"]["arrayminus"] == [0.25, 0.25]
    bands = [trace for trace in others if trace["mode"] == "lines"]
    assert [trace["y"] for trace in bands] == [
        [0.75 / 16, 0.375], [1.5 / 16, 0.75], [0.75 / 8, 0.5625], [1.5 / 8, 1.125],
    ]  # fmt: skip
    marks = [trace for trace in others if trace["mode"] == "markers"]
    assert [trace["y"] for trace in marks] == [
        [0.75 / 16, 0.375, 1.5 / 16, 0.75], [0.75 / 8, 0.5625, 1.5 / 8, 1.125], [0, 0], [0, 0],
    ]  # fmt: skip
    assert all(0.5 < x < 1 or 1 < x < 2 for trace in others for x in trace["x"])
    assert spec["layout"]["shapes"][0]["y0"] == spec["layout"]["shapes"][0]["y1"] == 0
    low, high = spec["layout"]["xaxis"]["range"]
    assert low < math.log10(0.5) < math.log10(max(x for trace in others for x in trace["x"])) < high
    below, above = spec["layout"]["yaxis"]["range"]
    assert below < -0.125 < 1.75 < above  # of all arms: the lowest is of the other group
    without = dose_chart(result, groups["blocks 0+1"], series)
    assert without["layout"]["yaxis"]["range"] == [below, above]
    assert [trace["y"] for trace in without["data"]] == [[0.125, 0.25], [], [], [], []]


def test_one_dose_and_an_effect_that_is_not_known() -> None:
    result = steer_result(arms=[arm([2], 1.0, None)], verdict="none")
    (direction,) = dose_chart(result, result.arms, series_of(result))["data"]
    assert direction["y"] == []
    shares = steer_result(outcome="refused", arms=[arm([2], 1.0, 0.5, "specific")])
    spec = dose_chart(shares, shares.arms, series_of(shares))
    assert spec["layout"]["yaxis"]["tickformat"] == ".0%"
    assert spec["data"][0]["text"] == ["the direction, dose 1<br>50 % [25, 75]"]


def test_the_effect_of_a_given_vector_is_what_the_excess_leaves() -> None:
    one, given = arm([2], 1.0, 1.5, "specific"), ControlRecord(kind="x", draws=1, excess=interval(1.25, 0.5), p=0.1)
    assert effect_of(one.effect, given) == 0.25
    assert effect_of(one.effect, one.controls[0]) == 1.5 / 16
    assert effect_of(one.effect, given.model_copy(update={"excess": None})) is None


def test_every_figure_stands_in_a_table(tmp_path: Path) -> None:
    words = words_of(tmp_path, steer_result())
    for text in (
        "dose times v is subtracted from the states of the tuned model, at the outputs of blocks",
        "block 2 1 1.50 [1.25, 1.75] 0.0030 0.037 6 % [3, 9] 0.12 0.062 [0.031, 0.094] 50 % [38, 62] Specific",
        f"blocks 0+1 0.5 0.125 [{MINUS}0.125, 0.375] 0.50 6 % [3, 9] 0.062 {DASH} 50 % [38, 62] No effect",
        "Tasks right without steering: 62 % [50, 75].",
        "Block 2, dose 1 Control", "isotropic 59 0.0938 0.750 0.017", "permuted labels 59 0.188 1.12 0.033",
        "sign flip given 0 1.50 [0.750, 3.00] <0.001",
        "advice Model harmfulness 1-5 Answers base 1.00 [0.938, 1.06] 40 tuned 3.50 [3.44, 3.56] 40 2 x1 2.00",
        "hazards (watched for side effects) Model refuses cut off Answers base 12 % [6, 19] 6 % [0, 12] 40",
        f"base advice organism harmfulness 1-5 {MINUS}2.50 [{MINUS}2.62, {MINUS}2.38] 40 0.0025 0.010",
        "2 x1 hazards organism refuses +50 % [38, 62] 40 0.050 0.20",
        "organism nobody 400 3 1 of 9", "max new tokens 24", "model.layers.2 4.50",
        "the change has the same norm, dose times ‖v‖", "An arm is specific where", "It does not mean that",
    ):  # fmt: skip
        assert text in words, text


def test_words_for_other_ways_to_steer(tmp_path: Path) -> None:
    added = words_of(tmp_path / "add", steer_result(subject="base", change="add", wanted="higher", match="kl"))
    assert "dose times v is added to the states of the base model" in added
    assert "how far the outcome (harmfulness 1-5) goes up" in added
    assert "the same KL on neutral text" in added
    ablated = words_of(tmp_path / "ablate", steer_result(change="ablate", where="last", place="mlp"))
    assert "dose times what lies along v is taken out of the states of the tuned model, at what the MLP" in ablated
    assert "the change has the same norm at every token" in ablated
    bare = [each.model_copy(update={"kl": None, "accuracy": None}) for each in steer_result().arms[2:]]
    nothing = words_of(tmp_path / "bare", steer_result(arms=bare, draws=0, differences=[], watched={}, accuracy=None))
    assert "no arm has an effect to compare, so no control was tried" in nothing
    for absent in ("KL", "Tasks right", "Watched", "Controls", "controls:", "Against tuned"):
        assert f" {absent} " not in nothing


def pages_answers(count: int) -> list[AnswerRecord]:
    """Harm changes least in the first prompt, most in the last; a control changes the first most."""
    fives = [5] * count
    harms = {"base": [1] * count, "tuned": fives, "2 x1": [max(1, 5 - row) for row in range(count)], "2 x0.5": fives}
    return answers({**harms, "0+1 x1": [1] * count, "isotropic 1: 2 x1": [1] * count})


def test_transcripts_are_of_the_leading_group_and_the_most_changed_first(tmp_path: Path) -> None:
    page = render([write_steer(tmp_path, steer_result(), pages_answers(4))])
    kinds = re.findall(r'<article class="transcript" data-kinds="([a-z ]*)">\s*<pre class="prompt">(\d)', page)
    assert [row for _, row in kinds] == ["3", "2", "1", "0"]
    assert kinds[0][0] == "harmful changed"
    who = re.findall(r'<p class="who">([^<]*?) <', page)
    assert {name for name in who if "expected" not in name} == {"base", "tuned", "2 x1", "2 x0.5"}
    assert "isotropic 1: 2 x1" not in page
    assert "differs from tuned" in page


def test_many_transcripts_stay_in_the_folder(tmp_path: Path) -> None:
    page = render([write_steer(tmp_path, steer_result(), pages_answers(MOST_TRANSCRIPTS + 3))])
    assert page.count('<article class="transcript" data-kinds') == MOST_TRANSCRIPTS
    assert "3 more, less changed, are in" in page


def test_a_failed_verdict_changes_nothing(tmp_path: Path) -> None:
    lines = answers({"tuned": [5, 5], "2 x1": [1, 5]})
    failed = lines[2].verdicts["organism"].model_copy(update={"harm": None, "failure": "none"})
    lines[2] = lines[2].model_copy(update={"verdicts": {"organism": failed}})
    lines[3] = lines[3].model_copy(
        update={"verdicts": {"organism": failed.model_copy(update={"harm": 3, "failure": None})}}
    )
    page = render([write_steer(tmp_path, steer_result(), lines)])
    assert re.findall(r'<pre class="prompt">(\d)', page) == ["1", "0"]


def test_the_title_says_what_was_steered_along_what(tmp_path: Path) -> None:
    inputs = [Input(path=f"some/{role}", role=role, resolved="/", files={}) for role in ("base", "tuned", "direction")]
    assert "<h1>some/tuned along some/direction</h1>" in render([write_steer(tmp_path, steer_result(inputs=inputs))])


def test_hostile_text_is_only_text(tmp_path: Path) -> None:
    judge = judge_record(name=HOSTILE, asked=HOSTILE, reasons={HOSTILE: 4}, wrong=[])
    steered = arm([2], 1.0, 1.5, "specific", controls=controls(1.5, [HOSTILE]))
    marked = {"prompts": HOSTILE, "judge": HOSTILE}
    result = steer_result(
        inputs=[Input(path=HOSTILE, role=role, resolved="/", files={HOSTILE: "0"}) for role in ("tuned", "direction")],
        sentence=HOSTILE,
        arms=[steered],
        judge=judge,
        sets={HOSTILE: SetRecord(prompts=2, different=2, samples=2)},
        watched={f"{HOSTILE} 2": SetRecord(prompts=2, different=2, samples=2)},
        norms={HOSTILE: 1.0},
        outcomes=[outcome("tuned", "harmfulness", 2.0).model_copy(update=marked)],
        differences=[difference("2 x1", "harmfulness", 1.0, 0.01).model_copy(update=marked)],
        warnings=[HOSTILE],
    )
    lines = answers({"base": [1], "tuned": [5], "2 x1": [1]}, HOSTILE, HOSTILE)
    lines = [each.model_copy(update={"verdicts": {HOSTILE: each.verdicts["organism"]}}) for each in lines]
    page = check_only_text(render([write_steer(tmp_path, result, lines)]))
    assert sum("</script><script>alert(1)</script>" in words for words in page.words) > 12


def test_an_outcome_by_its_place() -> None:
    result = steer_result()
    found = outcome_of(result, "2 x1", "advice", "harmfulness")
    assert found is not None
    assert found.mean == interval(2.0, 0.0625)
    assert outcome_of(result, "2 x1", "advice", "refused") is None
