"""A forecast's entries in steps of the plan."""

from typing import Any

import pytest

from fake_forecast import PLAN, curve, data_forecast, forecast_result, rolled
from fake_runs import SETS
from tiltmeter.report.forecast_outlook import Outlook, proxies, proxy_outlooks
from tiltmeter.report.forecast_wording import leading, steps
from tiltmeter.runs.forecast_result import Condition, DataForecast


def entry(loss: float, trusted: float = 60.0, held: float | None = None, **changes: Any) -> DataForecast:
    """No roll-out and no limit unless asked for."""
    return data_forecast(loss, None, **{"forecast": curve(loss, trusted, held), "roll_out": None, **changes})


def look(figures: DataForecast) -> Outlook[DataForecast]:
    return Outlook("x", figures, PLAN)


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


def test_a_proxys_points_are_its_gains_and_have_no_quadratic_model() -> None:
    result = forecast_result()
    assert proxies(result) == ["hazards"]
    sets = proxy_outlooks(result, "hazards")
    assert [each.name for each in sets] == [name for name, _, _ in sorted(SETS, key=lambda each: -each[2])]
    assert [point.value.mean for point in sets[0].points] == result.data["harmful"].proxies["hazards"].gain
    assert {(point.quadratic, point.drift, point.overlap) for point in sets[0].points} == {(None, None, None)}


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
