"""What a comparison says, in plain sentences: no more than the figures hold."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tiltmeter.report.compare_pairs import (
    LEVEL,
    base_pairs,
    is_beyond,
    origins,
    reference,
    shares,
    update_pairs,
)
from tiltmeter.report.compare_wording import (
    NAMED,
    against_null,
    both,
    counted,
    group_name,
    plural,
    some,
    spread,
    spread_times,
)
from tiltmeter.report.wording import figure, listed, times
from tiltmeter.runs.compare_result import CompareResult, Figure, GroupRecord, PairRecord, RowSpaceRecord

PART = 2.0  # times chance above which row spaces that do not count as shared still need a word


@dataclass(frozen=True)
class Finding:
    """One kind of finding: what it is about, a word, and its sentences; "mixed" where there is something to see."""

    kind: Literal["mixed", "none"]
    about: str
    word: str
    sentence: str


@dataclass(frozen=True)
class Topic:
    """One figure as sentences speak of it: of many pairs, and of one, whose names go into {}."""

    figure: Figure
    about: str
    many: str
    one: str


LEFT = Topic("overlap_left", "left subspaces", "Left subspaces overlap", "Left subspaces of {} overlap by")
COSINE = Topic("cosine", "cosine", "Cosines are", "The cosine of {} is")
RIGHT = Topic("overlap_right", "right subspaces", "Right subspaces overlap", "Right subspaces of {} overlap by")
APART = Topic(
    "overlap_right",
    "right subspaces",
    "Where no initialisation is shared, right subspaces overlap",
    "Without a shared initialisation, right subspaces of {} overlap by",
)
BASE = Topic(
    "overlap_left",
    "the base's own weights",
    "Left subspaces of updates overlap with those of the base's weights",
    "Left subspaces of {} overlap by",
)


def findings(result: CompareResult) -> list[Finding]:
    """What updates share: an initialisation, left subspaces, cosines, right subspaces, groups, the base."""
    pairs = update_pairs(result)
    if not pairs:
        return [
            Finding("none", "weight space", "nothing to compare", "No two updates change the same module of a block.")
        ]
    apart, base = [pair for pair in pairs if not shares(pair)], base_pairs(result)
    found = [_initialisation(pairs), _judge(LEFT, pairs, _left_note(pairs)), _judge(COSINE, pairs, _signs(pairs))]
    if apart:
        found.append(_judge(APART if len(apart) < len(pairs) else RIGHT, apart))
    if result.group_pairs:
        found.append(_groups(result.group_pairs))
    return found + ([_base(base)] if base else [])


def explain_nulls(result: CompareResult) -> str:
    """What the ratios are taken to."""
    return (
        f"Nulls ({result.draws} draws of each): random updates with the same singular values in every module; where "
        "two adapters share their initialisation, each A kept, and the singular values of B in random orientation. "
        "Ratios are to the null's mean; of angles they are below 1 where updates are more similar than chance."
    )


def explain_p(result: CompareResult) -> str:
    """What p-values of several pairs are worth: the smallest one possible, and Bonferroni's correction."""
    pairs, least = update_pairs(result), 1 / (result.draws + 1)
    head = (
        f"p is of one pair and one figure, (1 + draws at least as similar) / (draws + 1): with {result.draws} draws "
        f"never below {figure(least, 2)}. Beyond chance means p of at most {LEVEL:g}"
    )
    if len(pairs) < 2:
        return f"{head}."
    head = f"{head}, without correction; times {len(pairs)} pairs (Bonferroni)"
    if len(pairs) * least > LEVEL:
        return f"{head} no p can be that low: it takes --draws {math.ceil(len(pairs) / LEVEL) - 1}."
    passed = [f"{_corrected(pairs, topic.figure)} for {topic.about}" for topic in (LEFT, COSINE)]
    return f"{head} it stays so in {listed(passed)}."


def _corrected(pairs: Sequence[PairRecord], which: Figure) -> int:
    return sum(reference(pair.figures[which]).p * len(pairs) <= LEVEL for pair in pairs)


