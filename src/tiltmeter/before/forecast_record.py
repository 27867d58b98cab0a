"""A forecast as it is saved: the entries of `result.json`, and the rows of its table."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.before.outlook import Coordinates, ForecastRequest, Outlook, Proxy
from tiltmeter.curvature.example_risk import weight_count
from tiltmeter.curvature.fisher import Fisher
from tiltmeter.curvature.forecast import Course, Drift, drift
from tiltmeter.curvature.instability import Instability, Resampled, Subspace, instabilities, resampled
from tiltmeter.intervals import mean_interval
from tiltmeter.layers import widths
from tiltmeter.runs.forecast_result import (
    Alarm,
    Condition,
    Curve,
    DataCurve,
    DataForecast,
    Gain,
    PlanRecord,
    ProxyForecast,
)
from tiltmeter.runs.results import interval_record


def plan_record(request: ForecastRequest) -> PlanRecord:
    """The planned run."""
    plan = request.plan
    return PlanRecord(
        method="full" if request.sources.adapter is None else "lora",
        optimizer=plan.optimizer,
        learning_rate=plan.learning_rate,
        steps=plan.steps,
        batch_size=plan.batch_size,
    )


def data_curve(request: ForecastRequest, outlook: Outlook, proxies: Mapping[str, Proxy]) -> DataCurve:
    """The fine-tuning loss along the forecast, and the gain of every proxy."""
    course = outlook.course
    return DataCurve(
        examples=outlook.examples,
        gradient_norm=outlook.gradient_norm,
        curvatures=outlook.model.eigenvalues.tolist(),
        start=course.start,
        evaluated=list(course.data_losses),
        expected=[_finite(value) for value in course.expected or ()],
        disagreement=[_finite(value) for value in course.disagreement or ()],
        proxies={name: proxy_forecast(request, outlook, proxy) for name, proxy in proxies.items()},
    )


def proxy_forecast(request: ForecastRequest, outlook: Outlook, proxy: Proxy) -> ProxyForecast:
    """One data set's entry for one proxy."""
    return ProxyForecast(
        **gain(request, outlook.course, proxy).model_dump(),
        examples=len(proxy.encoded),
        roll_out=None if outlook.rolled is None else gain(request, outlook.rolled, proxy),
        alarm=alarm(request, outlook.course, proxy.key, -proxy.weights, request.settings.proxy_limit),
    )


def gain(request: ForecastRequest, course: Course, proxy: Proxy) -> Gain:
    """A proxy's gain over times: the losses of its completions with the other sign."""
    means, points = _points(request, course, proxy.key, -proxy.weights)
    return Gain(gain=means, trusted_until=course.trusted_until, **points)


def data_forecast(request: ForecastRequest, skill: str, fisher: Fisher, outlook: Outlook) -> DataForecast:
    """One data set's entry under one skill."""
    seen = outlook.seen[skill]
    conditions = _conditions(request, fisher, outlook, seen)
    first = conditions[request.settings.dims[0]]
    shares = torch.tensor(outlook.shares, dtype=torch.float64)
    groups = seen.groups.sum(1) if outlook.shares else None
    intervals = {d: resampled(each, groups, shares, request.settings.seed) for d, each in conditions.items()}
    records = {d: condition(request, each, intervals[d]) for d, each in conditions.items()}
    along = drift(outlook.model, seen.rows.sum(1), outlook.course.times, first.subspace)
    return DataForecast(
        **records[request.settings.dims[0]].model_dump(),
        first_order=first.first_order,
        first_order_interval=interval_record(intervals[request.settings.dims[0]].first_order),
        quartic_constant=first.quartic_constant(outlook.model.size**2 * seen.second),
        velocity_overlap=float(first.velocity.square().mean()),
        overlap_null=_flat_overlap(fisher, outlook),
        by_dims=list(records.values()),
        forecast=curve(request, outlook.course, skill, fisher, along, outlook.model.products),
        roll_out=None if outlook.rolled is None else curve(request, outlook.rolled, skill, fisher),
        alarm=alarm(request, outlook.course, skill, fisher.weights, request.settings.limit),
    )


def condition(request: ForecastRequest, found: Instability, intervals: Resampled) -> Condition:
    """The instability condition at one d."""
    dims, spectrum = found.subspace.dims, found.subspace.spectrum
    return Condition(
        dims=dims,
        lambda_d=spectrum.at(dims),
        tail=spectrum.tail(dims),
        tail_share=spectrum.tail_share(dims),
        participation_ratio=spectrum.participation_ratio,
        epsilon=found.epsilon,
        epsilon_interval=interval_record(intervals.epsilon),
        epsilon_relative=found.epsilon_relative,
        epsilon_random=found.epsilon_random,
        gamma=found.gamma,
        gamma_interval=interval_record(intervals.gamma),
        gamma_unweighted=found.gamma_unweighted,
        crossing_time=found.crossing_time,
        regime=found.regime(request.plan.time),
    )


