"""The page of a fine-tune: what it says, and its chart's data."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fake_tune import RECIPE, learnt, loss_rows, tune_result, write_tune
from pages import HOSTILE, Page, check_only_text
from tiltmeter.errors import InputError
from tiltmeter.report import render
from tiltmeter.report.tune import describe, has_fallen, loss_chart, settings, stretches, summary
from tiltmeter.runs.results import Input
from tiltmeter.runs.tune_result import UsedRecipe


def test_steps_taken_together_have_their_mean() -> None:
    rows = loss_rows(75)
    drawn = stretches(rows, 20)
    assert [(each.first, each.last) for each in drawn[:2]] == [(1, 4), (5, 8)]
    assert (drawn[-1].first, drawn[-1].last, len(drawn)) == (73, 75, 19)
    assert drawn[0].loss == pytest.approx(sum(row["loss"] for row in rows[:4]) / 4)
    assert [each.loss for each in stretches(rows, 200)] == [row["loss"] for row in rows]


def test_the_chart_is_the_loss_against_the_step() -> None:
    (trace,) = loss_chart(stretches(loss_rows(3), 200))["data"]
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
    assert "rank, alpha, dropout" not in settings(UsedRecipe(**full))
    assert settings(UsedRecipe(**RECIPE))["rank, alpha, dropout"] == "64, 128, 0.05"


def test_every_figure_of_a_set_is_on_the_page(tmp_path: Path) -> None:
    words = " ".join(" ".join(Page(render([write_tune(tmp_path / "run", tune_result())])).words).split())
    row = "advice 100 12,345 2 2.00 [1.90, 2.10] 0.500 [0.400, 0.600] \N{MINUS SIGN}1.50"
    for part in (row, "models/base fine-tuned", "602 tokens a second", "checkpoints/checkpoint-50", "1-4"):
        assert part in words


def test_hostile_text_is_only_text(tmp_path: Path) -> None:
    base = Input(path=HOSTILE, role="base", resolved=HOSTILE, files={HOSTILE: HOSTILE})
    named = {HOSTILE: learnt(2.0, 0.5)}
    recipe = UsedRecipe(**{**RECIPE, "name": HOSTILE})
    result = tune_result(inputs=[base], data=named, recipe=recipe, checkpoints=[HOSTILE], warnings=[HOSTILE])
    page = check_only_text(render([write_tune(tmp_path / "run", result)]))
    assert "{{ 7 * 7 }}" in "".join(page.words)


@pytest.mark.parametrize("rows", [[], [{**loss_rows(1)[0], "loss": None}], [{**loss_rows(1)[0], "loss": "low"}]])
def test_a_table_that_is_no_loss(rows: list[dict[str, object]], tmp_path: Path) -> None:
    folder = write_tune(tmp_path / "run", tune_result())
    schema = pa.schema([(name, pa.string() if name == "loss" else pa.float64()) for name in loss_rows(1)[0]])
    pq.write_table(pa.Table.from_pylist(rows, None if rows else schema), folder / "loss.parquet")
    with pytest.raises(InputError, match=r"loss\.parquet"):
        render([folder])
