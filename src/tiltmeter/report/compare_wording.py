"""Pairs, their figures and their nulls in words."""

from collections.abc import Iterable, Sequence

from tiltmeter.report.compare_pairs import LEVEL, is_beyond, reference
from tiltmeter.report.wording import DASH, figure, times
from tiltmeter.runs.compare_result import Figure, GroupRecord, PairRecord

NAMED = 6  # updates that a sentence names


def both(pair: PairRecord) -> str:
    """The names of a pair's updates."""
    return f"{pair.one} and {pair.two}"


def some(names: Sequence[str]) -> str:
    """Names, not more than a sentence can hold.

    >>> some(list("abcdefgh"))
    'a, b, c, d, e and 3 more'
    """
    if len(names) <= NAMED:
        return ", ".join(names)
    return f"{', '.join(names[: NAMED - 1])} and {len(names) - NAMED + 1} more"


def spread(values: Iterable[float]) -> str:
    """The least and the largest of some figures.

    >>> spread([0.5, 0.301, 0.3])
    '0.30 to 0.50'
    """
    return _ends([figure(value, 2) for value in sorted(values)])


def spread_times(ratios: Iterable[float | None]) -> str:
    """The least and the largest of some ratios that are known."""
    return _ends([times(ratio) for ratio in sorted(each for each in ratios if each is not None)])


def _ends(ascending: Sequence[str]) -> str:
    if not ascending:
        return DASH
    low, high = ascending[0], ascending[-1]
    return low if low == high else f"{low} to {high}"


def against_null(pair: PairRecord, which: Figure) -> str:
    """A figure, its ratio to its null's mean, and p."""
    found = pair.figures[which]
    return f"{figure(found.value, 2)}, {times(found.ratio)} its null (p = {figure(reference(found).p, 2)})"


def counted(pairs: Sequence[PairRecord], which: Figure) -> str:
    """How many pairs are beyond their null, and how many would be by chance."""
    count = sum(is_beyond(pair, which) for pair in pairs)
    return f"{count} of {len(pairs)} pairs ({figure(LEVEL * len(pairs), 2)} expected by chance)"


def plural(count: int, noun: str) -> str:
    """A count and its noun.

    >>> plural(1, "pair"), plural(2, "pair")
    ('1 pair', '2 pairs')
    """
    return f"{count} {noun}{'' if count == 1 else 's'}"


def group_name(group: GroupRecord) -> str:
    """Within one group, or between two."""
    return f"within {group.one}" if group.one == group.two else f"{group.one} and {group.two}"


def joined(pair: PairRecord) -> str:
    """The names of a pair's updates, as the head of a row."""
    return f"{pair.one} / {pair.two}"