def _initialisation(pairs: Sequence[PairRecord]) -> Finding:
    rows = [(pair, pair.row_spaces) for pair in pairs if pair.row_spaces is not None]
    joined = [pair for pair, _ in rows if shares(pair)]
    about = "shared initialisation"
    if not rows:
        text = "No two updates are both low rank, and only in the A of adapters would a shared initialisation show."
        return Finding("none", about, "cannot be asked", text)
    if not joined:
        text = (
            f"No adapters share their initialisation: row spaces of A overlap by {_rows([each for _, each in rows])}."
        )
        return Finding("none", about, "none", text + _partly(rows))
    coincide = f"the row spaces of A coincide to {_rows([each for _, each in rows if each.shared])}"
    text = f"{_who(joined, len(pairs))} {coincide}, {_whatever_learned(joined)} {_usual_baseline(joined)}"
    word = "yes" if len(pairs) == 1 else f"{len(joined)} of {len(pairs)} pairs"
    return Finding("mixed", about, word, text + _partly(rows))


def _who(joined: Sequence[PairRecord], count: int) -> str:
    if len(joined) == 1:
        return f"{both(joined[0])} share their initialisation:"
    return f"{len(joined)} of {count} pairs share their initialisation, {_sets(origins(joined))}:"


def _sets(sets: Sequence[Sequence[str]]) -> str:
    """By name, or by size where there are too many names for a sentence."""
    if sum(map(len, sets)) > NAMED:
        return f"{plural(len(sets), 'set')} of {listed([str(len(names)) for names in sets])} updates"
    return f"{plural(len(sets), 'set')} of updates ({'; '.join(map(some, sets))})"


def _rows(rows: Sequence[RowSpaceRecord]) -> str:
    return f"{spread(each.overlap for each in rows)} ({spread(each.independent for each in rows)} by chance)"


def _whatever_learned(joined: Sequence[PairRecord]) -> str:
    """What the shared rows give by themselves, and what is observed."""
    found = [pair.figures["overlap_right"] for pair in joined]
    if len(joined) == 1:
        beyond = f"(p = {figure(reference(found[0]).p, 2)})"
    else:
        beyond = f"and beyond it in {counted(joined, 'overlap_right')}"
    return (
        f"so {'their ' if len(joined) == 1 else ''}right subspaces overlap by "
        f"{spread(reference(each).mean for each in found)} whatever they learned; observed "
        f"{spread(each.value for each in found)}, {spread_times(each.ratio for each in found)} that null {beyond}."
    )


def _usual_baseline(joined: Sequence[PairRecord]) -> str:
    """What random matrices would have made of it."""
    found = [pair.figures["overlap_right"] for pair in joined]
    drawn = [(each, each.random.mean) for each in found if each.random is not None and each.random.mean > 0]
    return (
        f"Against random matrices, the usual baseline, it would read "
        f"{spread_times(each.value / mean for each, mean in drawn)}, of which the shared A alone makes "
        f"{spread_times(reference(each).mean / mean for each, mean in drawn)}."
    )


def _partly(rows: Sequence[tuple[PairRecord, RowSpaceRecord]]) -> str:
    found = [each.overlap for _, each in rows if not each.shared and each.overlap > PART * each.independent]
    if not found:
        return ""
    return (
        f" In {plural(len(found), 'pair')} row spaces overlap by {spread(found)}, more than {PART:g} times chance but "
        "too little to count as shared: compare both nulls in the tables."
    )


