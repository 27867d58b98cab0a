"""What is steered along in a target model: its own direction or a carried one, and the controls of each."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.activations import controls
from tiltmeter.activations.maps import LinearMap
from tiltmeter.activations.ridge_map import RidgeSource
from tiltmeter.activations.shared_span import carry_span, leading_span, random_span
from tiltmeter.activations.steering import Edit, ablation, shift
from tiltmeter.directions.arms import Arm
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


Draw = Callable[[int], Float[Tensor, "D k d"]]


@dataclass(frozen=True)
class Route:
    """One way from a source model to a target.

    Attributes:
        source, target, way: names.
        rows: what is steered along: one direction, which is subtracted, or several, which are ablated.
        drawn: kind of control -> so many draws of it.
        given: other vectors by name.
    """

    source: str
    target: str
    way: str
    rows: Float[Tensor, "k d"]
    drawn: Mapping[str, Draw]
    given: Mapping[str, Float[Tensor, "k d"]] = field(default_factory=dict)

    def arm(self, number: int, block: str, dose: float) -> Arm:
        """Its one arm, with a name of its own."""
        return Arm((number,), (block,), dose, f"{self.source} to {self.target}, {self.way}: ")

    def edits(self, arm: Arm, along: Float[Tensor, "k d"] | None = None) -> Edits:
        """What is done to the target's block, along the route's rows or along a control's."""
        (block,) = arm.blocks
        change = _subtracted if len(self.rows) == 1 else ablation
        return {block: change(self.rows, along, arm.dose)}

    def controls(self, arm: Arm, draws: int) -> list[Control]:
        """Every control."""
        return [Control(kind, draw, self.edits(arm, along)) for kind, draw, along in self._vectors(draws)]

    def _vectors(self, draws: int) -> Iterator[tuple[str, int | None, Tensor]]:
        for kind, draw in self.drawn.items():
            yield from ((kind, number, along) for number, along in enumerate(draw(draws), start=1))
        for name, along in self.given.items():
            yield name, None, along


def own_route(name: str, states: States, seed: int) -> Route:
    """Along the target's own direction."""
    v = states.direction
    drawn: dict[str, Draw] = {
        "isotropic": lambda draws: controls.isotropic(v, draws, seed)[:, None],
        "orthogonal": lambda draws: controls.orthogonal(v, draws, seed)[:, None],
        "with the activations' covariance": lambda draws: controls.anisotropic(states.base, draws, seed)[:, None],
        "permuted labels": lambda draws: controls.permuted_means(states.base, states.tuned, draws, seed)[:, None],
    }
    benign = states.benign_direction
    return Route(name, name, OWN, v[None], drawn, {} if benign is None else {"benign": benign[None]})


def carried_route(
    names: tuple[str, str], source: States, target: States, found: LinearMap, seed: int, shuffles: bool
) -> Route:
    """Along the source's direction, carried by a map between the base models' states.

    Args:
        names: of source and target.
        shuffles: also carry it by maps that were fitted to shuffled pairs of prompts; ridge maps, whatever the map.
    """
    v = source.direction
    carried = found.carry(v[None])
    drawn: dict[str, Draw] = {
        "carried isotropic": lambda draws: found.carry(controls.isotropic(v, draws, seed))[:, None],
        "carried orthogonal": lambda draws: found.carry(controls.orthogonal(v, draws, seed))[:, None],
        "isotropic in the target": lambda draws: controls.isotropic(carried[0], draws, seed)[:, None],
    }
    if shuffles:
        drawn["shuffled pairing"] = partial(_shuffled, source, target, seed)
    benign = source.benign_direction
    given = {} if benign is None else {"carried benign": found.carry(benign[None])}
    return Route(*names, found.name, carried, drawn, given)


def span_route(
    names: tuple[str, str], source: States, target: States, found: LinearMap | None, size: int, seed: int
) -> Route:
    """Along several directions at once: the source's leading ones, carried by a map; the target's own without one."""
    span, width = leading_span(source.base, source.tuned, size), target.base.shape[1]
    drawn: dict[str, Draw] = {"random span": lambda draws: random_span(size, width, draws, seed)}
    if found is None:
        return Route(*names, f"span, {OWN}", span, drawn)
    carry = partial(carry_span, found)
    drawn["carried random span"] = lambda draws: torch.stack(
        [carry(each) for each in random_span(size, source.base.shape[1], draws, seed + 1)]
    )
    return Route(*names, f"span, {found.name}", carry(span), drawn)


def _shuffled(source: States, target: States, seed: int, draws: int) -> Float[Tensor, "D k d"]:
    """The direction carried by ridge maps between states of prompts that do not belong together."""
    generator, fitted = torch.Generator().manual_seed(seed), RidgeSource(source.base)
    orders = [torch.randperm(len(target.base), generator=generator) for _ in range(draws)]
    return torch.stack([fitted.fit(target.base[order]).map.carry(source.direction[None]) for order in orders])


def _subtracted(rows: Float[Tensor, "1 d"], along: Float[Tensor, "1 d"] | None, dose: float) -> Edit:
    vector = rows if along is None else controls.matched(along, float(rows.double().norm()))
    return shift(vector[0], -dose)
