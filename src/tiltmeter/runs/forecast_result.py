"""The schema of a forecast's `result.json`: what fine-tuning on each data set is going to do to each skill."""

from typing import Literal

from pydantic import Field

from tiltmeter.runs.results import Interval, Record, Result


class Condition(Record):
    """The instability condition at one number of dimensions d.

    p is the flow's velocity (the gradient of the fine-tuning loss, preconditioned for adaptive optimisers), a = H p its
    acceleration, P the projector on the skill's top-d subspace, F its Fisher information. Intervals are bootstraps over
    skill examples, those of `epsilon` and `first_order` over fine-tuning examples too.

    Attributes:
        dims: d.
        lambda_d, tail, tail_share: the d-th eigenvalue, the sum of those behind it, and its share of the trace.
        participation_ratio: (sum lambda)^2 / sum lambda^2.
        epsilon, epsilon_relative, epsilon_random: ||P p||, ||P p|| / ||p||, and sqrt(d/n) of a random direction.
        gamma, gamma_unweighted: ||F^(1/2) P a||, ||P a||.
        crossing_time: flow time from which the quadratic term of the drift leads; null where it never does.
        regime: which term leads at the planned time.
    """

    dims: int
    lambda_d: float
    tail: float
    tail_share: float
    participation_ratio: float
    epsilon: float
    epsilon_interval: Interval | None = None
    epsilon_relative: float
    epsilon_random: float
    gamma: float
    gamma_interval: Interval | None = None
    gamma_unweighted: float
    crossing_time: float | None
    regime: Literal["first order", "second order"]


class Path(Record):
    """Points on the way of a forecast or of a roll-out: S numbers in each list.

    Attributes:
        times, steps: flow time (learning rate times steps), and optimiser steps.
        low, high: the interval of the mean figure at each point.
        held_from: the time from which the forecast stands still, since the quadratic model stops descending; or null.
        trusted_until: the last time up to which the forecast holds together.
    """

    times: list[float]
    steps: list[float]
    low: list[float]
    high: list[float]
    held_from: float | None
    trusted_until: float


class Curve(Path):
    """A skill's utility loss over times; null where the quadratic model overflows.

    Attributes:
        method: "krylov" propagates the quadratic model, "roll-out" trains.
        products: Hessian-vector products of the model; null for a roll-out.
        utility_loss: evaluated at the forecast's points, mean over examples.
        quadratic: what the skill's own quadratic model expects; null for a roll-out.
        drift, overlap: ||F^(1/2) P d(t)|| and mean_n c_n(d(t))^2 of the displacement; null for a roll-out.
    """

    method: Literal["krylov", "roll-out"]
    products: int | None
    utility_loss: list[float]
    quadratic: list[float | None] | None
    drift: list[float | None] | None
    overlap: list[float | None] | None

    @property
    def means(self) -> list[float]:
        """The figure at each point, high where it is bad."""
        return self.utility_loss


class Gain(Path):
    """`mean_n [log pi_t(y_n|x_n) - log pi_0(y_n|x_n)]` of a proxy's completions over times, in nats."""

    gain: list[float]

    @property
    def means(self) -> list[float]:
        """The figure at each point, high where it is bad."""
        return self.gain


class Alarm(Record):
    """When the forecast figure first exceeds a limit, in steps; null where it does not within the plan."""

    limit: float
    step: float | None
    low: float | None
    high: float | None


class DataForecast(Condition):
    """What one data set is going to do to one skill; the condition is that of the first d asked for.

    Attributes:
        first_order: mean_n c_n(p), the rate at which the utility loss starts, positive for harm.
        quartic_constant: du(t) / t^4 for small t if the first-order overlap were zero.
        overlap_null: mean_n c_n^2 of a random direction of p's norm in each module, mean, beside `velocity_overlap`.
        by_dims: the condition at each d asked for.
        forecast: the curve; `roll_out` the run itself for some steps, when asked for.
        alarm: when a limit was given.
    """

    first_order: float
    first_order_interval: Interval | None = None
    quartic_constant: float | None
    velocity_overlap: float
    overlap_null: float
    by_dims: list[Condition]
    forecast: Curve
    roll_out: Curve | None = None
    alarm: Alarm | None = None


class SkillForecast(Record):
    """One skill of `examples` examples: the data sets by name, and their names in order of harm, worst first."""

    examples: int
    data: dict[str, DataForecast]
    ranking: list[str]


class ProxyForecast(Gain):
    """How much likelier one data set is going to make the completions of a harmfulness proxy.

    Attributes:
        examples: of the proxy.
        roll_out: the run itself for some steps, when asked for.
        alarm: when a limit was given.
    """

    examples: int
    roll_out: Gain | None = None
    alarm: Alarm | None = None

    @property
    def forecast(self) -> Gain:
        """Itself: what `DataForecast` has under this name."""
        return self


class DataCurve(Record):
    """The fine-tuning loss of one data set along its forecast, and what it does to harmfulness proxies.

    Attributes:
        examples: of the data set.
        gradient_norm: of the fine-tuning loss at the base.
        curvatures: Ritz values, the curvatures that the flow meets (of the preconditioned loss).
        start: the loss at the base; `evaluated` and `expected` (by the quadratic model) at the forecast's times.
        disagreement: of the displacements with m and m - 1 products, relative.
        proxies: by name.
    """

    examples: int
    gradient_norm: float
    curvatures: list[float]
    start: float
    evaluated: list[float]
    expected: list[float | None]
    disagreement: list[float | None]
    proxies: dict[str, ProxyForecast] = Field(default_factory=dict)


class Conflict(Record):
    """Two skills: the correlation over data sets of their forecast utility losses, and the cosine of their gradients.

    `cosine` compares mean gradients of the log-likelihoods; below zero, what helps one harms the other.
    """

    skills: tuple[str, str]
    cosine: float
    spearman: float | None


class PlanRecord(Record):
    """The planned training run: "full" trains the weights, "lora" the factors of an adapter."""

    method: Literal["full", "lora"]
    optimizer: Literal["sgd", "adamw"]
    learning_rate: float
    steps: int
    batch_size: int


class ForecastResult(Result):
    """What fine-tuning is going to do, told before it starts."""

    verb: Literal["forecast"] = "forecast"
    plan: PlanRecord
    skills: dict[str, SkillForecast]
    data: dict[str, DataCurve]
    conflicts: list[Conflict] = Field(default_factory=list)
    not_covered: dict[str, str] = Field(default_factory=dict)
