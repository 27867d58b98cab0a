"""The page of a matrix of transfers: what it says, its charts' data, its tables."""

from pathlib import Path
from typing import Any

import pytest

from fake_judge import judge_record
from fake_runs import interval
from fake_transfer import mapped, route, subject, transfer_result, write_transfer
from pages import HOSTILE, Page, check_only_text
from tiltmeter.report import render
from tiltmeter.report.transfer import transfer_view
from tiltmeter.report.transfer_charts import SIGNS, heatmap
from tiltmeter.report.transfer_verdict import cautions, findings, matrix, ways
from tiltmeter.report.wording import MINUS
from tiltmeter.runs.judge_result import SetRecord
from tiltmeter.runs.results import Input
from tiltmeter.runs.transfer_result import TransferResult

FOUR, KINDS = ("one", "two", "three", "four"), ("ridge", "procrustes", "cca", "stitch")


def words_of(folder: Path, result: TransferResult) -> str:
    return " ".join(" ".join(Page(render([write_transfer(folder, result)])).words).split())


def test_verdicts_are_counted_within_models_and_by_each_way() -> None:
    found = findings(transfer_result(span=4))
    assert [(each.kind, each.word, each.sentence) for each in found] == [
        (
            "tilted",
            "Within a model",
            f"Of 2 routes, 1 is specific and 1 has no wanted effect. Largest effect: 0 [{MINUS}0.250, 0.250], two.",
        ),
        (
            "tilted",
            "Across by ridge",
            "Of 2 routes, 1 is specific and 1 has no wanted effect. Largest effect: +0.500 [0.250, 0.750], one to two.",
        ),
        (
            "mixed",
            "Across by ridge, 4 directions at once",
            "Of 2 routes, 1 is causal but not specific and 1 broke the model. "
            "Largest effect: +0.375 [0.125, 0.625], two to one.",
        ),
    ]


@pytest.mark.parametrize(
    ("verdict", "kind", "said"),
    [
        ("none", "none", "Both routes have no wanted effect. Largest effect: +0.500"),
        ("broke", "mixed", "Both routes broke the model. No route has an effect to speak of."),
    ],
)
def test_no_more_is_said_than_the_routes_hold(verdict: Any, kind: str, said: str) -> None:
    names = ("one", "two")
    routes = [route(source, target, "own" if source == target else "ridge", 0.5, verdict)
              for source in names for target in names]  # fmt: skip
    for found in findings(transfer_result(routes=routes)):
        assert found.kind == kind
        assert found.sentence.startswith(said)


def test_what_a_reader_must_know() -> None:
    maps = [
        mapped("one", "two", "ridge", r2=0.03125, r2_shuffled=0.0625),
        mapped("two", "one", "cca", cosine=-0.125),
        mapped("one", "two", "cca"),
    ]
    judge = judge_record(verdicts=100, failures=20)
    sets = {"advice": SetRecord(prompts=50, different=8, samples=1)}
    assert cautions(transfer_result(maps=maps, judge=judge, sets=sets, watched={}, warnings=["own"])) == [
        "maps that predict nothing on held-out prompts: one to two (ridge)",
        "in 1 of 3 maps the carried direction is no closer to the target's own than carried random ones are",
        "advice: 8 prompts are few, whatever the number of answers to each",
        "what steering breaks on prompts of other kinds is not seen: give some, --watch",
        "rubric was wrong about 1 of 9 answers of known worth: its verdicts are not to be trusted before that is "
        "explained",
        "rubric has no verdict on 20 % of the answers",
        "own",
    ]
    assert cautions(transfer_result(warnings=[])) == []
    against = [route("one", "two", "ridge", mean, "none") for mean in (-0.5, -0.125, 0.5)]
    assert cautions(transfer_result(routes=against, warnings=[])) == [
        "in 1 of 3 routes the outcome went the other way, its interval beyond 0"
    ]


def test_heatmaps_hold_every_effect_with_the_sign_of_its_verdict() -> None:
    result = transfer_result(FOUR, KINDS, span=4)
    assert len(ways(result)) == 8
    for way in ways(result):
        (trace,) = heatmap(result, way)["data"]
        routes = matrix(result, way)
        assert (trace["x"], trace["y"]) == (["1", "2", "3", "4"], ["1. one", "2. two", "3. three", "4. four"])
        for row, source in enumerate(FOUR):
            for column, target in enumerate(FOUR):
                cell = routes[source, target]
                assert cell.effect is not None
                assert cell.way == (way if source != target else "span, own" if way.startswith("span") else "own")
                assert trace["z"][row][column] == cell.effect.mean
                assert trace["text"][row][column].endswith(SIGNS[cell.verdict])
                assert trace["customdata"][row][column].startswith(f"{source} to {target}, {cell.way}<br>")