def _judge(topic: Topic, pairs: Sequence[PairRecord], note: str = "") -> Finding:
    """How many pairs are beyond their null in one figure, and which of them is furthest."""
    beyond = [pair for pair in pairs if is_beyond(pair, topic.figure)]
    kind: Literal["mixed", "none"] = "mixed" if beyond else "none"
    word = "nothing beyond chance"
    if len(pairs) == 1:
        end = "beyond chance" if beyond else "not beyond chance"
        text = f"{topic.one.format(both(pairs[0]))} {against_null(pairs[0], topic.figure)}, {end}."
        return Finding(kind, topic.about, "beyond chance" if beyond else word, text + note)
    if beyond:
        most = max(beyond, key=lambda pair: _distance(pair, topic.figure))
        word, end = f"beyond chance in {len(beyond)} of {len(pairs)}", _furthest(most, topic.figure)
    else:
        end = f"{spread_times(pair.figures[topic.figure].ratio for pair in pairs)} its mean"
    text = f"{topic.many} beyond their null in {counted(pairs, topic.figure)}: {end}."
    return Finding(kind, topic.about, word, text + note)


def _distance(pair: PairRecord, which: Figure) -> float:
    return pair.figures[which].ratio or 0.0


def _furthest(pair: PairRecord, which: Figure) -> str:
    return f"most of all {both(pair)}, {against_null(pair, which)}"


def _left_note(pairs: Sequence[PairRecord]) -> str:
    """Left subspaces do not depend on A; where all pairs are beyond the null, it is not what tells pairs apart."""
    note = " A shared A by itself adds nothing to them." if any(map(shares, pairs)) else ""
    if len(pairs) < 3 or not all(is_beyond(pair, "overlap_left") for pair in pairs):
        return note
    return (
        f"{note} Even {both(pairs[-1])} reach {times(pairs[-1].figures['overlap_left'].ratio)}, so being beyond chance "
        "does not set pairs apart here: compare them with each other."
    )


def _signs(pairs: Sequence[PairRecord]) -> str:
    against = [pair for pair in pairs if pair.figures["cosine"].value < 0 and is_beyond(pair, "cosine")]
    note = (
        " A shared A scatters a cosine more, which the null allows for, and can enlarge one that was learned: pairs "
        "that share A and pairs that do not are not to be compared by it."
    )
    return _opposed(against) + (note if any(map(shares, pairs)) else "")


def _opposed(against: Sequence[PairRecord]) -> str:
    """Pairs that point in opposite directions."""
    if not against:
        return ""
    most = min(against, key=lambda pair: pair.figures["cosine"].value)
    verb = "points" if len(against) == 1 else "point"
    value = figure(most.figures["cosine"].value, 2)
    return (
        f" {plural(len(against), 'pair')} of these {verb} in opposite directions, most of all {both(most)} ({value})."
    )


def _groups(groups: Sequence[GroupRecord]) -> Finding:
    """Means within and between groups. No p: pairs with an update in common are not independent."""
    within = [group for group in groups if group.one == group.two]
    between = [group for group in groups if group.one != group.two]
    text = f"Left overlap {'; '.join(map(_group, [*within, *between]))}."
    if not within or not between:
        return Finding("none", "groups", "means", text)
    most = max(group.figures["overlap_left"].greatest for group in between)
    apart = [each.one for each in within if each.pairs > 1 and each.figures["overlap_left"].least > most]
    end = "Means over pairs that have updates in common: no p-value."
    if not apart:
        return Finding("none", "groups", "not set apart", f"{text} No group is set apart from the others. {end}")
    text = f"{text} Every pair within {' or '.join(apart)} is more similar than any pair of two groups. {end}"
    return Finding("mixed", "groups", f"{listed(apart)} set apart", text)


def _group(group: GroupRecord) -> str:
    found = group.figures["overlap_left"]
    shared = f", {group.shared} with a shared initialisation" if group.shared else ""
    return (
        f"{group_name(group)} {figure(found.mean, 2)} ({times(found.ratio)} its null, "
        f"{plural(group.pairs, 'pair')}{shared})"
    )


def _base(pairs: Sequence[PairRecord]) -> Finding:
    """How far updates lie in the leading directions of the base's own weights."""
    right = sum(is_beyond(pair, "overlap_right") for pair in pairs)
    return _judge(BASE, pairs, f" Right subspaces do in {right} of {len(pairs)}.")
