"""Straight paths in weight space: one model in memory that moves along them and comes back exactly."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from typing import Literal

import torch
from torch import Tensor, nn

from tiltmeter.errors import InputError
from tiltmeter.layers import is_transposed
from tiltmeter.models import Model
from tiltmeter.updates.delta import Delta, LowRank
from tiltmeter.updates.update import Update

Variant = Literal["effective", "factors"]


@dataclass(frozen=True)
class End:
    """A tuned model as its change from the base.

    Attributes:
        update: the change of linear modules.
        others: the change of every other parameter by its name, as the parameter is stored. Tied parameters stand here
            under each name, with the same tensor.
    """

    update: Update
    others: Mapping[str, Tensor] = field(default_factory=dict)


class WeightPath:
    """`theta(s)`: base to tuned `W + s dW` with one end, across tasks `W + (1-s) dW_1 + s dW_2` with two.

    dW is the effective update, scale included; parameters that are no linear weight move by the same rule. The model is
    the base and stays so outside `at`. Memory: the base and one copy of the parameters that move; low-rank updates are
    multiplied out module by module.

    The variant "factors" mixes LoRA factors instead, as some published curves do (source: subspaces, arXiv
    2511.02022). With `(B, A)` for `(scale B, A)`: across tasks `((1-s) B_1 + s B_2)((1-s) A_1 + s A_2)`, which adds the
    cross terms `s(1-s)(B_1 A_2 + B_2 A_1)`; base to tuned `s^2 dW`. It is no function of the models at its ends, since
    `(BG, G^-1 A)` is the same model for every invertible G.

    Args:
        model: the base.
        ends: one tuned model or two.

    Raises:
        InputError: an update of modules that the model lacks or of another shape; for "factors" a change without
            factors, or two adapters of different modules or ranks.
    """

    def __init__(self, model: Model, ends: Sequence[End], variant: Variant = "effective") -> None:
        assert len(ends) in (1, 2)
        self.model, self.ends, self.variant = model, tuple(ends), variant
        for end in ends:
            _check_modules(model, end.update)
        if variant == "factors":
            _check_factors([end.update for end in ends])

    def coefficients(self, s: float) -> tuple[float, ...]:
        """What each end's change is multiplied by: `(s,)`, or `(1-s, s)`."""
        return (s,) if len(self.ends) == 1 else (1 - s, s)

    def update(self, s: float) -> Update:
        """The change of linear modules from the base to `theta(s)`, lazily."""
        parts = [a * end.update for a, end in zip(self.coefficients(s), self.ends, strict=True) if a]
        straight = reduce(add, parts) if parts else 0.0 * self.ends[0].update
        return straight.map(lambda name, _: self._mixed_factors(name, s)) if self.variant == "factors" else straight

    def rounding(self, s: float) -> float:
        """How much rounding to the weights' dtype moves `theta(s)`, relative to its distance from the base."""
        errors, distances = [], []
        for name in self._names():
            parameter = self._parameter(name)
            moved = self._moved(name, parameter, s)
            errors.append(_norm(moved.to(parameter.dtype).to(moved.dtype) - moved))
            distances.append(_norm(moved - parameter.detach()))
        return math.hypot(*errors) / math.hypot(*distances)

    @contextmanager
    def at(self, s: float) -> Iterator[Model]:
        """The model at `theta(s)`; the base's own parameters are back afterwards, whatever happens."""
        kept: dict[str, nn.Parameter] = {}
        made: dict[tuple[int | str, ...], nn.Parameter] = {}
        try:
            for name in self._names():
                parameter = self._parameter(name)
                key = (id(parameter), *self._changes(name))
                if key not in made:
                    moved = self._moved(name, parameter, s).to(parameter.dtype)
                    made[key] = nn.Parameter(moved, parameter.requires_grad)
                kept[name] = parameter
                self._put(name, made[key])
            yield self.model
        finally:
            for name, parameter in kept.items():
                self._put(name, parameter)

    def _names(self) -> dict[str, None]:
        """Every parameter that moves, under each of its names."""
        linear = (f"{module}.weight" for end in self.ends for module in end.update)
        return dict.fromkeys([*linear, *(name for end in self.ends for name in end.others)])

    def _changes(self, name: str) -> tuple[int | str, ...]:
        """What tells apart the changes of tied parameters: the tensor at each end, or the name of a linear weight."""
        module = name.removesuffix(".weight")
        return tuple(name if module in end.update else id(end.others.get(name)) for end in self.ends)

    def _moved(self, name: str, parameter: Tensor, s: float) -> Tensor:
        """A parameter at `theta(s)`, in at least float32."""
        moved = parameter.detach().to(torch.promote_types(parameter.dtype, torch.float32), copy=True)
        for a, end in zip(self.coefficients(s), self.ends, strict=True):
            if name in end.others:
                moved.add_(end.others[name].to(moved), alpha=a)
        module = name.removesuffix(".weight")
        is_oriented = module in self.model.linears and is_transposed(self.model.linears[module])
        for a, delta in self._deltas(module, s):
            _add(moved.T if is_oriented else moved, delta, a)
        return moved

    def _deltas(self, module: str, s: float) -> Iterator[tuple[float, Delta]]:
        if self.variant == "factors":
            if module in self.ends[0].update:
                yield 1.0, self._mixed_factors(module, s)
            return
        for a, end in zip(self.coefficients(s), self.ends, strict=True):
            if a and module in end.update:
                yield a, end.update[module]

    def _mixed_factors(self, module: str, s: float) -> LowRank:
        pairs = [end.update[module].tensors for end in self.ends]
        left, right = (
            sum((a * factor for a, factor in zip(self.coefficients(s), factors, strict=True)), torch.tensor(0.0))
            for factors in zip(*pairs, strict=True)
        )
        return LowRank(left, right)

    def _parameter(self, name: str) -> nn.Parameter:
        return self.model.module.get_parameter(name)

    def _put(self, name: str, parameter: nn.Parameter) -> None:
        module, _, own = name.rpartition(".")
        setattr(self.model.module.get_submodule(module), own, parameter)


def _norm(tensor: Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64))


def _add(weight: Tensor, delta: Delta, a: float) -> None:
    """`weight += a * delta`, both [o, i], in the weight's dtype."""
    if isinstance(delta, LowRank):
        weight.addmm_(delta.left.to(weight), delta.right.to(weight), alpha=a)
    else:
        weight.add_(delta.dense().to(weight), alpha=a)


def _check_modules(model: Model, update: Update) -> None:
    lost = [name for name in update if name not in model.linears]
    if lost:
        raise InputError(f"the model has no linear module {lost[0]}, which the update changes")


def _check_factors(updates: Sequence[Update]) -> None:
    first, *rest = updates
    for other in rest:
        if odd := sorted(set(first) ^ set(other)):
            raise InputError(f"factors can be mixed for adapters of the same modules: {odd[0]} is in one of them only")
    for name in first:
        deltas = [update[name] for update in updates]
        if not all(isinstance(delta, LowRank) for delta in deltas):
            raise InputError(f"factors can be mixed for LoRA adapters only: the change of {name} has none")
        ranks = [delta.tensors[0].shape[1] for delta in deltas]
        if len(set(ranks)) > 1:
            raise InputError(f"factors can be mixed for adapters of equal rank: {name} has {ranks[0]} and {ranks[1]}")
