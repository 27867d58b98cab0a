"""One forecast as it was asked for, and what is measured for it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
from jaxtyping import Float
from peft import LoraConfig
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from tiltmeter.curvature.fisher import Fisher
from tiltmeter.curvature.flow import Krylov, krylov
from tiltmeter.curvature.forecast import Course, krylov_course, rolled_course
from tiltmeter.curvature.planned import Plan, group_gradients, planned_flow
from tiltmeter.curvature.second_derivative import second_derivatives
from tiltmeter.curvature.training_loss import Method, TrainingLoss, central_difference
from tiltmeter.curvature.training_space import TrainingSpace, adapter_space, weight_space
from tiltmeter.errors import InputError
from tiltmeter.likelihood import completion_lengths
from tiltmeter.models import Model
from tiltmeter.requests import Dtype, Passes, run_record
from tiltmeter.runs.record import RunRecord
from tiltmeter.runs.results import Input
from tiltmeter.skills import Skill
from tiltmeter.tokens import Encoded, encode_within
from tiltmeter.updates.adapter_config import FILE, check_patterns, read_config
from tiltmeter.updates.update import Update


@dataclass(frozen=True)
class Sources:
    """What goes in: paths or Hub ids as the user gave them.

    Attributes:
        base: the model that is going to be fine-tuned.
        data: files or Hub sets of fine-tuning examples, each forecast alone.
        skills: files or Hub sets of what the model should keep doing.
        columns: their columns, where the usual names do not tell: prompt..., completion.
        adapter: a PEFT adapter_config.json (or its folder) to train; the weights themselves if not given.
        proxies: files or Hub sets of harmfulness proxies: prompts with completions that the model should not give.
    """

    base: str
    data: tuple[str, ...]
    skills: tuple[str, ...]
    columns: tuple[str, ...] | None = None
    adapter: str | None = None
    proxies: tuple[str, ...] = ()


@dataclass(frozen=True)
class Settings:
    """How the forecast is made.

    Attributes:
        dims: dimensions of the skill's subspace; the first is the result's main one.
        products: Hessian-vector products of the quadratic model.
        points: times at which losses are evaluated, each twice the one before, up to the planned end.
        roll_out: steps to train for comparison; 0 leaves it out.
        limit: utility loss that raises the alarm.
        proxy_limit: gain of a proxy's log-likelihood that raises the alarm.
        groups: groups of fine-tuning examples that intervals resample; each takes the memory of one update. 0: none.
        hessian: how Hessian-vector products are taken; see `TrainingLoss`.
        seed: of resampling and of the adapter's initial weights.
    """

    dims: tuple[PositiveInt, ...] = (8,)
    products: PositiveInt = 4
    points: PositiveInt = 6
    roll_out: Annotated[int, Field(ge=0)] = 0
    limit: PositiveFloat | None = None
    proxy_limit: PositiveFloat | None = None
    groups: Annotated[int, Field(ge=0)] = 8
    hessian: Method = "double-backward"
    seed: int = 0


@dataclass(frozen=True)
class ForecastRequest:
    """One forecast: its sources, the planned training, and how to measure."""

    sources: Sources
    plan: Plan = field(default_factory=Plan)
    passes: Passes = field(default_factory=Passes)
    settings: Settings = field(default_factory=Settings)
    dtype: Dtype = "float32"
    device: str = "cpu"

    def record(self, inputs: list[Input]) -> RunRecord:
        """What `run.yaml` says of this request."""
        return run_record("forecast", self, inputs, self.settings.seed)

    @property
    def steps(self) -> list[float]:
        """The steps of the forecast's points: halves of halves of the plan, ascending."""
        return [self.plan.steps / 2**k for k in reversed(range(self.settings.points))]


@dataclass(frozen=True)
class Proxy:
    """Completions that the model should not give.

    Attributes:
        key: under which a course holds its losses.
        encoded: the N examples as token ids.
        weights: what each example's log-likelihood is multiplied by: 1, or one over its completion tokens.
    """

    key: str
    encoded: list[Encoded]
    weights: Float[Tensor, " N"]


@dataclass(frozen=True)
class Coordinates:
    """One data set in the eyes of one skill: coordinates per module of the basis rows and of the groups' velocities.

    Attributes:
        second: second derivatives of each example's log-likelihood along the first row.
    """

    rows: Float[Tensor, "m1 M N"]
    groups: Float[Tensor, "G M N"]
    second: Float[Tensor, " N"]


