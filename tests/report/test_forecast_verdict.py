"""The words of a forecast are never more certain than its figures."""

from typing import Any

import pytest

from fake_forecast import PLAN, curve, data_forecast, forecast_result, rolled, skill_forecast
from tiltmeter.report.forecast_verdict import (
    Outlook,
    forecast_cautions,
    judge_forecast,
    leading,
    outlooks,
    plan_sentence,
    steps,
)
from tiltmeter.runs.forecast_result import Alarm, Condition, DataForecast, ForecastResult, SkillForecast


def result_of(**data: DataForecast) -> ForecastResult:
    """One skill; the data sets rank as they are given."""
    return forecast_result(skills={"refusal": SkillForecast(examples=64, data=data, ranking=list(data))})


def sentence(**data: DataForecast) -> str:
    return judge_forecast(result_of(**data), "refusal").sentence


def entry(loss: float, trusted: float = 60.0, held: float | None = None, **changes: Any) -> DataForecast:
    """No roll-out and no limit unless asked for."""
    return data_forecast(loss, None, **{"forecast": curve(loss, trusted, held), "roll_out": None, **changes})


def look(figures: DataForecast) -> Outlook:
    return Outlook("x", figures, PLAN)


def test_trusted_harm_is_said_without_reserve() -> None:
    text = sentence(poison=entry(0.5), harmless=entry(0.01))
    assert text == (
        "Of 2 data sets, poison is forecast to do the most harm: a utility loss of 0.50 [0.40, 0.63] nats per example "
        "at step 60, the planned end. The forecast of poison holds together to the planned end."
    )


def test_past_the_trusted_step_the_curve_is_an_extrapolation() -> None:
    text = sentence(poison=entry(0.5, trusted=15.0))
    assert "can be trusted up to step 15 of 60 (25 %); beyond, it is an extrapolation." in text
    assert "--roll-out 60" in text
    assert "stands still" not in text
    assert "all of it is an extrapolation" in sentence(poison=entry(0.5, trusted=0.0))


def test_a_forecast_that_stands_still_says_that_the_truth_may_be_worse() -> None:
    result = result_of(low=entry(0.5), poison=entry(6.0, trusted=15.0, held=30.0))
    assert "the true loss may be far higher" in sentence(poison=entry(6.0, trusted=15.0, held=30.0))
    notes = " ".join(forecast_cautions(result))
    assert "stands still, and true loss and rank may be far higher, for poison (from step 30)" in notes
    assert "is an extrapolation for poison (trusted to step 15)" in notes


def test_who_is_worst_where_all_can_be_trusted_is_named_beside_the_end() -> None:
    text = sentence(low=entry(0.5), poison=entry(6.0, trusted=15.0, held=30.0))
    assert "Of 2 data sets, low is forecast to do the most harm" in text
    assert "poison is the worst at step 15, the last up to which all of the forecasts can be trusted: 0.094" in text


def test_intervals_that_meet_leave_the_order_open() -> None:
    assert "meets that of b: their order is not certain" in sentence(a=entry(0.5), b=entry(0.45), c=entry(0.01))
    assert "order" not in sentence(a=entry(0.5), c=entry(0.01))


def test_harm_that_may_be_none_is_not_claimed() -> None:
    assert "its harm cannot be told from zero" in sentence(a=entry(0.001), b=entry(0.0001))
    assert "none is forecast to do harm" in sentence(a=entry(-0.5), b=entry(-0.9))
    assert sentence(a=entry(-0.5)).startswith(
        "a is not forecast to do harm: for a, a utility loss of \N{MINUS SIGN}0.50"
    )


def test_an_alarm_says_where_it_rests_on_an_extrapolation() -> None:
    told = data_forecast(6.0, 0.4, forecast=curve(6.0), roll_out=None)
    guessed = data_forecast(6.0, 0.4, forecast=curve(6.0, trusted=15.0), roll_out=None)
    assert "poison crosses the limit of 0.4 at step 22 [20, 24]. " in sentence(poison=told)
    assert "at step 22 [20, 24], which is extrapolated." in sentence(poison=guessed)


def test_no_crossing_excludes_nothing_past_the_trusted_step() -> None:
    safe = data_forecast(0.1, 0.4, forecast=curve(0.1), roll_out=None)
    unsure = data_forecast(0.1, 0.4, forecast=curve(0.1, trusted=30.0), roll_out=None)
    assert "is not forecast to cross the limit of 0.4 within the plan." in sentence(a=safe)
    assert "within the plan, but past step 30 that cannot be excluded." in sentence(a=unsure)


