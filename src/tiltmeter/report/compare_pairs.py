"""The pairs of a comparison as a reader meets them: which come first, their nulls, and which have a common origin."""

from collections.abc import Sequence

import numpy as np
from scipy.sparse.csgraph import connected_components

from tiltmeter.runs.compare_result import CompareResult, Figure, FigureRecord, NullRecord, PairRecord

LEVEL = 0.05  # of p below which a figure counts as beyond its null
FIGURES: dict[Figure, str] = {
    "cosine": "cosine",
    "overlap_left": "overlap, left",
    "overlap_right": "overlap, right",
    "angle_left": "angle, left",
    "angle_right": "angle, right",
    "component_cosine_left": "|cosine| of components, left",
    "component_cosine_right": "|cosine| of components, right",
    "weighted_overlap_left": "energy-weighted overlap, left",
    "weighted_overlap_right": "energy-weighted overlap, right",
}
MAIN: tuple[Figure, ...] = ("cosine", "overlap_left", "overlap_right", "angle_left", "angle_right")
RANKED_BY: Figure = "overlap_left"  # left subspaces do not depend on a shared initialisation of A


def is_angle(figure: Figure) -> bool:
    """Angles are in degrees, and smaller where updates are more similar."""
    return figure.startswith("angle")


def update_pairs(result: CompareResult) -> list[PairRecord]:
    """Pairs of updates with figures, those furthest beyond their null first."""
    mine = [pair for pair in result.pairs if pair.figures and not _base(result) & {pair.one, pair.two}]
    return sorted(mine, key=lambda pair: -(pair.figures[RANKED_BY].ratio or 0.0))


def base_pairs(result: CompareResult) -> list[PairRecord]:
    """Pairs of an update with the base's own weights, with figures."""
    return [pair for pair in result.pairs if pair.figures and _base(result) & {pair.one, pair.two}]


def ordered_updates(result: CompareResult) -> list[str]:
    """All updates, similar ones beside each other where they could be ordered; the base's weights last."""
    known = list(result.updates) if result.ordering is None else result.ordering.names
    return [name for name in known if name not in _base(result)] + sorted(_base(result))


def reference(figure: FigureRecord) -> NullRecord:
    """The null that the ratio of a figure is taken to."""
    shared = figure.shared_initialisation
    return figure.same_spectrum if figure.reference == "same_spectrum" or shared is None else shared


def is_beyond(pair: PairRecord, figure: Figure) -> bool:
    """Is a pair's p at most 0.05, without a correction for their number?"""
    return reference(pair.figures[figure]).p <= LEVEL


def shares(pair: PairRecord) -> bool:
    """Do two updates share their initialisation?"""
    return pair.row_spaces is not None and pair.row_spaces.shared


def origins(pairs: Sequence[PairRecord]) -> list[list[str]]:
    """The sets of updates that pairs with a shared initialisation join, largest first; those alone are left out."""
    joined = [pair for pair in pairs if shares(pair)]
    names = list(dict.fromkeys(name for pair in joined for name in (pair.one, pair.two)))
    if not joined:
        return []
    links = np.zeros((len(names), len(names)), bool)
    for pair in joined:
        links[names.index(pair.one), names.index(pair.two)] = True
    count, labels = connected_components(links, directed=False)
    sets = [[names[place] for place in np.flatnonzero(labels == k)] for k in range(count)]
    return sorted(sets, key=lambda names: -len(names))


def _base(result: CompareResult) -> set[str]:
    """The name of the base's own weights, if they were compared."""
    return {name for name, update in result.updates.items() if update.kind == "weights"}
