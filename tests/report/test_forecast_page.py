"""The page of a forecast: verdicts first, charts that hold what the tables hold, hostile text that is only text."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from fake_forecast import (
    HELD,
    PLAN,
    STEPS,
    TRUSTED,
    curve,
    data_curve,
    data_forecast,
    forecast_result,
    proxy_forecast,
    skill_forecast,
    write_forecast,
)
from fake_runs import SETS, write_audit
from pages import HOSTILE, Page, check_only_text
from tiltmeter.report import forecast_charts as charts
from tiltmeter.report import render
from tiltmeter.report.charts import Spec
from tiltmeter.report.forecast_outlook import Outlook, outlooks, proxy_outlooks
from tiltmeter.report.forecast_wording import steps
from tiltmeter.report.wording import figure, share, span, times
from tiltmeter.runs.forecast_result import Conflict, DataForecast, SkillForecast
from tiltmeter.runs.results import Input


def words(page: str) -> str:
    """The page's text, a space between cells."""
    return plain(" ".join(Page(page).words))


def plain(text: str) -> str:
    """Any white space as one space."""
    return " ".join(text.split())


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return render([write_forecast(tmp_path_factory.mktemp("forecast") / "run")])


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page whose every text from outside is hostile."""
    given = Input(path=HOSTILE, role="base", resolved="/x", files={HOSTILE: "ab" * 32})
    entry = SkillForecast(examples=4, data={HOSTILE: data_forecast(6.0)}, ranking=[HOSTILE])
    result = forecast_result(
        inputs=[given, given.model_copy(update={"role": HOSTILE})],
        versions={HOSTILE: HOSTILE},
        skills={HOSTILE: entry},
        data={HOSTILE: data_curve(6.0, proxies={HOSTILE: proxy_forecast(6.0)})},
        conflicts=[Conflict(skills=(HOSTILE, HOSTILE), cosine=1.0, spearman=None)],
        not_covered={HOSTILE: HOSTILE},
        warnings=[HOSTILE],
    )
    return render([write_forecast(tmp_path_factory.mktemp("hostile") / "run", result=result)])


def test_hostile_text_is_only_text(hostile: str) -> None:
    assert "<script>alert(1)</script>" in "".join(check_only_text(hostile).words)


def test_hostile_text_stays_in_its_charts(hostile: str) -> None:
    blocks = Page(hostile).data
    assert len(blocks) == 5
    assert any("alert(1)" in block for block in blocks)
    for block in blocks:
        assert "<img" not in json.dumps(json.loads(block))


def test_the_page_opens_with_verdicts_then_a_table_per_skill(page: str) -> None:
    text = words(page)
    order = [
        "aligned before 7 planned fine-tunes",
        "Planned: LoRA by AdamW",
        "refusal: above the limit",
        "Of 7 data sets, harmful is forecast",
        "proxy hazards: above the limit",
        "harmful is forecast to raise the proxy the most",
        "Utility loss at the end [interval]",
        "Utility loss along the run",
        "Harmfulness proxies along the run",
        "Drift and overlap",
        "Does the quadratic model tell the fine-tuning loss?",
        "Instability condition",
        "Conflicts between skills",
        "What is not covered",
        "Provenance",
    ]
    places = [text.index(part) for part in order]
    assert places == sorted(places)


def test_every_figure_of_the_charts_is_in_a_table(page: str) -> None:
    text, result = words(page), forecast_result()
    for skill in result.skills:
        for each in outlooks(result, skill):
            for point in [*each.points, *each.rolled]:
                assert plain(span(point.value)) in text
            for point in each.points:
                for value in (point.quadratic, point.drift, point.overlap):
                    assert plain(figure(value)) in text
    for proxied in proxy_outlooks(result, "hazards"):
        for point in [*proxied.points, *proxied.rolled]:
            assert plain(f"{proxied.name} {steps(point.step)} {point.state} {span(point.value)}") in text
        assert plain(f"{span(proxied.end, 2)} {proxied.alarm} {proxied.trust}") in text
    for found in result.data.values():
        for value in [*found.evaluated, *found.expected, *found.disagreement, *found.curvatures]:
            assert plain(figure(value)) in text


def test_every_condition_stands_beside_its_null_at_every_d(page: str) -> None:
    text = words(page)
    for skill in forecast_result().skills.values():
        for entry in skill.data.values():
            for found in entry.by_dims:
                head = [str(found.dims), figure(found.lambda_d), share(found.tail_share), "11.3"]
                ratio = times(found.epsilon_relative / found.epsilon_random)
                cells = [*head, figure(found.epsilon_relative), figure(found.epsilon_random), ratio]
                assert plain(" ".join(cells)) in text
            assert plain(f"{figure(entry.velocity_overlap)} {figure(entry.overlap_null)}") in text


def test_a_forecast_without_extras_is_reported(tmp_path: Path) -> None:
    entry = data_forecast(0.5, None, roll_out=None, first_order_interval=None, quartic_constant=None)
    result = forecast_result(
        inputs=[],
        skills={"refusal": SkillForecast(examples=64, data={"a": entry}, ranking=["a"])},
        data={"a": data_curve(0.5, proxies={})},
        conflicts=[],
        not_covered={},
    )
    text = words(render([write_forecast(tmp_path / "run", result=result)]))
    assert "run before 1 planned fine-tune " in text
    assert "Every linear module inside the blocks is measured" in text
    for absent in (
        "Harmfulness proxies",
        "Conflicts between skills",
        "Rolled out",
        "Diamonds",
        "Dashed line: the limit",
    ):
        assert absent not in text


def test_a_forecast_and_an_audit_share_a_page(tmp_path: Path) -> None:
    found = Page(render([write_forecast(tmp_path / "forecast"), write_audit(tmp_path / "audit")]))
    assert [attrs["id"] for tag, attrs in found.tags if tag == "section"] == ["run-1", "run-2"]


def test_same_folder_same_bytes(page: str, tmp_path: Path) -> None:
    assert render([write_forecast(tmp_path / "run")]) == page


@pytest.fixture(scope="module")
def sets() -> list[Outlook[DataForecast]]:
    return outlooks(forecast_result(), "refusal")


@pytest.fixture(scope="module")
def shades() -> charts.Colours:
    return charts.colours([name for name, _, _ in SETS])


def drawn(spec: Spec, **look: Any) -> list[Spec]:
    """Lines of a dash, or markers of a symbol."""
    dash, symbol = look.get("dash"), look.get("symbol")
    traces: list[Spec] = spec["data"]
    if dash is not None:
        return [trace for trace in traces if trace.get("line", {}).get("dash") == dash]
    return [trace for trace in traces if trace.get("marker", {}).get("symbol") == symbol]


def test_lines_are_solid_as_far_as_trusted_and_dotted_beyond(
    sets: list[Outlook[DataForecast]], shades: charts.Colours
) -> None:
    for spec in (charts.losses(sets, shades), charts.drifts(sets, shades), charts.overlaps(sets, shades)):
        ends = {trace["line"]["color"]: trace["x"][-1] for trace in drawn(spec, dash="solid")}
        starts = {trace["line"]["color"]: trace["x"][0] for trace in drawn(spec, dash="dot")}
        assert ends == {f"var({shades[name]})": TRUSTED.get(name, 60.0) for name, _, _ in SETS}
        assert starts == {f"var({shades[name]})": step for name, step in TRUSTED.items()}


def test_curves_start_at_zero_and_keep_their_values(sets: list[Outlook[DataForecast]], shades: charts.Colours) -> None:
    spec = charts.losses(sets, shades)
    bend = max(0.75 * 1.25 + 0.002, *(point.value.high for each in sets for point in each.rolled)) / 300
    worst = drawn(spec, dash="solid")[-1]
    assert worst["x"] == [0.0, *STEPS[:-1]]
    expected = [0.0, *(math.asinh(value / bend) for value in curve(6.0).utility_loss[:-1])]
    assert worst["y"] == pytest.approx(expected)
    band = spec["data"][0]
    assert band["y"][1 : len(STEPS) + 1] == pytest.approx([math.asinh(p.value.high / bend) for p in sets[0].points])
    assert band["y"][-2 : -len(STEPS) - 2 : -1] == pytest.approx(
        [math.asinh(p.value.low / bend) for p in sets[0].points]
    )
    assert spec["layout"]["shapes"][0]["y0"] == pytest.approx(math.asinh(0.4 / bend))


def test_gains_are_drawn_as_losses_are(shades: charts.Colours) -> None:
    spec = charts.gains(proxy_outlooks(forecast_result(), "hazards"), shades)
    bend = (3.0 * 1.25 + 0.002) / 300
    highest = drawn(spec, dash="solid")[-1]
    assert highest["y"] == pytest.approx([0.0, *(math.asinh(value / bend) for value in curve(3.0).utility_loss)])
    assert len(drawn(spec, symbol="diamond-open")) == len(SETS)
    assert spec["layout"]["shapes"][0]["y0"] == pytest.approx(math.asinh(0.4 / bend))
    assert spec["layout"]["yaxis"]["title"]["text"] == "gain (nats)"


def test_crosses_mark_where_a_forecast_stands_still_and_diamonds_the_run(
    sets: list[Outlook[DataForecast]], shades: charts.Colours
) -> None:
    spec = charts.losses(sets, shades)
    assert [trace["x"] for trace in drawn(spec, symbol="x-thin-open")] == [[step] for step in HELD.values()]
    assert [trace["x"] for trace in drawn(spec, symbol="diamond-open")] == [[15.0, 24.0]] * len(SETS)
    assert not drawn(charts.drifts(sets, shades), symbol="x-thin-open")


def test_a_quadratic_model_that_has_lost_its_way_leaves_the_chart(shades: charts.Colours) -> None:
    wild = curve(0.5, trusted=15.0)
    wild = wild.model_copy(update={"drift": [0.1, 0.2, 0.3, 0.4, 1e200, 1e300]})
    spec = charts.drifts([Outlook("summary", data_forecast(0.5, forecast=wild), PLAN)], shades)
    top = spec["layout"]["yaxis"]["range"][1]
    inside = [y for trace in spec["data"] for y in trace["y"] if y <= top]
    assert len(inside) == 6  # the base, four trusted points, of which the last starts the dotted line again
    assert len(spec["layout"]["yaxis"]["tickvals"]) < 12
    figures = data_curve(0.5).model_copy(update={"expected": [2.8, 2.7, 2.5, 2.0, -50.0, -1e300]})
    low, high = charts.training_loss(figures, STEPS, "--series-a")["layout"]["yaxis"]["range"]
    assert (low, high) == pytest.approx((1.76 - 0.57, 2.9 + 0.57), abs=0.01)


def test_a_forecast_of_nothing_is_drawn_flat(shades: charts.Colours) -> None:
    still = skill_forecast(0.0).data["summary"]
    flat = still.forecast.model_copy(update={"low": [0.0] * 6, "high": [0.0] * 6})
    entry = still.model_copy(update={"forecast": flat, "roll_out": None, "alarm": None})
    spec = charts.losses([Outlook("summary", entry, PLAN)], shades)
    assert {y for trace in spec["data"] for y in trace["y"]} == {0.0}
    charts.drifts([Outlook("summary", entry, PLAN)], shades)


def test_a_ninth_data_set_takes_the_first_colour_again() -> None:
    shades = charts.colours([str(number) for number in range(9)])
    assert shades["8"] == shades["0"] != shades["7"]
    style = Path(charts.__file__).with_name("style.css").read_text()
    for shade in shades.values():
        assert style.count(f"{shade}:") == style.count(f"{shade}-soft:") == 2