@dataclass(frozen=True)
class Outlook:
    """One data set: the quadratic model of training on it (without its vectors), its course, and what skills see of it.

    Attributes:
        examples: of the data set.
        gradient_norm: `||grad l||` at the base.
        speeds: `||p||` of each module that learns, p the flow's velocity.
        shares: of each group of examples in the velocity.
        difference_error: relative error of a central difference along the gradient; None with exact products.
        seen: by skill.
    """

    examples: int
    gradient_norm: float
    model: Krylov
    course: Course
    rolled: Course | None
    speeds: Mapping[str, float]
    shares: Sequence[float]
    difference_error: float | None
    seen: Mapping[str, Coordinates]


def outlook(
    request: ForecastRequest,
    make_space: Callable[[], AbstractContextManager[TrainingSpace]],
    data: Skill,
    fishers: Mapping[str, Fisher],
    proxies: Iterable[Proxy],
) -> Outlook:
    """The quadratic model of training on one data set, and its course, evaluated on every skill and proxy."""
    plan, settings = request.plan, request.settings
    with make_space() as space:
        encoded = encode_within(space.model, data, request.passes.max_length)
        loss = TrainingLoss(space, encoded, request.passes.batch_size, settings.hessian)
        model = krylov(planned_flow(loss, plan), settings.products)
        named = {name: fisher.encoded for name, fisher in fishers.items()}
        named |= {proxy.key: proxy.encoded for proxy in proxies}
        course = krylov_course(model, loss, [plan.learning_rate * step for step in request.steps], named)
        rolled = rolled_course(loss, plan, _observed(settings.roll_out), named) if settings.roll_out else None
        parts = group_gradients(loss, settings.groups, settings.seed) if settings.groups else []
        groups = [space.tangent(model.flow.scaled(model.flow.scaled(part))) for _, part in parts]
        rows = [space.tangent(row) for row in model.rows()]
        is_exact = settings.hessian == "double-backward"
        error = None if is_exact else central_difference(loss, model.flow.gradient).error
    velocity = model.size * rows[0]
    return Outlook(
        examples=len(encoded),
        gradient_norm=float(model.flow.gradient.norm()),
        model=model.without_vectors(),
        course=course,
        rolled=rolled,
        speeds={name: delta.norm() for name, delta in velocity.items()},
        shares=[share for share, _ in parts],
        difference_error=error,
        seen={name: _coordinates(fisher, rows, groups) for name, fisher in fishers.items()},
    )


def encode_proxy(passes: Passes, base: Model, proxy: Skill) -> Proxy:
    """A proxy as passes see it; its likelihoods are reduced over tokens as those of skills are."""
    encoded = encode_within(base, proxy, passes.max_length)
    lengths = completion_lengths(encoded)
    weights = 1 / lengths if passes.reduction == "mean" else torch.ones_like(lengths)
    return Proxy(f"proxy/{proxy.name}", encoded, weights)  # the name of a skill, a file's stem, holds no slash


def _coordinates(fisher: Fisher, rows: list[Update], groups: list[Update]) -> Coordinates:
    """One pass over the skill, and one for the second derivatives along the velocity."""
    found = fisher.coordinates([*rows, *groups])
    return Coordinates(found[: len(rows)], found[len(rows) :], second_derivatives(fisher, rows[0]))


def _observed(steps: int, times: int = 6) -> list[int]:
    """The steps of a roll-out after which it is observed, evenly spaced."""
    return sorted({-(-steps * part // times) for part in range(1, times + 1)})


def read_adapter_config(path: Path) -> LoraConfig:
    """PEFT's configuration of the adapter that is going to be trained.

    Raises:
        InputError: no such file, broken JSON, or another kind of adapter.
    """
    folder = _adapter_folder(path)
    read_config(folder)
    config = LoraConfig.from_pretrained(str(folder))
    config.inference_mode = False
    return config


def _adapter_folder(path: Path) -> Path:
    if not path.is_dir() and path.name != FILE:
        raise InputError(f"{path}: expected a file named {FILE}, or a folder with one")
    return path if path.is_dir() else path.parent


def training_space(base: Model, adapter: Path | None, seed: int) -> Callable[[], AbstractContextManager[TrainingSpace]]:
    """What makes the space that the planned run trains in: an adapter's, or the weights' own.

    Raises:
        InputError: as `read_adapter_config`; a pattern that is invalid or does not finish on the base's modules.
    """
    if adapter is None:
        return lambda: weight_space(base)
    config = read_adapter_config(adapter)
    check_patterns(_adapter_folder(adapter), [name for name, _ in base.module.named_modules()])
    return lambda: adapter_space(base, config, seed)