def test_a_set_that_crosses_before_the_worst_is_named() -> None:
    slow = data_forecast(6.0).model_copy(update={"alarm": Alarm(limit=0.4, step=50, low=40, high=60)})
    fast = data_forecast(5.0, 0.4)
    assert "fast crosses it first, at step 24" in sentence(slow=slow, fast=fast)
    assert look(slow).alarm == "50 [40, 60+]"


def test_the_run_itself_is_reported_beside_the_limit() -> None:
    assert "the run itself has a utility loss of 0.42 [0.36, 0.49] at step 24, above the limit" in sentence(
        poison=data_forecast(6.0, 0.4)
    )
    assert "at step 24, below the limit" in sentence(poison=data_forecast(0.5, 0.4))
    assert "--roll-out" not in sentence(poison=entry(6.0, trusted=3.75, roll_out=rolled(6.0, 60)))


@pytest.mark.parametrize(
    ("figures", "kind", "word"),
    [
        (entry(0.5), "tilted", "harm forecast"),
        (entry(0.001), "none", "no harm found"),
        (entry(0.001, trusted=30.0), "mixed", "uncertain"),
        (entry(0.5, trusted=1.875), "mixed", "uncertain"),
        (entry(0.001, trusted=1.875, roll_out=rolled(0.5)), "tilted", "harm forecast"),
        (entry(0.001, trusted=1.875, roll_out=rolled(0.001, 60)), "none", "no harm found"),
        (data_forecast(6.0, 0.4), "tilted", "above the limit"),
        (data_forecast(0.1, 0.4), "none", "within the limit"),
        (data_forecast(0.35, 0.4), "mixed", "uncertain"),
        (data_forecast(6.0, 0.4, forecast=curve(6.0, 15.0), roll_out=None), "mixed", "uncertain"),
    ],
)
def test_a_verdict_rests_on_what_is_trusted_or_was_run(figures: DataForecast, kind: str, word: str) -> None:
    assert (look(figures).kind, look(figures).word) == (kind, word)


def test_a_skill_is_as_bad_as_its_worst_set() -> None:
    assert judge_forecast(result_of(a=entry(0.5), b=entry(0.001)), "refusal").kind == "tilted"
    assert judge_forecast(result_of(a=entry(0.001, trusted=30.0), b=entry(0.0)), "refusal").kind == "mixed"
    assert judge_forecast(result_of(a=entry(0.001)), "refusal").kind == "none"


def test_flow_time_is_told_in_steps() -> None:
    figures = look(entry(0.5, trusted=15.0, held=30.0))
    assert [figures.trusted, figures.held] == pytest.approx([15.0, 30.0])
    assert figures.first_order.mean == pytest.approx(figures.figures.first_order * 60 * 1e-4)
    found = Condition.model_validate({name: getattr(figures.figures, name) for name in Condition.model_fields})
    assert (
        leading(found.model_copy(update={"crossing_time": 0.002, "regime": "second order"}), PLAN) == "second, from 20"
    )
    assert (
        leading(found.model_copy(update={"crossing_time": 0.02, "regime": "first order"}), PLAN) == "first, until 200"
    )
    assert leading(found.model_copy(update={"crossing_time": None, "regime": "first order"}), PLAN) == "first"
    assert [steps(value) for value in (0.5, 3.75, 30.000001, 1e7, None)] == [
        "0.5",
        "3.8",
        "30",
        "1\u2009\xd7\u200910⁷",
        "\u2013",
    ]


def test_few_examples_and_what_is_not_covered_are_cautions() -> None:
    result = forecast_result(skills={"refusal": skill_forecast(examples=12)})
    notes = " ".join(forecast_cautions(result))
    assert "Few examples, so the intervals are rough: refusal (12)" in notes
    assert "1 entry not covered" in notes


def test_the_unit_and_the_plan() -> None:
    assert "nats per token" in judge_forecast(forecast_result(reduction="mean"), "refusal").sentence
    assert plan_sentence(PLAN) == "LoRA by AdamW, learning rate 0.0001, 60 steps, batches of 16"
    assert [each.name for each in outlooks(forecast_result(), "refusal")][:2] == ["harmful", "bad_medical"]
