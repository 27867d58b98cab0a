"""Who gives and who takes, against plain numpy over every route."""

from itertools import product

import numpy as np
import pytest

from tiltmeter.bounded_intervals import paired_difference
from tiltmeter.directions.topology import Sides, asymmetries, roles

NAMES = ("one", "two", "three")
BOUNDS = (1.0, 5.0)
WAYS = ("ridge", "span, ridge")


def table(prompts: int = 40, seed: int = 0) -> dict[tuple[str, str, str], Sides]:
    """Every route with an outcome of its own; each target without steering is the same for all routes to it."""
    rng = np.random.default_rng(seed)
    plain = {name: rng.integers(1, 6, prompts).astype(float) for name in NAMES}
    made = {}
    for source, target in product(NAMES, NAMES):
        for way in ("own", "span, own") if source == target else WAYS:
            made[source, target, way] = Sides(plain[target], rng.integers(1, 6, prompts).astype(float))
    return made


def effect(sides: Sides) -> float:
    return float((sides.plain - sides.steered).mean())


def test_scores_are_means_over_the_other_models() -> None:
    made = table()
    found = {(role.model, role.way): role for role in roles(made, NAMES, BOUNDS)}
    assert list(found) == [(name, way) for way in WAYS for name in NAMES]
    for (name, way), role in found.items():
        others = [other for other in NAMES if other != name]
        assert role.donor is not None
        assert role.receiver is not None
        assert role.donor.mean == pytest.approx(np.mean([effect(made[name, other, way]) for other in others]))
        assert role.receiver.mean == pytest.approx(np.mean([effect(made[other, name, way]) for other in others]))


def test_there_less_back() -> None:
    made = table()
    found = list(asymmetries(made, NAMES, BOUNDS))
    assert [(each.first, each.second) for each in found[:3]] == [("one", "two"), ("one", "three"), ("two", "three")]
    for each in found:
        there, back = made[each.first, each.second, each.way], made[each.second, each.first, each.way]
        assert each.difference.mean == pytest.approx(effect(there) - effect(back))
        assert each.difference.low < each.difference.mean < each.difference.high


def test_with_two_models_a_score_is_the_route_itself() -> None:
    made = {key: sides for key, sides in table().items() if "three" not in key}
    for role in roles(made, NAMES[:2], BOUNDS):
        other = NAMES[1 - NAMES.index(role.model)]
        for given, key in ((role.donor, (role.model, other)), (role.receiver, (other, role.model))):
            sides = made[(*key, role.way)]
            assert given is not None
            assert vars(given) == vars(paired_difference(sides.plain, sides.steered, BOUNDS))


def test_intervals_cover_the_truth() -> None:
    """Where no route has an effect, few intervals leave 0 out, of scores and of differences."""
    made = [table(30, seed) for seed in range(150)]
    scores = [next(roles(each, NAMES, BOUNDS)).donor for each in made]
    differences = [next(asymmetries(each, NAMES, BOUNDS)).difference for each in made]
    for intervals in (scores, differences):
        outside = [not each.low <= 0 <= each.high for each in intervals if each is not None]
        assert 0.01 < np.mean(outside) < 0.09


def test_where_nothing_varies_an_interval_still_has_a_width() -> None:
    same = {key: Sides(np.ones(20), np.ones(20)) for key in table()}
    for role in roles(same, NAMES, BOUNDS):
        assert role.donor is not None
        assert (role.donor.mean, role.donor.low < -0.1, role.donor.high > 0.1) == (0, True, True)
    assert all(each.difference.low < -0.1 < 0.1 < each.difference.high for each in asymmetries(same, NAMES, BOUNDS))


def test_prompts_without_a_verdict_are_left_out_of_all_routes() -> None:
    made = table()
    made["one", "two", "ridge"].steered[:5] = np.nan
    gives = next(role.donor for role in roles(made, NAMES, BOUNDS) if (role.model, role.way) == ("one", "ridge"))
    kept = [
        Sides(each.plain[5:], each.steered[5:]) for each in (made["one", "two", "ridge"], made["one", "three", "ridge"])
    ]
    assert gives is not None
    assert gives.mean == pytest.approx(np.mean([effect(each) for each in kept]))


def test_what_is_not_known_is_none() -> None:
    made = table()
    made["one", "two", "ridge"].steered[:] = np.nan
    found = {(role.model, role.way): role for role in roles(made, NAMES, BOUNDS)}
    assert found["one", "ridge"].donor is None
    assert found["two", "ridge"].receiver is None
    assert found["two", "ridge"].donor is not None
    pairs = [(each.first, each.second, each.way) for each in asymmetries(made, NAMES, BOUNDS)]
    assert ("one", "two", "ridge") not in pairs
    assert len(pairs) == 5
