"""`tiltmeter forecast`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from tiltmeter.cli.limits import FORECAST, exceeded, limit_option, parse_limits
from tiltmeter.cli.options import BatchSize, Device, Dtype, Labels, MaxLength, Memory, Out, Reduction, named_columns
from tiltmeter.errors import InputError


def forecast(
    base: Annotated[str, typer.Argument(help="The base model: a folder or a Hub id.")],
    data: Annotated[list[str], typer.Option(help="A set to fine-tune on: JSONL, CSV, Parquet or a Hub set; repeat.")],
    skill: Annotated[list[str], typer.Option(help="What must not suffer: pairs of prompt and completion; repeat.")],
    out: Out,
    columns: Annotated[str | None, typer.Option(help="Columns of all of them: prompt,...,completion.")] = None,
    adapter: Annotated[
        str | None, typer.Option(metavar="CONFIG", help="A PEFT adapter_config.json or its folder; else full.")
    ] = None,
    optimizer: Annotated[Literal["adamw", "sgd"], typer.Option(help="Of the planned run.")] = "adamw",
    learning_rate: Annotated[float, typer.Option(help="Of the planned run, constant.")] = 1e-4,
    steps: Annotated[int, typer.Option(min=1, help="Of the planned run.")] = 60,
    train_batch_size: Annotated[int, typer.Option(min=1, help="Examples per step of the planned run.")] = 16,
    epsilon: Annotated[float, typer.Option(help="Of AdamW.")] = 1e-8,
    max_grad_norm: Annotated[float, typer.Option(min=0, help="Gradients are clipped to it; 0 for none.")] = 1.0,
    weight_decay: Annotated[float, typer.Option(min=0, help="Of AdamW; in the roll-out only.")] = 0.0,
    dims: Annotated[
        list[int] | None, typer.Option(min=1, help="Dimensions of the skill's subspace; repeat; 8 if not given.")
    ] = None,
    products: Annotated[int, typer.Option(min=1, help="Hessian-vector products of the quadratic model.")] = 4,
    points: Annotated[int, typer.Option(min=1, help="Points of the curves, each at half the step of the next.")] = 6,
    roll_out: Annotated[int, typer.Option(metavar="N", min=0, help="Also train N steps, measure, take it back.")] = 0,
    limit: Annotated[float | None, typer.Option(metavar="X", help="Utility loss at which the alarm sounds.")] = None,
    proxy: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="What must not become likelier: pairs too; repeat.")
    ] = None,
    proxy_limit: Annotated[
        float | None, typer.Option(metavar="X", help="Gain of a proxy at which the alarm sounds.")
    ] = None,
    groups: Annotated[
        int, typer.Option(min=0, help="Groups of fine-tuning examples behind intervals; 0 for none.")
    ] = 8,
    hessian: Annotated[
        Literal["double-backward", "central-difference"], typer.Option(help="How Hessian-vector products are taken.")
    ] = "double-backward",
    labels: Labels = "data",
    reduction: Reduction = "sum",
    dtype: Dtype = "float32",
    device: Device = "cpu",
    max_length: MaxLength = None,
    batch_size: BatchSize = 8,
    memory: Memory = 4.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the order of examples, and of intervals and nulls.")] = 0,
    fail_on: Annotated[
        list[str] | None,
        limit_option(
            "Exit with 1 if a figure of any skill, proxy and data set is above a limit: utility_loss or proxy_gain (at "
            "the end of forecast or roll-out) or epsilon_relative; two fail below their limit: alarm_step (an alarm "
            "sounds before that step) and trusted_steps (a forecast and its roll-out cannot be trusted for that many)."
        ),
    ] = None,
) -> None:
    """Tell before training what each fine-tuning set is going to do to a skill, and up to which step to believe it."""
    from tiltmeter.before.forecast import run_forecast
    from tiltmeter.before.outlook import ForecastRequest, Settings, Sources
    from tiltmeter.cli.forecast_table import print_forecast
    from tiltmeter.curvature.planned import Plan
    from tiltmeter.requests import Passes

    limits = parse_limits(fail_on, FORECAST, _unavailable(proxy, limit, proxy_limit))
    numbers = {"--learning-rate": learning_rate, "--epsilon": epsilon, "--limit": limit, "--proxy-limit": proxy_limit}
    for option, value in numbers.items():
        _check_positive(option, value)
    request = ForecastRequest(
        Sources(base, tuple(data), tuple(skill), named_columns(columns), adapter, tuple(proxy or ())),
        Plan(optimizer, learning_rate, steps, train_batch_size, epsilon, max_grad_norm, weight_decay, seed),
        Passes(labels, reduction, max_length, batch_size, memory),
        Settings(tuple(dims or (8,)), products, points, roll_out, limit, proxy_limit, groups, hessian, seed),
        dtype,
        device,
    )
    result = run_forecast(request, out)
    print_forecast(result, out)
    raise typer.Exit(exceeded(result, FORECAST, limits))


def _unavailable(proxy: list[str] | None, limit: float | None, proxy_limit: float | None) -> dict[str, str]:
    """Figures that are not measured, and why."""
    reasons = {}
    if limit is None and proxy_limit is None:
        reasons["alarm_step"] = "no alarm can sound; give --limit or --proxy-limit"
    if not proxy:
        reasons["proxy_gain"] = "no proxy is measured; give --proxy"
    return reasons


def _check_positive(option: str, value: float | None) -> None:
    """Typer's bounds include their ends, and let NaN through."""
    if value is not None and not 0 < value < float("inf"):
        raise InputError(f"{option}: expected a number above 0, got {value:g}")


def again(arguments: dict[str, object], out: Path) -> None:
    """A recorded forecast done again."""
    from pydantic import TypeAdapter

    from tiltmeter.before.forecast import run_forecast
    from tiltmeter.before.outlook import ForecastRequest
    from tiltmeter.cli.forecast_table import print_forecast

    print_forecast(run_forecast(TypeAdapter(ForecastRequest).validate_python(arguments), out), out)
