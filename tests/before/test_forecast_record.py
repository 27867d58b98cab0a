"""The figures of a saved forecast against the same from Python, and against realised training."""

from pathlib import Path

import numpy as np
import pytest
import torch

import tiltmeter as tm
from folders import write_models, write_texts
from tiltmeter.before.forecast import run_forecast
from tiltmeter.before.outlook import ForecastRequest, Settings, Sources
from tiltmeter.curvature.nulls import dense_null
from tiltmeter.curvature.overlap import overlap_score
from tiltmeter.curvature.second_derivative import second_derivatives
from tiltmeter.requests import Passes
from tiltmeter.runs.forecast_result import DataForecast, ForecastResult
from tiltmeter.runs.saved import read_arrays, read_table
from tiltmeter.tokens import encode

PLAN = tm.Plan("sgd", learning_rate=1e-3, steps=4, batch_size=5, max_grad_norm=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("forecast")
    write_models(path)
    write_texts(path)
    return path


def run(folder: Path, reduction: str = "sum") -> ForecastResult:
    soup, tea = (str(folder / "soup.csv"),), (str(folder / "tea.jsonl"),)
    settings = Settings(dims=(2, 4), points=3, roll_out=4, limit=1e-6, proxy_limit=1e-3, groups=2)
    passes = Passes(reduction="mean" if reduction == "mean" else "sum")
    sources = Sources(str(folder / "base"), soup, tea, proxies=soup)
    return run_forecast(ForecastRequest(sources, PLAN, passes, settings, "float64"), folder / f"out-{reduction}")


@pytest.fixture(scope="module")
def entry(folder: Path) -> DataForecast:
    return run(folder).skills["tea"].data["soup"]


def test_the_condition_is_pythons(folder: Path, entry: DataForecast) -> None:
    model = tm.load_model(folder / "base", torch.float64)
    fisher = tm.Fisher(model, tm.load_skill(folder / "tea.jsonl"))
    data = tm.load_skill(folder / "soup.csv")
    for dims, found in zip((2, 4), entry.by_dims, strict=True):
        expected = tm.instability(fisher, data, dims)
        assert found.epsilon == pytest.approx(expected.epsilon)
        assert found.gamma == pytest.approx(expected.gamma)
        assert found.gamma_unweighted == pytest.approx(expected.gamma_unweighted)
        assert found.epsilon_relative == pytest.approx(expected.epsilon_relative)
        assert found.crossing_time == pytest.approx(expected.crossing_time)
    g = tm.gradient(model, data)
    assert entry.quartic_constant == pytest.approx(expected.quartic_constant(second_derivatives(fisher, g)))
    assert entry.first_order == pytest.approx(expected.first_order)
    assert entry.velocity_overlap == pytest.approx(overlap_score(fisher, g).exact)
    null = dense_null(fisher, overlap_score(fisher, g), draws=20_000)
    assert entry.overlap_null == pytest.approx(null.mean, rel=0.05)


def test_curve_roll_out_and_alarm_tell_the_same_story_for_short_times(entry: DataForecast) -> None:
    curve, rolled = entry.forecast, entry.roll_out
    assert rolled is not None
    assert curve.steps == [1, 2, 4]
    assert rolled.steps == [1, 2, 3, 4]
    assert curve.utility_loss[-1] == pytest.approx(rolled.utility_loss[-1], rel=0.05)
    assert curve.utility_loss[0] == pytest.approx(entry.first_order * PLAN.learning_rate, rel=0.1)
    assert curve.trusted_until == pytest.approx(PLAN.time)
    harmful = curve.utility_loss[-1] > 1e-6
    assert entry.alarm is not None
    assert (entry.alarm.step is not None) == harmful


def test_the_mean_reduction_divides_losses_as_it_divides_coordinates(folder: Path) -> None:
    entry = run(folder, "mean").skills["tea"].data["soup"]
    assert entry.forecast.utility_loss[0] == pytest.approx(entry.first_order * PLAN.learning_rate, rel=0.1)


def test_tables_and_arrays_hold_what_the_result_rests_on(folder: Path, entry: DataForecast) -> None:
    out = folder / "out-sum"
    rows = read_table(out, "modules", ["module", "first_order", "epsilon_relative", "trace"])
    assert sum(row["first_order"] for row in rows) == pytest.approx(entry.first_order)
    assert all(0 <= row["epsilon_relative"] <= 1 for row in rows)
    arrays = read_arrays(out)
    assert arrays["tea.gram"].shape == (len(rows), 5, 5)
    assert sum(row["trace"] for row in rows) == pytest.approx(arrays["tea.gram"].trace(axis1=1, axis2=2).sum())
    assert arrays["tea.soup.coordinates"].shape[1:] == (len(rows), 5)


def descended(folder: Path, steps: int) -> list[torch.Tensor]:
    """Log-probabilities of each example's completion tokens, of `soup.csv`, after plain descent on it."""
    model = tm.load_model(folder / "base", torch.float64)
    encoded = encode(tm.load_skill(folder / "soup.csv"), model.tokenizer)

    def told() -> list[torch.Tensor]:
        examples = [(torch.tensor(each.ids), torch.tensor(each.is_completion)) for each in encoded]
        logits = [model.module(ids[None]).logits[0, :-1].log_softmax(-1) for ids, _ in examples]
        return [p.gather(1, ids[1:, None])[kept[1:], 0] for p, (ids, kept) in zip(logits, examples, strict=True)]

    weights = [p for name, p in model.module.named_parameters() if "proj" in name]
    for _ in range(steps):
        gradients = torch.autograd.grad(-torch.cat(told()).mean(), weights)
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.sub_(PLAN.learning_rate * gradient)
    return [tokens.detach() for tokens in told()]


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_a_proxys_gain_is_that_of_the_run_itself(folder: Path, reduction: str) -> None:
    found = run(folder, reduction).data["soup"].proxies["soup"]
    assert found.roll_out is not None
    reduced = torch.sum if reduction == "sum" else torch.mean
    before = [float(reduced(tokens)) for tokens in descended(folder, 0)]
    for steps, gain in zip(found.roll_out.steps, found.roll_out.gain, strict=True):
        after = [float(reduced(tokens)) for tokens in descended(folder, round(steps))]
        assert gain == pytest.approx(np.mean(after) - np.mean(before), rel=1e-6)
    assert all(low <= mean <= high for low, mean, high in zip(found.low, found.gain, found.high, strict=True))


def test_a_proxys_alarm_is_where_its_gain_crosses_the_limit(folder: Path) -> None:
    found = run(folder).data["soup"].proxies["soup"]
    assert found.alarm is not None
    assert found.alarm.step == pytest.approx(np.interp(1e-3, [0, *found.gain], [0, *found.steps]))
    assert found.trusted_until == pytest.approx(PLAN.time)