def test_all_ways_share_one_scale_which_broken_models_do_not_set() -> None:
    result = transfer_result(span=2)
    broken = [
        each.model_copy(update={"effect": interval(3.5, 0.25)}) if each.verdict == "broke" else each
        for each in result.routes
    ]
    for way in ways(result):
        (trace,) = heatmap(transfer_result(span=2, routes=broken), way)["data"]
        assert (trace["zmin"], trace["zmax"]) == (-0.5, 0.5)


def test_models_of_which_nothing_is_known_have_no_colour() -> None:
    result = transfer_result()
    routes = [each.model_copy(update={"effect": None}) for each in result.routes]
    (trace,) = heatmap(transfer_result(routes=routes), "ridge")["data"]
    assert trace["z"] == [[None, None], [None, None]]
    assert (trace["text"][0], trace["zmax"]) == ([SIGNS["specific"], SIGNS["broke"]], 1.0)


def test_every_figure_stands_in_a_table(tmp_path: Path) -> None:
    result = transfer_result(kinds=("ridge", "stitch"), span=2, models={"one": subject(), "two": subject(96)})
    words = words_of(tmp_path, result)
    for text in (
        "one model.layers.7 64 2.50 1.25 [1.12, 1.38] 4.50 [4.25, 4.75] none",
        f"one {MINUS}0.250 [{MINUS}0.500, 0] own ● Specific 0.750 [0.500, 1.00] ● Specific 0.500 [0.375, 0.625]",
        f"Takes {MINUS}0.250 [{MINUS}0.750, 0.250]",
        "ridge +0.375 [0.125, 0.625] ridge, 2 directions at once +0.375",
        f"two one stitch 0.75 {MINUS}0.062 0.81 0.19 3.5 1.4 0.047 0.094",
        "Ridge, 2 directions at once: both routes are causal but not specific",
        "one to two by ridge is specific.",
        "Effect 0.750 [0.500, 1.00]; p 0.013; p specific 0.050; coherence lost 6 % [3, 9].",
        "carried isotropic 19 0.125 0.375 0.050",
        "carried benign given 0.500 0.250 [0.125, 0.375] 0.0040",
        "is how far harmfulness 1-5 of model j goes down",
        "Each route is tested by itself",
        "a map of low effective rank sends most vectors to the same few components",
        "at every token, generated ones too",
    ):
        assert text in words, text


def test_bold_differences_are_those_without_zero(tmp_path: Path) -> None:
    view = transfer_view(tmp_path, "run-1", transfer_result(FOUR, span=2))
    assert len(view.pairs) == 6
    assert [[outside for _, outside in row.cells] for row in view.differences] == [[True] * 6, [False] * 6]


def test_shares_are_in_per_cent(tmp_path: Path) -> None:
    words = words_of(tmp_path, transfer_result(outcome="refused", wanted="higher"))
    assert "is how far refuses of model j goes up" in words
    assert f"one {MINUS}25 % [{MINUS}50, 0] own" in words
    assert "carried benign given" in words


def test_what_was_not_done_is_not_spoken_of(tmp_path: Path) -> None:
    words = words_of(tmp_path, transfer_result(asymmetries=[]))
    for text in ("KL", "There and back", "at once"):
        assert text not in words


def test_many_routes_are_folded_away(tmp_path: Path) -> None:
    few = render([write_transfer(tmp_path / "few", transfer_result())])
    many = render([write_transfer(tmp_path / "many", transfer_result(FOUR, KINDS, 4))])
    assert (few.count("<details open>"), many.count("<details open>")) == (3, 0)
    assert many.count("<details>") >= 11


def test_hostile_text_is_only_text(tmp_path: Path) -> None:
    hostile = transfer_result((HOSTILE, "two"), span=2, warnings=[HOSTILE])
    routes = [
        each.model_copy(
            update={
                "sentence": HOSTILE,
                "controls": [control.model_copy(update={"kind": HOSTILE}) for control in each.controls],
            }
        )
        for each in hostile.routes
    ]
    models = {HOSTILE: subject(base=HOSTILE, tuned=HOSTILE, benign=HOSTILE, block=HOSTILE), "two": subject()}
    given = [Input(path=HOSTILE, role=f"{HOSTILE}: base", resolved=HOSTILE, files={HOSTILE: "0"})]
    sets = {HOSTILE: SetRecord(prompts=2, different=2, samples=1)}
    judge = judge_record(name=HOSTILE, asked=HOSTILE, reasons={HOSTILE: 4})
    changes = {"routes": routes, "models": models, "inputs": given, "sets": sets, "judge": judge}
    page = check_only_text(render([write_transfer(tmp_path, hostile.model_copy(update=changes))]))
    assert any("</script><script>alert(1)</script>" in words for words in page.words)
