"""A forecast like a real one, seven data sets by two skills, written through the project's own API without a model."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from fake_runs import SETS, VERSIONS
from tiltmeter.runs import RunFolder, RunRecord
from tiltmeter.runs.forecast_result import (
    Alarm,
    Condition,
    Conflict,
    Curve,
    DataCurve,
    DataForecast,
    ForecastResult,
    Gain,
    PlanRecord,
    ProxyForecast,
    SkillForecast,
)
from tiltmeter.runs.results import Input, Interval

PLAN = PlanRecord(method="lora", optimizer="adamw", learning_rate=1e-4, steps=60, batch_size=16)
STEPS = [60 / 2**k for k in (5, 4, 3, 2, 1, 0)]
TIMES = [step * PLAN.learning_rate for step in STEPS]
TRUSTED = {"bad_medical": 30.0, "harmful": 30.0}
HELD = {"harmful": 60.0}


def curve(loss: float, trusted: float = 60.0, held: float | None = None) -> Curve:
    """A loss that grows with the third power of time to `loss` at the planned end, and stands still from `held` on."""
    at = [step if held is None or step < held else held / 2 for step in STEPS]
    mean = [loss * (step / 60) ** 3 for step in at]
    return Curve(
        method="krylov",
        products=4,
        times=TIMES,
        steps=STEPS,
        utility_loss=mean,
        low=[value - 0.2 * abs(value) - 0.002 for value in mean],
        high=[value + 0.25 * abs(value) + 0.002 for value in mean],
        quadratic=[loss * (step / 60) ** 2 * 0.7 for step in STEPS],
        drift=[math.sqrt(abs(loss)) * step / 60 for step in STEPS],
        overlap=[abs(loss) * (step / 60) ** 2 * 1.7 for step in STEPS],
        held_from=None if held is None else held * PLAN.learning_rate,
        trusted_until=trusted * PLAN.learning_rate,
    )


def rolled(loss: float, until: int = 24) -> Curve:
    """The run itself, a tenth above the forecast."""
    at = [*(step for step in STEPS if step == round(step) and step < until), float(until)]
    mean = [1.1 * loss * (step / 60) ** 3 for step in at]
    return Curve(
        method="roll-out",
        products=None,
        times=[step * PLAN.learning_rate for step in at],
        steps=at,
        utility_loss=mean,
        low=[value - 0.15 * abs(value) - 0.001 for value in mean],
        high=[value + 0.15 * abs(value) + 0.001 for value in mean],
        quadratic=None,
        drift=None,
        overlap=None,
        held_from=None,
        trusted_until=at[-1] * PLAN.learning_rate,
    )


def alarm(along: Curve, limit: float) -> Alarm:
    """Where the curve crosses the limit, linear between its points."""
    if max(along.utility_loss) <= limit:
        return Alarm(limit=limit, step=None, low=None, high=None)
    step = float(np.interp(limit, [0.0, *along.utility_loss], [0.0, *along.steps]))
    return Alarm(limit=limit, step=step, low=0.93 * step, high=min(60.0, 1.09 * step))


def condition(loss: float, dims: int) -> dict[str, Any]:
    """The fields of a condition."""
    epsilon, gamma = 40 * math.sqrt(abs(loss) * dims), 9e5 * abs(loss)
    crossing = 0.004 / (1 + abs(loss))
    return {
        "dims": dims,
        "lambda_d": 90.0 / dims,
        "tail": 300.0 / dims,
        "tail_share": 1 / (1 + dims),
        "participation_ratio": 11.3,
        "epsilon": epsilon,
        "epsilon_interval": Interval(mean=epsilon, low=0.8 * epsilon, high=1.3 * epsilon),
        "epsilon_relative": 0.05 + 0.3 * math.sqrt(abs(loss) * dims / 100),
        "epsilon_random": math.sqrt(dims / 160_000),
        "gamma": gamma,
        "gamma_interval": Interval(mean=gamma, low=0.7 * gamma, high=1.4 * gamma),
        "gamma_unweighted": gamma / 9,
        "crossing_time": crossing,
        "regime": "second order" if crossing < 0.006 else "first order",
    }


def data_forecast(loss: float, limit: float | None = 0.4, **changes: Any) -> DataForecast:
    """One data set's forecast for one skill."""
    rate = 25 * loss
    fields: dict[str, Any] = {
        **condition(loss, 8),
        "first_order": rate,
        "first_order_interval": Interval(
            mean=rate, low=rate - 0.2 * abs(rate) - 0.1, high=rate + 0.2 * abs(rate) + 0.1
        ),
        "quartic_constant": 3e9 * abs(loss),
        "velocity_overlap": 700 * abs(loss),
        "overlap_null": 3.1,
        "by_dims": [Condition(**condition(loss, dims)) for dims in (8, 2, 16)],
        "forecast": curve(loss),
        "roll_out": rolled(loss),
    }
    fields = {**fields, **changes}
    return DataForecast(alarm=None if limit is None else alarm(fields["forecast"], limit), **fields)


