# ruff: noqa: RUF001 (the sign of multiplication is the one that people read)
"""What the sentences of a comparison claim."""

import pytest

from fake_compare import LEAST, compare_result, empty, group, many, of_pairs, pair, update
from tiltmeter.report.compare_pairs import base_pairs, ordered_updates, origins, update_pairs
from tiltmeter.report.compare_verdict import Finding, explain_nulls, explain_p, findings
from tiltmeter.runs.compare_result import CompareResult, PairRecord


def found(result: CompareResult) -> dict[str, Finding]:
    return {each.about: each for each in findings(result)}


def alike(one: str, two: str, **values: float) -> PairRecord:
    """A pair that shares its initialisation and more."""
    return pair(one, two, shared=True, p=LEAST, **{"overlap_right": 0.6, "overlap_left": 0.36, "cosine": 0.2, **values})


def test_a_shared_initialisation_is_told_apart_from_what_was_learned() -> None:
    sentence = found(of_pairs(alike("med", "fin")))["shared initialisation"].sentence
    assert sentence.startswith("med and fin share their initialisation: the row spaces of A coincide to 0.95 (0.077")
    assert (
        "right subspaces overlap by 0.48 whatever they learned; observed 0.60, 1.2× that null (p = 0.0099)" in sentence
    )
    # The study's baseline: 0.6 / 0.04, of which 0.48 / 0.04 is the initialisation.
    assert "Against random matrices, the usual baseline, it would read 15×, of which the shared A alone makes 12×" in (
        sentence
    )


def test_pairs_with_one_origin_form_a_set() -> None:
    result = compare_result()
    assert origins(update_pairs(result)) == [["med", "fin", "sum"]]
    sentence = found(result)["shared initialisation"].sentence
    assert "3 of 6 pairs share their initialisation, 1 set of updates (med, fin, sum)" in sentence
    assert "overlap by 0.48 whatever they learned; observed 0.48 to 0.60, 1.0× to 1.2× that null" in sentence
    assert "beyond it in 1 of 3 pairs (0.15 expected by chance)" in sentence
    assert "too little to count as shared" not in sentence


def test_sets_that_chain_are_one_and_others_stay_apart() -> None:
    chained = [pair("a", "b", shared=True), pair("b", "c", shared=True), pair("d", "e", shared=True), pair("a", "f")]
    assert origins(chained) == [["a", "b", "c"], ["d", "e"]]
    assert origins([pair("a", "b")]) == []


def test_large_sets_are_counted_not_listed() -> None:
    sentence = found(many(20))["shared initialisation"].sentence
    assert "90 of 190 pairs share their initialisation, 2 sets of 10 and 10 updates" in sentence
    assert "adapter" not in sentence


def test_without_a_shared_initialisation_it_says_so() -> None:
    none = found(of_pairs(pair("a", "b"), pair("a", "c")))["shared initialisation"]
    assert (none.kind, none.word) == ("none", "none")
    assert "row spaces of A overlap by 0.080 (0.077 by chance)" in none.sentence
    assert "too little to count as shared" not in none.sentence
    partly = found(of_pairs(pair("a", "b", rows=0.4), pair("a", "c")))["shared initialisation"].sentence
    assert "In 1 pair row spaces overlap by 0.40, more than 2 times chance but too little to count as shared" in partly


def test_dense_updates_cannot_be_asked() -> None:
    dense = found(of_pairs(pair("a", "b", shared=None)))["shared initialisation"]
    assert dense.word == "cannot be asked"
    assert "No two updates are both low rank" in dense.sentence


def test_nothing_beyond_its_null_is_said_of_each_figure() -> None:
    said = found(of_pairs(pair("a", "b"), pair("a", "c"), pair("b", "c")))
    for about in ("left subspaces", "cosine", "right subspaces"):
        assert (said[about].kind, said[about].word) == ("none", "nothing beyond chance")
        assert "beyond their null in 0 of 3 pairs (0.15 expected by chance): 1.0× its mean" in said[about].sentence
    one = found(of_pairs(pair("a", "b")))["left subspaces"].sentence
    assert one == "Left subspaces of a and b overlap by 0.040, 1.0× its null (p = 0.50), not beyond chance."


def test_the_pair_furthest_beyond_its_null_is_named() -> None:
    near = pair("a", "b", overlap_left=0.08, overlap_left_p=LEAST)
    far = pair("a", "c", overlap_left=0.4, overlap_left_p=LEAST)
    chance = pair("b", "c", overlap_left=0.9, overlap_left_p=0.2)  # far in value, but its null reaches there
    left = found(of_pairs(near, far, chance))["left subspaces"]
    assert left.word == "beyond chance in 2 of 3"
    assert "most of all a and c, 0.40, 10× its null (p = 0.0099)" in left.sentence
    assert "shared A" not in left.sentence


