"""Arms of an experiment, blocks and doses, and the vectors that are tried in each: the direction and its controls."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from tiltmeter.activations import controls
from tiltmeter.activations.direction import Direction
from tiltmeter.activations.steering import Edit, ablation, shift
from tiltmeter.directions.experiment import Edits
from tiltmeter.directions.found import Found
from tiltmeter.directions.steer_request import Change, Steering
from tiltmeter.errors import InputError

Vectors = Mapping[str, Float[Tensor, " d"]]  # by block


@dataclass(frozen=True)
class Arm:
    """Blocks that are edited at once, by number and name, and a dose; `of` begins the name of the arm."""

    numbers: tuple[int, ...]
    blocks: tuple[str, ...]
    dose: float
    of: str = ""

    @property
    def label(self) -> str:
        """Of the blocks, for people."""
        return "+".join(map(str, self.numbers))

    @property
    def name(self) -> str:
        """Of the arm, the same for the same blocks and dose."""
        return f"{self.of}{self.label} x{self.dose:g}"


def arms(steering: Steering, blocks: Sequence[str], direction: Direction) -> list[Arm]:
    """Every group of blocks with every dose.

    Raises:
        InputError: a block that the model or the direction does not have, the same arm twice.
    """
    groups = steering.blocks or [(number,) for number, block in enumerate(blocks) if block in direction.vectors]
    made = [_arm(group, dose, blocks) for group in groups for dose in steering.doses]
    for arm in made:
        for block in arm.blocks:
            direction[block]
    if len({(frozenset(arm.numbers), arm.dose) for arm in made}) < len(made):
        raise InputError(f"--block, --dose: given twice among {', '.join(arm.name for arm in made)}")
    return made


def edits(change: Change, arm: Arm, v: Vectors, along: Vectors | None = None, scale: float = 1.0) -> Edits:
    """What happens to the arm's blocks: the change by the direction v, or one of the same norm along other vectors.

    Args:
        v: the direction.
        along: control vectors; their norms do not matter.
        scale: how much larger the control's change is than the direction's.
    """
    return {
        block: _edit(change, arm.dose * scale, v[block], None if along is None else along[block])
        for block in arm.blocks
    }


def drawn(found: Found, arm: Arm, draws: int, seed: int) -> dict[str, list[Vectors]]:
    """Random vectors of every kind that the direction's run gives the means for, each block's drawn by itself.

    The same for every dose: what differs between doses is then no luck of the draw.
    """
    kinds: dict[str, list[dict[str, Tensor]]] = {}
    for number, block in zip(arm.numbers, arm.blocks, strict=True):
        for kind, rows in _kinds(found, block, draws, seed * 1_000 + number).items():
            of_kind = kinds.setdefault(kind, [{} for _ in range(draws)])
            for vectors, row in zip(of_kind, rows, strict=True):
                vectors[block] = row
    return {kind: list[Vectors](of_kind) for kind, of_kind in kinds.items()}


def given(
    found: Found, arm: Arm, blocks: Sequence[str], beside: Mapping[str, Direction]
) -> Iterator[tuple[str, Vectors]]:
    """Vectors that are no draws: the direction's opposite, its neighbour block's, other fine-tunes', those of files."""
    yield "sign flip", {block: -found.direction[block] for block in arm.blocks}
    elsewhere = {block: other for block in arm.blocks if (other := _neighbour(block, blocks, found.direction))}
    if len(elsewhere) == len(arm.blocks):
        yield "another block", {block: found.direction[other] for block, other in elsewhere.items()}
    for name, direction in {**found.beside, **beside}.items():
        if all(block in direction.vectors for block in arm.blocks):
            yield name, {block: direction[block] for block in arm.blocks}


def _arm(group: Sequence[int], dose: float, blocks: Sequence[str]) -> Arm:
    outside = [number for number in group if not -len(blocks) <= number < len(blocks)]
    if outside or not group:
        raise InputError(f"--block {'+'.join(map(str, group))}: the model has blocks 0 to {len(blocks) - 1}")
    numbers = tuple(number % len(blocks) for number in group)
    return Arm(numbers, tuple(blocks[number] for number in numbers), dose)


def _edit(change: Change, dose: float, v: Tensor, along: Tensor | None) -> Edit:
    if change == "ablate":
        return ablation(v[None], None if along is None else along[None], dose)
    vector = v if along is None else controls.matched(along[None], float(v.double().norm()))[0].float()
    return shift(vector, dose if change == "add" else -dose)


def _kinds(found: Found, block: str, draws: int, seed: int) -> dict[str, Float[Tensor, "D d"]]:
    v, pair = found.direction[block], found.pair(block)
    kinds = {
        "isotropic": controls.isotropic(v, draws, seed),
        "orthogonal": controls.orthogonal(v, draws, seed),
    }
    if pair is not None:
        base, tuned = pair
        kinds["with the activations' covariance"] = controls.anisotropic(base, draws, seed)
        kinds["permuted labels"] = controls.permuted_means(base, tuned, draws, seed)
    return kinds


def _neighbour(block: str, blocks: Sequence[str], direction: Direction) -> str | None:
    """The block before, or the one after; None where the direction has neither."""
    number = blocks.index(block)
    around = [blocks[other] for other in (number - 1, number + 1) if 0 <= other < len(blocks)]
    return next((other for other in around if other in direction.vectors), None)
