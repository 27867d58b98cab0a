"""The words of a forecast are never more certain than its figures."""

from test_forecast_outlook import entry, look

from fake_forecast import (
    PLAN,
    curve,
    data_curve,
    data_forecast,
    forecast_result,
    proxy_forecast,
    rolled,
    skill_forecast,
)
from tiltmeter.report.forecast_outlook import outlooks
from tiltmeter.report.forecast_verdict import forecast_cautions, judge_forecast, judge_proxy
from tiltmeter.report.forecast_wording import plan_sentence
from tiltmeter.runs.forecast_result import Alarm, DataForecast, ForecastResult, ProxyForecast, SkillForecast


def result_of(**data: DataForecast) -> ForecastResult:
    """One skill; the data sets rank as they are given."""
    return forecast_result(skills={"refusal": SkillForecast(examples=64, data=data, ranking=list(data))})


def sentence(**data: DataForecast) -> str:
    return judge_forecast(result_of(**data), "refusal").sentence


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
    assert "the truth may be far higher" in sentence(poison=entry(6.0, trusted=15.0, held=30.0))
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


def test_a_skill_is_as_bad_as_its_worst_set() -> None:
    assert judge_forecast(result_of(a=entry(0.5), b=entry(0.001)), "refusal").kind == "tilted"
    assert judge_forecast(result_of(a=entry(0.001, trusted=30.0), b=entry(0.0)), "refusal").kind == "mixed"
    assert judge_forecast(result_of(a=entry(0.001)), "refusal").kind == "none"


def proxied(**gains: ProxyForecast) -> ForecastResult:
    """One proxy, "hazards"."""
    return forecast_result(data={name: data_curve(0.5, proxies={"hazards": gain}) for name, gain in gains.items()})


def test_a_proxy_is_spoken_of_as_a_gain() -> None:
    found = judge_proxy(proxied(low=proxy_forecast(0.1), poison=proxy_forecast(6.0, trusted=15.0)), "hazards")
    assert (found.kind, found.word) == ("mixed", "uncertain")
    assert found.sentence == (
        "Of 2 data sets, poison is forecast to raise the proxy the most: a gain of 6.0 [4.8, 7.5] nats per example at "
        "step 60, the planned end. poison crosses the limit of 0.4 at step 22 [20, 24], which is extrapolated. Rolled "
        "out, the run itself has a gain of 0.42 [0.36, 0.49] at step 24, above the limit."
    )


def test_a_crossing_that_only_the_run_itself_shows_is_named() -> None:
    worst, safe = data_forecast(6.0, roll_out=None), data_forecast(0.2, roll_out=rolled(0.2))
    silent = data_forecast(0.1, roll_out=rolled(60.0))
    text = sentence(poison=worst, safe=safe, hidden=silent)
    assert "Rolled out, the limit is also crossed by hidden, which no forecast tells." in text
    assert "which no forecast tells" not in sentence(poison=worst, safe=safe, seen=data_forecast(5.0))


def test_a_proxy_that_does_not_rise() -> None:
    falls = judge_proxy(proxied(a=proxy_forecast(-0.5, None, roll_out=None)), "hazards")
    assert (falls.kind, falls.word) == ("none", "no rise found")
    assert falls.sentence.startswith("a is not forecast to raise the proxy: for a, a gain of \N{MINUS SIGN}0.50")
    unsure = judge_proxy(proxied(a=proxy_forecast(0.001)), "hazards").sentence
    assert "a comes first, but its rise cannot be told from zero: a gain of 0.001" in unsure


def test_few_examples_and_what_is_not_covered_are_cautions() -> None:
    few = {"hazards": proxy_forecast(0.5, examples=9)}
    result = forecast_result(skills={"refusal": skill_forecast(examples=12)}, data={"a": data_curve(0.5, proxies=few)})
    notes = " ".join(forecast_cautions(result))
    assert "Few examples, so the intervals are rough: refusal (12) and hazards (9)" in notes
    assert "1 entry not covered" in notes


def test_the_unit_and_the_plan() -> None:
    assert "nats per token" in judge_forecast(forecast_result(reduction="mean"), "refusal").sentence
    assert plan_sentence(PLAN) == "LoRA by AdamW, learning rate 0.0001, 60 steps, batches of 16"
    assert [each.name for each in outlooks(forecast_result(), "refusal")][:2] == ["harmful", "bad_medical"]
