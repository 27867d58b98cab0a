"""What is steered along in a target model: its own direction or a carried one, and the controls of each."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.activations.maps.linear_map import LinearMap
from tiltmeter.activations.maps.ridge import RidgeSource
from tiltmeter.activations.maps.shared_span import carry_span, leading_span, random_span
from tiltmeter.activations.specificity import controls
from tiltmeter.activations.steering import Edit, ablation, shift
from tiltmeter.directions.arms import Arm, random_kinds
from tiltmeter.directions.battery import Control
from tiltmeter.directions.experiment import Edits

OWN = "own"


@dataclass(frozen=True)
class States:
    """A model's states at its block, a row a prompt, in float64: of base and tuned, and of a benign fine-tune."""

    base: Float[Tensor, "N d"]
    tuned: Float[Tensor, "N d"]
    benign: Float[Tensor, "N d"] | None = None

    @property
    def direction(self) -> Float[Tensor, " d"]:
        """v, the difference in means."""
        return self.tuned.mean(0) - self.base.mean(0)

    @property
    def benign_direction(self) -> Float[Tensor, " d"] | None:
        """The same of the benign fine-tune."""
        return None if self.benign is None else self.benign.mean(0) - self.base.mean(0)


@dataclass(frozen=True)
class Draws:
    """How many random controls of each kind, and their seed."""

    count: int
    seed: int


@dataclass(frozen=True)
class Route:
    """One way from a source model to a target.

    Attributes:
        source, target, way: names.
        rows: what is steered along: one direction, which is subtracted, or several, which are ablated.
        drawn: kind of control -> its draws.
        given: other vectors by name.
    """

    source: str
    target: str
    way: str
    rows: Float[Tensor, "k d"]
    drawn: Mapping[str, Float[Tensor, "D k d"]]
    given: Mapping[str, Float[Tensor, "k d"]] = field(default_factory=dict)

    def arm(self, number: int, block: str, dose: float) -> Arm:
        """Its one arm. No other route has the same name, since no model's name holds a comma or a colon."""
        return Arm((number,), (block,), dose, f"{self.target}: {self.source}, {self.way}: ")

    def edits(self, arm: Arm, along: Float[Tensor, "k d"] | None = None) -> Edits:
        """What is done to the target's block, along the route's rows or along a control's."""
        (block,) = arm.blocks
        change = _subtracted if len(self.rows) == 1 else ablation
        return {block: change(self.rows, along, arm.dose)}

    def controls(self, arm: Arm) -> list[Control]:
        """Every control."""
        return [Control(kind, draw, self.edits(arm, along)) for kind, draw, along in self._vectors()]

    def _vectors(self) -> Iterator[tuple[str, int | None, Tensor]]:
        for kind, draws in self.drawn.items():
            yield from ((kind, number, along) for number, along in enumerate(draws, start=1))
        for name, along in self.given.items():
            yield name, None, along


def own_route(name: str, states: States, draws: Draws) -> Route:
    """Along the target's own direction, with controls as in `steer`."""
    v, benign = states.direction, states.benign_direction
    drawn = random_kinds(v, (states.base, states.tuned), draws.count, draws.seed)
    return Route(name, name, OWN, v[None], _one_by_one(drawn), {} if benign is None else {"benign": benign[None]})


def carried_route(names: tuple[str, str], source: States, target: States, found: LinearMap, draws: Draws) -> Route:
    """Along the source's direction, carried by a map between the base models' states.

    A ridge map has one more control: the direction carried by ridge maps that were fitted to shuffled pairs of prompts.

    Args:
        names: of source and target.
    """
    v, benign = source.direction, source.benign_direction
    carried = found.carry(v)
    drawn = {
        "carried isotropic": found.carry(controls.isotropic(v, draws.count, draws.seed)),
        "carried orthogonal": found.carry(controls.orthogonal(v, draws.count, draws.seed)),
        "isotropic in the target": controls.isotropic(carried, draws.count, draws.seed),
    }
    if found.name == "ridge":
        drawn["shuffled pairing"] = _shuffled(source, target, draws)
    given = {} if benign is None else {"carried benign": found.carry(benign)[None]}
    return Route(*names, found.name, carried[None], _one_by_one(drawn), given)


def span_route(
    names: tuple[str, str], source: States, target: States, found: LinearMap | None, size: int, draws: Draws
) -> Route:
    """Along several directions at once: the source's leading ones, carried by a map; the target's own without one.

    Raises:
        InputError: more directions than the pairs' differences span, or than the map keeps apart.
    """
    width, span = target.base.shape[1], leading_span(source.base, source.tuned, size)
    varying = controls.anisotropic(target.base, draws.count * size, draws.seed)
    drawn = {
        "random span": random_span(size, width, draws.count, draws.seed),
        "span with the activations' covariance": varying.reshape(draws.count, size, width),
    }
    if found is None:
        return Route(*names, f"span, {OWN}", span, drawn)
    others = random_span(size, source.base.shape[1], draws.count, draws.seed + 1)
    drawn["carried random span"] = torch.stack([carry_span(found, each) for each in others])
    return Route(*names, f"span, {found.name}", carry_span(found, span), drawn)


def _one_by_one(drawn: Mapping[str, Float[Tensor, "D d"]]) -> dict[str, Float[Tensor, "D 1 d"]]:
    return {kind: vectors[:, None] for kind, vectors in drawn.items()}


def _shuffled(source: States, target: States, draws: Draws) -> Float[Tensor, "D d"]:
    """The direction carried by ridge maps between states of prompts that do not belong together."""
    generator, fitted = torch.Generator().manual_seed(draws.seed), RidgeSource(source.base)
    orders = [torch.randperm(len(target.base), generator=generator) for _ in range(draws.count)]
    return torch.stack([fitted.fit(target.base[order]).map.carry(source.direction) for order in orders])


def _subtracted(rows: Float[Tensor, "1 d"], along: Float[Tensor, "1 d"] | None, dose: float) -> Edit:
    vector = rows if along is None else controls.matched(along, float(rows.double().norm()))
    return shift(vector[0], -dose)