def skill_forecast(weight: float = 1.0, limit: float | None = 0.4, examples: int = 64) -> SkillForecast:
    """Seven data sets, losses times `weight`."""
    data = {
        name: data_forecast(
            weight * loss, limit, forecast=curve(weight * loss, TRUSTED.get(name, 60.0), HELD.get(name))
        )
        for name, _, loss in SETS
    }
    ranking = sorted(data, key=lambda name: -data[name].forecast.utility_loss[-1])
    return SkillForecast(examples=examples, data=data, ranking=ranking)


def gain_of(along: Curve) -> Gain:
    """A gain as high as a utility loss."""
    shared = along.model_dump(include=set(Gain.model_fields))
    return Gain(gain=along.utility_loss, **shared)


def proxy_forecast(loss: float, limit: float | None = 0.4, trusted: float = 60.0, **changes: Any) -> ProxyForecast:
    """What one data set does to one proxy."""
    along = curve(loss, trusted)
    fields = {"examples": 40, "roll_out": gain_of(rolled(loss)), "alarm": limit and alarm(along, limit), **changes}
    return ProxyForecast(**gain_of(along).model_dump(), **fields)


def data_curve(loss: float, held: float | None = None, proxies: dict[str, ProxyForecast] | None = None) -> DataCurve:
    """A fine-tuning loss that falls from 2.9."""
    at = [step if held is None or step < held else held / 2 for step in STEPS]
    return DataCurve(
        examples=200,
        gradient_norm=1.9 + loss,
        curvatures=[-1.4, 22.5, 310.0, 4021.0],
        start=2.9,
        evaluated=[2.9 - 1.2 * (1 - math.exp(-step / 20)) for step in at],
        expected=[2.9 - 1.2 * (1 - math.exp(-step / 20)) - 2e-5 * loss * step**2 for step in STEPS],
        disagreement=[0.0008 * step for step in STEPS],
        proxies={"hazards": proxy_forecast(loss / 2)} if proxies is None else proxies,
    )


def forecast_result(**changes: Any) -> ForecastResult:
    """Two skills, of which one is hit less, unless changed."""
    fields: dict[str, Any] = {
        "inputs": [Input(path="aligned", role="base", resolved="/models/aligned", files={"config.json": "ab" * 32})],
        "versions": VERSIONS,
        "seed": 0,
        "dtype": "float32",
        "labels": "data",
        "reduction": "sum",
        "plan": PLAN,
        "skills": {"refusal": skill_forecast(), "advice": skill_forecast(0.08)},
        "data": {name: data_curve(loss, HELD.get(name)) for name, _, loss in SETS},
        "conflicts": [Conflict(skills=("refusal", "advice"), cosine=-0.12, spearman=0.93)],
        "not_covered": {"model.norm.weight": "not a linear layer"},
    }
    return ForecastResult(**{**fields, **changes})


def write_forecast(folder: Path, *, result: ForecastResult | None = None) -> Path:
    """A finished forecast in `folder`."""
    result = result or forecast_result()
    with RunFolder(folder) as run:
        run.write_record(
            RunRecord(verb="forecast", arguments={}, inputs=result.inputs, versions=result.versions, seed=0)
        )
        run.write_result(result)
    return folder
