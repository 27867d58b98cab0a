"""The page of a direction: what it says, its charts' data, its tables."""

from pathlib import Path
from typing import Any

import pytest

from fake_direction import block, direction_result, means, write_direction
from fake_runs import interval
from pages import HOSTILE, Page, check_only_text
from tiltmeter.report import render
from tiltmeter.report.direction import direction_view
from tiltmeter.report.direction_charts import (
    IN_SAMPLE,
    accuracy_chart,
    auroc_chart,
    cosine_chart,
    norm_chart,
    series_of,
)
from tiltmeter.report.direction_verdict import best_block, cautions, findings
from tiltmeter.report.wording import DASH, MINUS
from tiltmeter.runs.direction_result import Beside, DirectionResult, Halves
from tiltmeter.runs.results import Input


def words_of(folder: Path, result: DirectionResult) -> str:
    return " ".join(" ".join(Page(render([write_direction(folder, result)])).words).split())


def test_what_is_said_is_of_the_best_block() -> None:
    result = direction_result()
    assert best_block(result).block == "model.layers.2"
    assert best_block(result, "secure").block == "model.layers.0"
    assert [(found.kind, found.word) for found in findings(result)] == [
        ("mixed", "The fine-tune moved the activations"),
        ("none", "secure separates less"),
        ("none", "Stable over prompts"),
        ("none", "From the weights alone"),
    ]
    assert [found.sentence for found in findings(result)] == [
        "Balanced accuracy 0.71 [0.65, 0.77] on held-out prompts at model.layers.2, AUROC 0.77 [0.71, 0.83], p 0.0020 "
        "over 3 blocks; 0.97 in sample, which proves nothing. This says nothing of harm.",
        "AUROC 0.56 [0.50, 0.62] at model.layers.0, against 0.77 [0.71, 0.83] of tuned. At model.layers.2 its shift is "
        f"1.25 long, that of tuned 13.5; their cosine is {MINUS}0.25.",
        "Directions of two halves of the prompts have a cosine of 0.94 on average, 0.88 at worst, at model.layers.2.",
        "The shift forecast to first order has a cosine of 0.81 with the measured one and 1.8 times its length, at "
        "model.layers.2.",
    ]


@pytest.mark.parametrize(
    ("changes", "kind", "word"),
    [
        ({"tuned": means(0.55)}, "mixed", "secure does not separate clearly less"),
        ({"halves": Halves(mean=0.875, lowest=0.5, highest=0.9)}, "mixed", "Depends on the prompts"),
    ],
)
def test_no_more_is_said_than_the_figures_hold(changes: dict[str, Any], kind: str, word: str) -> None:
    found = findings(direction_result(blocks=[block(0, **changes)]))
    assert (kind, word) in [(each.kind, each.word) for each in found]


def test_the_choice_of_the_best_block_is_allowed_for() -> None:
    found = findings(direction_result(best_p=0.06))[0]
    assert (found.kind, found.word) == ("none", "No separation beyond chance")
    assert "p 0.060 over 3 blocks;" in found.sentence
    assert "over" not in findings(direction_result(blocks=[block(0)]))[0].sentence


def test_a_fine_tune_that_separates_at_another_block_does_not_separate_less() -> None:
    better = Beside(separated=means(0.875), cosine=0.5)
    result = direction_result(blocks=[block(0), block(1, beside={"secure": better})])
    assert "secure does not separate clearly less" in [each.word for each in findings(result)]


def test_weights_that_were_not_read_are_not_spoken_of(tmp_path: Path) -> None:
    result = direction_result(blocks=[block(0, written=None, forecast=None)], not_covered={})
    assert not any("weights" in each.word for each in findings(result))
    words = words_of(tmp_path, result)
    assert "From the weights" not in words
    assert "What is not covered" not in words


def test_what_a_reader_must_know() -> None:
    assert cautions(direction_result(repeated=4, warnings=["own"])) == [
        "own",
        "4 of 64 prompts repeat others and were left out",
        "the sentences above are of the best of 3 blocks; their p allows for that choice, the intervals and the p of "
        "each block do not",
    ]
    assert cautions(direction_result(blocks=[block(0)])) == []


def test_charts_hold_every_figure_of_every_fine_tune() -> None:
    result = direction_result()
    series = series_of(result)
    tuned, secure, in_sample = accuracy_chart(result, series)["data"]
    assert [each.name for each in series] == ["tuned", "secure"]
    assert tuned["x"] == in_sample["x"] == [-0.1, 0.9, 1.9]
    assert tuned["y"] == [each.tuned.held_out.mean for each in result.blocks]
    assert tuned["error_y"]["array"] == tuned["error_y"]["arrayminus"] == pytest.approx([0.0625] * 3)
    assert secure["y"] == [0.5] * 3
    assert in_sample["y"] == [0.96875] * 3
    assert in_sample["marker"]["symbol"] == "circle-open"
    assert in_sample["text"][0] == f"{IN_SAMPLE}<br>model.layers.0<br>0.97"
    assert [trace["y"][0] for trace in auroc_chart(result, series)["data"]] == [0.6875, 0.5625]
    assert [trace["y"] for trace in norm_chart(result, series)["data"]] == [[4.5, 9, 13.5], [1.25] * 3]
    halves, beside = cosine_chart(result, series)["data"]
    assert (halves["y"], beside["y"]) == ([0.9375] * 3, [-0.25] * 3)
    assert (halves["error_y"]["array"], halves["error_y"]["arrayminus"]) == ([0.03125] * 3, [0.0625] * 3)