def curve(
    request: ForecastRequest,
    course: Course,
    skill: str,
    fisher: Fisher,
    along: Drift | None = None,
    products: int | None = None,
) -> Curve:
    """One skill's utility loss over times, in the Fisher's reduction."""
    means, points = _points(request, course, skill, fisher.weights)
    return Curve(
        method=course.method,
        products=products,
        utility_loss=means,
        quadratic=None if along is None else [_finite(value) for value in along.quadratic],
        drift=None if along is None else [_finite(value) for value in along.drift],
        overlap=None if along is None else [_finite(value) for value in along.overlap],
        trusted_until=course.trusted_until if along is None else course.trusted_for(means, along.quadratic),
        **points,
    )


def _points(
    request: ForecastRequest, course: Course, observed: str, weights: Float[Tensor, " N"]
) -> tuple[list[float], dict[str, Any]]:
    """Weighted mean losses of what is observed, and what all paths say of their points."""
    spans = [mean_interval((losses * weights).numpy()) for losses in course.losses[observed]]
    return [span.mean for span in spans], {
        "times": list(course.times),
        "steps": [time / request.plan.learning_rate for time in course.times],
        "low": [span.low for span in spans],
        "high": [span.high for span in spans],
        "held_from": course.held_from,
    }


def alarm(
    request: ForecastRequest, course: Course, observed: str, weights: Float[Tensor, " N"], limit: float | None
) -> Alarm | None:
    """When the weighted mean loss of what is observed crosses the limit, if there is one."""
    if limit is None:
        return None
    found = course.alarm(observed, limit, weights)
    rate = request.plan.learning_rate
    if found is None:
        return Alarm(limit=limit, step=None, low=None, high=None)
    return Alarm(limit=limit, step=found.mean / rate, low=found.low / rate, high=found.high / rate)


def module_rows(
    request: ForecastRequest, skill: str, data: str, fisher: Fisher, outlook: Outlook
) -> Iterator[dict[str, Any]]:
    """One row per module: the condition in the module's own subspace."""
    dims, model, seen = request.settings.dims[0], outlook.model, outlook.seen[skill]
    acceleration = torch.einsum("j,jmn->mn", torch.tensor(model.acceleration), seen.rows)
    for m, name in enumerate(fisher.modules):
        o, i = widths(fisher.layers[name][0])
        gram = fisher.gram()[m]
        speed = outlook.speeds.get(name, 0.0)
        found = Instability(Subspace(gram, dims), model.size * seen.rows[0, m], acceleration[m], speed, o * i)
        yield {
            "skill": skill,
            "data": data,
            "module": name,
            "block": fisher.blocks[m],
            "trace": float(gram.trace()),
            "lambda_d": found.subspace.spectrum.at(dims),
            "tail": found.subspace.spectrum.tail(dims),
            "epsilon": found.epsilon,
            "epsilon_relative": found.epsilon_relative,
            "epsilon_random": found.epsilon_random,
            "gamma": found.gamma,
            "gamma_unweighted": found.gamma_unweighted,
            "first_order": found.first_order,
        }


def _conditions(
    request: ForecastRequest, fisher: Fisher, outlook: Outlook, seen: Coordinates
) -> dict[int, Instability]:
    model, rows = outlook.model, seen.rows.sum(1)
    acceleration = torch.tensor(model.acceleration) @ rows
    speed = math.hypot(*outlook.speeds.values())
    return instabilities(
        fisher.gram().sum(0), model.size * rows[0], acceleration, speed, weight_count(fisher), request.settings.dims
    )


def _flat_overlap(fisher: Fisher, outlook: Outlook) -> float:
    """`sum_m ||p_m||^2 tr(F_m) / n_m`: the mean overlap of random directions that have p's norm in each module."""
    traces = fisher.gram().diagonal(dim1=1, dim2=2).sum(1)
    total = 0.0
    for name, trace in zip(fisher.modules, traces.tolist(), strict=True):
        o, i = widths(fisher.layers[name][0])
        total += outlook.speeds.get(name, 0.0) ** 2 * trace / (o * i)
    return total


def _finite(value: float) -> float | None:
    """Far outside its range the quadratic model overflows; results hold finite numbers only."""
    return value if math.isfinite(value) else None
