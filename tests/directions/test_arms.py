"""Arms, and vectors in the direction's place: how large their changes are, and which there are."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

import planted
from tiltmeter.activations.direction import Direction
from tiltmeter.directions.arms import Arm, Vectors, arms, check_names, drawn, edits, given
from tiltmeter.directions.found import Found
from tiltmeter.directions.steer_request import Change, Steering
from tiltmeter.errors import InputError

NAMES = ["layers.0", "layers.1", "layers.2", "layers.3"]
D = 16


def vector(seed: int) -> Tensor:
    return 3 * torch.randn(D, generator=torch.Generator().manual_seed(seed))


DIRECTION = Direction({name: vector(number) for number, name in enumerate(NAMES)})
HIDDEN = torch.randn(7, D, dtype=torch.float64, generator=torch.Generator().manual_seed(9))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """The planted direction, with the states it comes from."""
    return planted.found(tmp_path_factory.mktemp("found"), planted.model(), planted.model(6.0))


def arm(*numbers: int, dose: float = 0.5) -> Arm:
    return Arm(numbers, tuple(NAMES[number] for number in numbers), dose)


def test_every_group_of_blocks_with_every_dose() -> None:
    made = arms(Steering(blocks=((-1,), (0, 1)), doses=(0.5, 2.0)), NAMES, DIRECTION)
    assert [(each.numbers, each.dose, each.name) for each in made] == [
        ((3,), 0.5, "3 x0.5"), ((3,), 2.0, "3 x2"), ((0, 1), 0.5, "0+1 x0.5"), ((0, 1), 2.0, "0+1 x2"),
    ]  # fmt: skip
    assert made[2].blocks == ("layers.0", "layers.1")


def test_without_a_group_each_block_of_the_direction_is_one() -> None:
    some = Direction({name: DIRECTION[name] for name in ("layers.1", "layers.3")})
    assert [each.numbers for each in arms(Steering(blocks=(), doses=(1.0,)), NAMES, some)] == [(1,), (3,)]


UNFIT: dict[str, tuple[Steering, str]] = {
    "no such block": (Steering(blocks=((4,),)), "--block 4: the model has blocks 0 to 3"),
    "nor from the end": (Steering(blocks=((0, -5),)), "--block 0+-5: the model has blocks 0 to 3"),
    "block twice": (Steering(blocks=((3, -1),)), "--block 3+-1: the same block twice"),
    "arm twice": (Steering(blocks=((0, 1), (1, 0)), doses=(1.0,)), "given twice among 0[+]1 x1, 1[+]0 x1"),
    "dose twice": (Steering(doses=(0.5, 0.5000000001)), "given twice among 3 x0.5, 3 x0.5"),
}


@pytest.mark.parametrize(("steering", "message"), UNFIT.values(), ids=UNFIT.keys())
def test_arms_that_cannot_be(steering: Steering, message: str) -> None:
    with pytest.raises(InputError, match=message.replace("+-", "[+]-")):
        arms(steering, NAMES, DIRECTION)


def test_a_block_without_a_vector_is_refused() -> None:
    with pytest.raises(InputError, match=r"the direction has no block 'layers\.0'"):
        arms(Steering(blocks=((0,),)), NAMES, Direction({"layers.1": vector(1)}))


@pytest.mark.parametrize(("change", "sign"), [("subtract", -1), ("add", 1)])
def test_a_shift_is_the_dose_times_the_direction(change: Change, sign: int) -> None:
    made = edits(change, arm(1, 2), DIRECTION.vectors)
    assert list(made) == ["layers.1", "layers.2"]
    for block, edit in made.items():
        torch.testing.assert_close(edit(HIDDEN) - HIDDEN, sign * 0.5 * DIRECTION[block].double().expand(7, D))


def changes(change: Change, along: Vectors | None, scale: float = 1.0) -> Tensor:
    """What an edit of block 1 adds to the states, by token."""
    return edits(change, arm(1), DIRECTION.vectors, along, scale)["layers.1"](HIDDEN) - HIDDEN


@pytest.mark.parametrize("scale", [1.0, 2.5])
@pytest.mark.parametrize("change", ["subtract", "add", "ablate"])
def test_a_control_changes_every_token_as_much_as_the_direction(change: Change, scale: float) -> None:
    v = DIRECTION["layers.1"].double()
    own = changes(change, None).norm(dim=1)
    expected = 0.5 * (HIDDEN @ v).abs() / v.norm() if change == "ablate" else 0.5 * v.norm().expand(7)
    torch.testing.assert_close(own, expected)
    for other in (100 * vector(5), -v.float(), 1e-3 * vector(6)):
        moved = changes(change, {"layers.1": other}, scale)
        torch.testing.assert_close(moved.norm(dim=1), scale * own)
        torch.testing.assert_close(cosine_similarity(moved, other.double()[None]).abs(), torch.ones(7).double())


def test_random_kinds_need_the_states_that_the_direction_comes_from(found: Found) -> None:
    first, block = found.direction.vectors
    one = Arm((1,), (block,), 1.0)
    kinds = ["isotropic", "orthogonal", "with the activations' covariance", "permuted labels"]
    assert [*drawn(found, one, 2, 0)] == kinds
    shifted_alike = (Arm((0,), (first,), 1.0), Arm((0, 1), (first, block), 1.0))
    assert [[*drawn(found, each, 2, 0)] for each in shifted_alike] == [kinds[:3], kinds[:3]]
    alone = drawn(Found(found.direction), one, 2, 0)
    assert [*alone] == ["isotropic", "orthogonal"]
    assert all(abs(float(each[block] @ found.direction[block].double())) < 1e-5 for each in alone["orthogonal"])


def test_draws_are_the_same_for_every_dose_and_no_others(found: Found) -> None:
    blocks = tuple(found.direction.vectors)
    both, half = Arm((0, 1), blocks, 1.0), Arm((0, 1), blocks, 0.5)
    made = drawn(found, both, 3, 0)
    for kind, of_kind in made.items():
        again, other = drawn(found, half, 3, 0)[kind], drawn(found, both, 3, 1)[kind]
        assert all(
            torch.equal(one[block], same[block]) for one, same in zip(of_kind, again, strict=True) for block in blocks
        )
        every = torch.stack([each[block] for draws in (of_kind, other) for each in draws for block in blocks])
        assert len(every.unique(dim=0)) == 12


def test_given_vectors() -> None:
    benign, elsewhere = Direction({name: vector(20) for name in NAMES}), Direction({"layers.0": vector(30)})
    beside = {"benign": benign, "elsewhere": elsewhere}
    made = dict(given(replace(Found(DIRECTION), beside=beside), arm(1), NAMES, {"file": benign}))
    assert [*made] == ["sign flip", "another block", "benign", "file"]
    assert torch.equal(made["sign flip"]["layers.1"], -DIRECTION["layers.1"])
    assert torch.equal(made["another block"]["layers.1"], DIRECTION["layers.3"])  # the farthest
    assert torch.equal(made["benign"]["layers.1"], vector(20))
    several = dict(given(Found(DIRECTION), arm(0, 3), NAMES, beside))["another block"]
    assert torch.equal(several["layers.0"], DIRECTION["layers.3"])
    assert torch.equal(several["layers.3"], DIRECTION["layers.0"])
    alone = Found(Direction({"layers.1": DIRECTION["layers.1"]}))
    assert [name for name, _ in given(alone, arm(1), NAMES, {})] == ["sign flip"]


@pytest.mark.parametrize("names", [["sign flip"], ["isotropic 3"], ["permuted labels"], ["a", "a"]])
def test_a_name_that_another_control_has_is_refused(names: list[str]) -> None:
    check_names(["isotropic x", "a", "flip"])
    with pytest.raises(InputError, match=f"--beside {names[0]}: the name of another control"):
        check_names(names)


def test_the_saved_states_are_those_that_were_read(tmp_path: Path, found: Found) -> None:
    pair = found.pair(list(found.direction.vectors)[1])
    assert pair is not None
    base, tuned = pair
    v = found.direction[list(found.direction.vectors)[1]]
    torch.testing.assert_close((tuned.mean(0) - base.mean(0)).float(), v)