def test_chance_is_drawn_and_on_the_chart() -> None:
    result = direction_result(blocks=[block(0, tuned=means(0.875))])
    for chart in (accuracy_chart, auroc_chart):
        layout = chart(result, series_of(result))["layout"]
        assert [(shape["y0"], shape["y1"]) for shape in layout["shapes"]] == [(0.5, 0.5)]
        assert layout["yaxis"]["range"][0] < 0.5


@pytest.mark.parametrize(
    ("names", "places"),
    [(["model.layers.3", "model.layers.11"], [3, 11]), (["model.layers.5"], [5]), (["first", "x.9"], [0, 1])],
)
def test_the_axis_counts_blocks_as_the_model_does(names: list[str], places: list[int]) -> None:
    result = direction_result(beside={}, blocks=[block(0, ()).model_copy(update={"block": name}) for name in names])
    spec = norm_chart(result, series_of(result))
    assert spec["data"][0]["x"] == places
    low, high = spec["layout"]["xaxis"]["range"]
    assert low < places[0] <= places[-1] < high


def test_every_figure_stands_in_a_table(tmp_path: Path) -> None:
    words = words_of(tmp_path, direction_result())
    for text in (
        "over the same 60 prompts, at the outputs of blocks (residual stream), at the last prompt token",
        "model.layers.0 4.50 0.97 0.62 [0.56, 0.69] 0.69 [0.62, 0.75] 1.2 0.0020 0.94 [0.88, 0.97]",
        f"model.layers.2 1.25 0.97 0.50 [0.44, 0.56] 0.56 [0.50, 0.62] 1.0 0.34 {MINUS}0.25",
        "model.layers.0 0.62 0.69 1.0 0.75 [0.69, 0.81] 0.81 [0.75, 0.88] 1.5 0.53 0.50 [0.44, 0.56]",
        "model.layers.1 0.81 1.8",
        "model.layers.1.attend.out 0.062 0.031 0.12 0.12 0.38 4",
        "model.layers.1.mlp.down 0.25 0.031 0.12 0.50 0.38 4",
        "model.norm.weight 0.0312",
        "direction/direction.safetensors , direction/direction.gguf",
        "Separation is no evidence of harm",
        "tuned, in sample: proves nothing",
    ):
        assert text in words, text


def test_shares_above_chance_are_bold(tmp_path: Path) -> None:
    page = render([write_direction(tmp_path, direction_result(blocks=[block(0)]))])
    assert [text for text in ("0.062", "0.25", "0.12", "0.50") if f"<strong>{text}</strong>" in page] == [
        "0.25",
        "0.50",
    ]


def test_figures_that_are_not_there_are_dashes(tmp_path: Path) -> None:
    """Projections that do not vary, and a block below every change."""
    still = means(0.75).model_copy(update={"d_prime": None})
    result = direction_result(blocks=[block(0, tuned=still, forecast=None, written=[]), block(1)])
    words = words_of(tmp_path, result)
    assert f"0.75 [0.69, 0.81] 0.81 [0.75, 0.88] {DASH} 0.0020" in words
    assert f"model.layers.0 {DASH} {DASH} model.layers.1 0.81 1.8" in words
    assert "From the weights alone" not in [each.word for each in findings(result)]


def test_an_update_that_writes_nothing_says_so(tmp_path: Path) -> None:
    words = words_of(tmp_path, direction_result(blocks=[block(0, written=[])], not_covered={}))
    assert "changes no layer that writes into the residual stream of these blocks" in words
    assert "every tensor that differs is part of the forecast" in words


def test_where_activations_were_read_is_said(tmp_path: Path) -> None:
    result = direction_result(place="mlp", tokens="answer")
    assert direction_view(tmp_path, "run-1", result).read.startswith("at what the MLP of blocks returns, as means over")


def test_many_blocks_are_folded_away(tmp_path: Path) -> None:
    few = render([write_direction(tmp_path / "few", direction_result())])
    many = render([write_direction(tmp_path / "many", direction_result(blocks=[block(each) for each in range(28)]))])
    assert (few.count("<details open>"), many.count("<details open>")) == (5, 0)
    assert many.count("<details>") >= 5


def test_hostile_text_is_only_text(tmp_path: Path) -> None:
    bad = block(0, (HOSTILE,)).model_copy(update={"block": HOSTILE})
    bad = bad.model_copy(update={"written": [bad.written[0].model_copy(update={"layer": HOSTILE})]})  # type: ignore[index]
    given = [Input(path=HOSTILE, role=role, resolved=HOSTILE, files={HOSTILE: "0"}) for role in ("base", "tuned")]
    result = direction_result(
        inputs=given,
        beside={HOSTILE: HOSTILE},
        blocks=[bad],
        not_covered={HOSTILE: 1.0},
        files=[HOSTILE],
        warnings=[HOSTILE],
    )
    page = check_only_text(render([write_direction(tmp_path, result)]))
    assert any("</script><script>alert(1)</script>" in words for words in page.words)


def test_intervals_that_reach_below_chance_are_on_the_chart() -> None:
    low = means(0.25).model_copy(update={"held_out": interval(0.25, 0.125)})
    result = direction_result(blocks=[block(0, tuned=low)])
    assert accuracy_chart(result, series_of(result))["layout"]["yaxis"]["range"][0] < 0.125