def test_where_all_pairs_are_beyond_their_null_the_least_is_named() -> None:
    pairs = [pair(*names, overlap_left=value, p=LEAST) for names, value in (("ab", 0.4), ("ac", 0.07), ("bc", 0.2))]
    assert "Even a and c reach 1.8×" in found(of_pairs(*pairs))["left subspaces"].sentence
    one_less = [*pairs[:2], pair("b", "c")]
    assert "Even" not in found(of_pairs(*one_less))["left subspaces"].sentence


def test_opposite_directions_are_named() -> None:
    sentence = found(compare_result())["cosine"].sentence
    assert "1 pair of these points in opposite directions, most of all fin and sum (−0.020)" in sentence
    assert "pairs that share A and pairs that do not are not to be compared by it" in sentence
    by_chance = of_pairs(pair("a", "b", cosine=-0.5, cosine_p=0.06))
    assert "shared A" not in found(by_chance)["cosine"].sentence
    assert "opposite" not in found(by_chance)["cosine"].sentence


def test_right_subspaces_are_judged_where_no_initialisation_is_shared() -> None:
    assert found(compare_result())["right subspaces"].sentence.startswith("Where no initialisation is shared, right")
    assert "of 3 pairs" in found(compare_result())["right subspaces"].sentence
    assert "right subspaces" not in found(of_pairs(alike("a", "b")))


def test_a_group_is_set_apart_where_every_pair_in_it_beats_every_pair_of_two_groups() -> None:
    def groups(inner: list[float], outer: list[float]) -> Finding:
        both = [group("bad", "bad", inner, 1), group("bad", "good", outer), group("good", "good", [0.9])]
        return found(compare_result(group_pairs=both))["groups"]

    apart = groups([0.3, 0.5, 0.4], [0.2, 0.29])
    assert apart.word == "bad set apart"  # and not "good", of a single pair
    assert "within bad 0.40 (10× its null, 3 pairs, 1 with a shared initialisation)" in apart.sentence
    assert "bad and good 0.24 (6.1× its null, 2 pairs)" in apart.sentence
    assert "no p-value" in apart.sentence
    assert groups([0.3, 0.5, 0.4], [0.2, 0.31]).word == "not set apart"
    assert groups([0.9], [0.1]).word == "not set apart"
    assert found(compare_result(group_pairs=[group("bad", "bad", [0.4])]))["groups"].word == "means"


def test_the_bases_weights_are_no_update() -> None:
    weights = {"a": update(), "b": update(), "base weights": update("weights", trained_on=None)}
    against = [pair(name, "base weights", shared=None, overlap_left=0.1, p=LEAST) for name in "ab"]
    result = of_pairs(pair("a", "b"), *against, updates=weights)
    assert [(each.one, each.two) for each in update_pairs(result)] == [("a", "b")]
    assert len(base_pairs(result)) == 2
    assert ordered_updates(result)[-1] == "base weights"
    said = found(result)
    assert "Right subspaces do in 2 of 2." in said["the base's own weights"].sentence
    assert (
        "with those of the base's weights beyond their null in 2 of 2 pairs" in said["the base's own weights"].sentence
    )
    assert said["left subspaces"].kind == "none"


def test_nothing_in_common_is_said() -> None:
    result = of_pairs(empty("a", "b"))
    assert [each.word for each in findings(result)] == ["nothing to compare"]


@pytest.mark.parametrize(("draws", "wanted"), [(100, "it takes --draws 119"), (119, "it stays so in 2")])
def test_p_of_several_pairs_is_multiplied_by_their_number(draws: int, wanted: str) -> None:
    """6 pairs: the smallest p, 1/(draws+1), times 6 is at most 0.05 from 119 draws on."""
    p = 1 / (draws + 1)
    pairs = [
        pair(one, two, p=p if one == "a" and two != "b" else 0.02) for one, two in ("ab", "ac", "ad", "bc", "bd", "cd")
    ]
    text = explain_p(of_pairs(*pairs, draws=draws))
    assert "without correction; times 6 pairs (Bonferroni)" in text
    assert wanted in text


def test_p_of_one_pair_needs_no_correction() -> None:
    text = explain_p(of_pairs(pair("a", "b"), draws=199))
    assert "with 199 draws never below 0.0050" in text
    assert "Bonferroni" not in text
    assert "199 draws" in explain_nulls(of_pairs(pair("a", "b"), draws=199))
