"""Arms of an experiment, blocks and doses, and the vectors that are tried in each: the direction and its controls."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from tiltmeter.activations.direction import Direction
from tiltmeter.activations.specificity import controls
from tiltmeter.activations.steering import Edit, ablation, shift
from tiltmeter.directions.experiment import Edits
from tiltmeter.directions.found import Found
from tiltmeter.directions.steer_request import Change, Steering
from tiltmeter.errors import InputError

Vectors = Mapping[str, Float[Tensor, " d"]]  # by block

ISOTROPIC, ORTHOGONAL = "isotropic", "orthogonal"
COVARIANT, PERMUTED = "with the activations' covariance", "permuted labels"
SIGN_FLIP, ANOTHER_BLOCK = "sign flip", "another block"
_ROUNDING = 1e-5  # of states read in float32
_RESERVED = re.compile(rf"({'|'.join((ISOTROPIC, ORTHOGONAL, COVARIANT, PERMUTED, SIGN_FLIP, ANOTHER_BLOCK))})( \d+)?")


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
    if len({(frozenset(arm.numbers), f"{arm.dose:g}") for arm in made}) < len(made):
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
    by_block = {
        block: random_kinds(found.direction[block], found.pair(block), draws, seed * 1_000 + number)
        for number, block in zip(arm.numbers, arm.blocks, strict=True)
    }
    kinds = [kind for kind in by_block[arm.blocks[0]] if all(kind in rows for rows in by_block.values())]
    return {
        kind: [{block: rows[kind][draw] for block, rows in by_block.items()} for draw in range(draws)] for kind in kinds
    }


def random_kinds(
    v: Float[Tensor, " d"], pair: tuple[Float[Tensor, "N d"], Float[Tensor, "M e"]] | None, draws: int, seed: int
) -> dict[str, Float[Tensor, "D d"]]:
    """Draws of every kind that there are means for.

    Args:
        v: the direction at a block.
        pair: both models' activations there, which two of the kinds need.
    """
    kinds = {ISOTROPIC: controls.isotropic(v, draws, seed), ORTHOGONAL: controls.orthogonal(v, draws, seed)}
    if pair is not None:
        kinds[COVARIANT] = controls.anisotropic(pair[0], draws, seed)
        if _pairs_differ(*pair):
            kinds[PERMUTED] = controls.permuted_means(*pair, draws, seed)
    return kinds


def given(
    found: Found, arm: Arm, blocks: Sequence[str], beside: Mapping[str, Direction]
) -> Iterator[tuple[str, Vectors]]:
    """Vectors that are no draws: the direction's opposite, another block's, other fine-tunes', those of files."""
    yield SIGN_FLIP, {block: -found.direction[block] for block in arm.blocks}
    elsewhere = {block: other for block in arm.blocks if (other := _farthest(block, blocks, found.direction))}
    if len(elsewhere) == len(arm.blocks):
        yield ANOTHER_BLOCK, {block: found.direction[other] for block, other in elsewhere.items()}
    for name, direction in {**found.beside, **beside}.items():
        if all(block in direction.vectors for block in arm.blocks):
            yield name, {block: direction[block] for block in arm.blocks}


def check_names(names: Sequence[str]) -> None:
    """Whether given vectors have names that no other control has.

    Raises:
        InputError: one has not.
    """
    for name in names:
        if names.count(name) > 1 or _RESERVED.fullmatch(name):
            raise InputError(f"--beside {name}: the name of another control: choose another")


def _arm(group: Sequence[int], dose: float, blocks: Sequence[str]) -> Arm:
    outside = [number for number in group if not -len(blocks) <= number < len(blocks)]
    if outside or not group:
        raise InputError(f"--block {'+'.join(map(str, group))}: the model has blocks 0 to {len(blocks) - 1}")
    numbers = tuple(number % len(blocks) for number in group)
    if len(set(numbers)) < len(numbers):
        raise InputError(f"--block {'+'.join(map(str, group))}: the same block twice")
    return Arm(numbers, tuple(blocks[number] for number in numbers), dose)


def _edit(change: Change, dose: float, v: Tensor, along: Tensor | None) -> Edit:
    if change == "ablate":
        return ablation(v[None], None if along is None else along[None], dose)
    vector = v if along is None else controls.matched(along[None], float(v.double().norm()))[0].float()
    return shift(vector, dose if change == "add" else -dose)


def _pairs_differ(base: Float[Tensor, "N d"], tuned: Float[Tensor, "N d"]) -> bool:
    """False where the fine-tune moves every state by one vector, as a bias does: then permuted labels find nothing."""
    differences = tuned - base
    return bool((differences - differences.mean(0)).norm() > _ROUNDING * tuned.norm())


def _farthest(block: str, blocks: Sequence[str], direction: Direction) -> str | None:
    """The farthest other block of the direction; None where it has no other.

    What one block writes, the next ones carry on: the direction of a block nearby is much the same vector.
    """
    others = [other for other in blocks if other in direction.vectors and other != block]
    return max(others, key=lambda other: abs(blocks.index(other) - blocks.index(block)), default=None)
