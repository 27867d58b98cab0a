"""What fine-tuning on some data is going to do to skills: from files to a run folder."""

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from tiltmeter.before import forecast_record as record
from tiltmeter.before.outlook import (
    ForecastRequest,
    Outlook,
    Proxy,
    encode_proxy,
    outlook,
    read_adapter_config,
    training_space,
)
from tiltmeter.curvature.fisher import Fisher
from tiltmeter.curvature.mean_gradient import mean_gradient
from tiltmeter.errors import InputError
from tiltmeter.intervals import spearman_interval
from tiltmeter.models import load_model, local_folder
from tiltmeter.progress import track
from tiltmeter.requests import DTYPES, hash_files, load_named
from tiltmeter.runs.folder import RunFolder
from tiltmeter.runs.forecast_result import Conflict, ForecastResult, SkillForecast
from tiltmeter.runs.inputs import hash_input
from tiltmeter.runs.record import tool_versions
from tiltmeter.runs.results import Input


def run_forecast(request: ForecastRequest, out: Path) -> ForecastResult:
    """Forecasts every data set for every skill and writes the run folder `out`.

    Raises:
        InputError: any input that cannot be used, or `out` is no place for a run.
        NothingMeasuredError: data whose gradient is zero.
    """
    sources = request.sources
    skills = load_named(sources.skills, sources.columns, "--skill")
    data = load_named(sources.data, sources.columns, "--data")
    if request.settings.proxy_limit is not None and not sources.proxies:
        raise InputError("--proxy-limit: there is nothing to apply it to; give --proxy")
    pairs = load_named(sources.proxies, sources.columns, "--proxy") if sources.proxies else {}
    adapter = None if sources.adapter is None else Path(sources.adapter)
    if adapter is not None:
        read_adapter_config(adapter)  # a bad one ends the run before the model is read
    folder = local_folder(sources.base)
    with RunFolder(out) as run:
        inputs = [hash_input(sources.base, "base", folder)]
        inputs += hash_files({"data": sources.data, "skill": sources.skills, "proxy": sources.proxies})
        if sources.adapter is not None:
            inputs.append(hash_input(sources.adapter, "adapter"))
        base = load_model(folder, DTYPES[request.dtype], request.device)
        fishers = {name: request.passes.fisher(base, skill) for name, skill in skills.items()}
        proxies = {name: encode_proxy(request.passes, base, each) for name, each in pairs.items()}
        space = training_space(base, adapter, request.settings.seed)
        sets = track(data.items(), "forecasting data sets", len(data))
        outlooks = {name: outlook(request, space, each, fishers, proxies.values()) for name, each in sets}
        run.write_record(request.record(inputs))
        return _write(run, request, inputs, fishers, proxies, outlooks)


def _write(
    run: RunFolder,
    request: ForecastRequest,
    inputs: list[Input],
    fishers: Mapping[str, Fisher],
    proxies: Mapping[str, Proxy],
    outlooks: Mapping[str, Outlook],
) -> ForecastResult:
    found: dict[str, SkillForecast] = {}
    rows: list[dict[str, Any]] = []
    arrays: dict[str, Any] = {}
    for name, fisher in fishers.items():
        data = {other: record.data_forecast(request, name, fisher, each) for other, each in outlooks.items()}
        ranking = sorted(data, key=lambda other: data[other].forecast.utility_loss[-1], reverse=True)
        found[name] = SkillForecast(examples=len(fisher), data=data, ranking=ranking)
        for other, each in outlooks.items():
            rows += record.module_rows(request, name, other, fisher, each)
            arrays[f"{name}.{other}.coordinates"] = each.seen[name].rows.numpy()
        arrays[f"{name}.gram"] = fisher.gram().numpy()
    result = ForecastResult(
        inputs=inputs,
        versions=tool_versions(),
        seed=request.settings.seed,
        dtype=request.dtype,
        labels=request.passes.labels,
        reduction=request.passes.reduction,
        plan=record.plan_record(request),
        skills=found,
        data={name: record.data_curve(request, each, proxies) for name, each in outlooks.items()},
        conflicts=_conflicts(fishers, found),
        warnings=[
            f"{name}: central differences along the gradient have a relative error of {each.difference_error:.1g}"
            for name, each in outlooks.items()
            if each.difference_error is not None
        ],
        not_covered=dict(next(iter(fishers.values())).not_covered),
    )
    run.write_result(result)
    run.write_table("modules", rows)
    run.write_arrays("arrays", arrays)
    return result


def _conflicts(fishers: Mapping[str, Fisher], found: Mapping[str, SkillForecast]) -> list[Conflict]:
    means = {name: mean_gradient(fisher) for name, fisher in fishers.items()} if len(fishers) > 1 else {}
    conflicts = []
    for one, other in combinations(means, 2):
        a, b = means[one], means[other]
        losses = [
            np.array([each.forecast.utility_loss[-1] for each in found[name].data.values()]) for name in (one, other)
        ]
        rank = spearman_interval(losses[0], losses[1]) if len(losses[0]) > 2 else None
        cosine = a.inner(b) / (a.norm() * b.norm())
        conflicts.append(Conflict(skills=(one, other), cosine=cosine, spearman=None if rank is None else rank.mean))
    return conflicts
