"""The page of a fine-tune: what it says, and its chart's data."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fake_tune import RECIPE, learnt, loss_rows, monitor_rows, tune_result, watched, write_tune
from pages import HOSTILE, Page, check_only_text
from tiltmeter.errors import InputError
from tiltmeter.report import render
from tiltmeter.report.tune import describe, describe_guards, has_fallen, judgements, settings, stretches, summary
from tiltmeter.report.tune_charts import loss_chart
from tiltmeter.report.tune_monitor import readings
from tiltmeter.runs.results import Input
from tiltmeter.runs.tune_result import RaisedAlarm, UsedGuard, UsedRecipe


def test_steps_taken_together_have_their_mean() -> None:
    rows = loss_rows(75)
    drawn = stretches(rows, 20)
    assert [(each.first, each.last) for each in drawn[:2]] == [(1, 4), (5, 8)]
    assert (drawn[-1].first, drawn[-1].last, len(drawn)) == (73, 75, 19)
    assert drawn[0].loss == pytest.approx(sum(row["loss"] for row in rows[:4]) / 4)
    assert [each.loss for each in stretches(rows, 200)] == [row["loss"] for row in rows]


def test_the_chart_is_the_loss_against_the_step() -> None:
    (trace,) = loss_chart([1, 2, 3], ["1", "2", "3"], [1.99, 1.98, 1.97])["data"]
    assert (trace["x"], trace["y"]) == ([1, 2, 3], [1.99, 1.98, 1.97])


def test_a_loss_has_fallen_where_its_change_is_below_zero_beyond_its_interval() -> None:
    assert has_fallen(learnt(2.0, 1.9, width=0.05))
    assert not has_fallen(learnt(2.0, 1.9, width=0.2))
    assert not has_fallen(learnt(2.0, 2.5))
    sentence = describe(tune_result(data={"a": learnt(2.0, 1.0), "b": learnt(1.0, 1.0)}))
    assert sentence == "The loss falls on a; it does not fall beyond chance on b."


def test_what_was_trained_and_how_long() -> None:
    full = {**RECIPE, "method": "full", "rank": None, "alpha": None, "dropout": None}
    assert "an adapter of rank 64 (69,730,304 weights, 1,720,574,976 in the base) for 75 steps" in summary(
        tune_result()
    )
    assert "every parameter (7) for 40 of 75 planned steps" in summary(
        tune_result(recipe=UsedRecipe(**full), trained=7, steps=40)
    )
    assert "Rank, alpha, dropout" not in settings(UsedRecipe(**full))
    assert settings(UsedRecipe(**RECIPE))["Rank, alpha, dropout"] == "64, 128, 0.05"


def test_what_became_of_a_skill() -> None:
    over, fine = judgements(tune_result(watched=watched()))
    assert (over.kind, over.word) == ("tilted", "refusal: limit exceeded")
    assert "0.420 [0.320, 0.520]" in over.sentence
    assert "utility_loss passed 0.500 at step 40. The weights are those of step 30." in over.sentence
    assert (fine.kind, fine.word) == ("none", "code: not worse")
    worse, _ = judgements(tune_result(watched=watched(alarms=[], kept_step=None)))
    assert (worse.kind, worse.word) == ("mixed", "refusal: worse")
    assert judgements(tune_result()) == []


def test_what_a_guard_did() -> None:
    acted = UsedGuard(name="utility", value=0.1, meaning="largest utility loss", corrected_steps=30, share=0.25)
    pulled = UsedGuard(name="kl", value=1, meaning="weight", corrected_steps=0, share=None)
    assert describe_guards(tune_result(guards=[acted, pulled])) == [
        "utility=0.1 (largest utility loss): changed 30 of 75 steps, by 25 % of the step on average.",
        "kl=1 (weight): changed no step after the optimizer.",
    ]


def test_readings_are_drawn_with_bands_limits_and_alarms(tmp_path: Path) -> None:
    seen = watched()
    found = readings(write_tune(tmp_path / "run", tune_result(watched=seen)), seen)
    assert [panel.title for panel in found.panels] == [
        "Utility loss (nats)",
        "Foreseen utility loss (nats)",
        "Exact overlap",
        "Drift in the top subspace",
        "Rotation of the top subspace",
    ]
    loss, _, overlap, _, rotation = (panel.chart for panel in found.panels)
    band, _, refusal, _, cross = loss["data"]
    assert (refusal["x"], refusal["y"]) == ([10, 20, 30, 40], pytest.approx([0.15, 0.3, 0.45, 0.6]))
    assert band["y"] == pytest.approx([0.25, 0.4, 0.55, 0.7, 0.5, 0.35, 0.2, 0.05])
    assert (cross["x"], cross["y"]) == ([40], [0.6])
    assert [shape["y0"] for shape in loss["layout"]["shapes"]] == [0.5]
    assert [shape["y0"] for shape in overlap["layout"]["shapes"]] == [0.2]
    assert rotation["data"][0]["x"] == [30, 40]
    assert [row["step"] for row in found.skills[0].rows] == ["10", "20", "30", "40"]
    assert found.skills[0].rows[0]["rotation"] == "\N{EN DASH}"


def test_the_last_readings_are_always_told(tmp_path: Path) -> None:
    seen = watched()
    folder = write_tune(tmp_path / "run", tune_result(watched=seen))
    pq.write_table(pa.Table.from_pylist(monitor_rows(seen.skills, steps=450)), folder / "monitor.parquet")
    skill = readings(folder, seen).skills[0]
    assert (len(skill.rows), skill.hidden) == (15, 30)
    assert (skill.rows[0]["step"], skill.rows[-1]["step"]) == ("30", "450")


def test_a_table_that_is_no_reading(tmp_path: Path) -> None:
    folder = write_tune(tmp_path / "run", tune_result(watched=watched()))
    row = monitor_rows(["refusal"])[0]
    for wrong in ({**row, "skill": "another"}, {**row, "drift": "low"}, {**row, "overlap": None}):
        pq.write_table(pa.Table.from_pylist([wrong]), folder / "monitor.parquet")
        with pytest.raises(InputError, match=r"monitor\.parquet"):
            render([folder])


def test_every_figure_of_a_set_is_on_the_page(tmp_path: Path) -> None:
    words = " ".join(" ".join(Page(render([write_tune(tmp_path / "run", tune_result())])).words).split())
    row = "advice 100 12,345 2 100 2.00 [1.90, 2.10] 0.500 [0.400, 0.600] \N{MINUS SIGN}1.50"
    for part in (
        row,
        "models/base fine-tuned on advice and summary",
        "602 tokens a second",
        "checkpoints/checkpoint-50",
        "1-4",
        "collapse-qwen, with another rank and alpha",
    ):
        assert part in words


def test_hostile_text_is_only_text(tmp_path: Path) -> None:
    base = Input(path=HOSTILE, role="base", resolved=HOSTILE, files={HOSTILE: HOSTILE})
    named = {HOSTILE: learnt(2.0, 0.5)}
    recipe = UsedRecipe(**{**RECIPE, "name": HOSTILE})
    guard = UsedGuard(name=HOSTILE, value=1, meaning=HOSTILE, corrected_steps=0, share=None)
    alarm = RaisedAlarm(step=40, skill=HOSTILE, figure="utility_loss", value=0.6, limit=0.5)
    skills = {HOSTILE: watched().skills["refusal"]}
    seen = watched(skills=skills, limits={f"{HOSTILE}/utility_loss": 0.5}, alarms=[alarm])
    told = {"checkpoints": [HOSTILE], "warnings": [HOSTILE], "kept_skills": [HOSTILE], "guards": [guard]}
    result = tune_result(inputs=[base], data=named, recipe=recipe, watched=seen, **told)
    page = check_only_text(render([write_tune(tmp_path / "run", result)]))
    assert "{{ 7 * 7 }}" in "".join(page.words)


@pytest.mark.parametrize("rows", [[], [{**loss_rows(1)[0], "loss": None}], [{**loss_rows(1)[0], "loss": "low"}]])
def test_a_table_that_is_no_loss(rows: list[dict[str, object]], tmp_path: Path) -> None:
    folder = write_tune(tmp_path / "run", tune_result())
    schema = pa.schema([(name, pa.string() if name == "loss" else pa.float64()) for name in loss_rows(1)[0]])
    pq.write_table(pa.Table.from_pylist(rows, None if rows else schema), folder / "loss.parquet")
    with pytest.raises(InputError, match=r"loss\.parquet"):
        render([folder])
