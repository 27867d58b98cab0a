"""Hierarchical ordering of updates by their similarity."""

from collections.abc import Sequence

import numpy as np
from scipy.cluster import hierarchy


def order(similarities: Sequence[float]) -> tuple[list[int], list[tuple[int, int, float, int]]]:
    """(leaves, merges) of average linkage on the distance `1 - s`, near leaves beside each other.

    Args:
        similarities: of each pair, in the order (0, 1), (0, 2), ..., (1, 2), ...: scipy's condensed form.
    """
    distances = 1 - np.clip(similarities, -1.0, 1.0)
    linkage = hierarchy.linkage(distances, "average", optimal_ordering=True)
    merges = [(int(one), int(two), float(distance), int(size)) for one, two, distance, size in linkage]
    return [int(leaf) for leaf in hierarchy.leaves_list(linkage)], merges
