"""Every pair of several updates over all modules: figures of each module, block and the whole, with their nulls."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

import numpy as np
import torch

from tiltmeter.errors import InputError
from tiltmeter.geometry.figures import Figures, Mean, Summary
from tiltmeter.geometry.nulls import Pool
from tiltmeter.geometry.pairs import Change, ModulePairs, RowSpaces, module_pairs
from tiltmeter.geometry.similarity import Dims
from tiltmeter.geometry.stacks import Stacks
from tiltmeter.progress import track
from tiltmeter.updates.delta import LowRank
from tiltmeter.updates.update import DIFFERENCE, Update

DIMS = Dims()
SHARED = 0.5  # of the way from independent row spaces to equal ones: above it they have a common origin


@dataclass
class PairComparison:
    """One pair of updates.

    Attributes:
        modules: the figures of each module that both change.
        rows: of each of them; None unless both changes are low rank.
        blocks: the mean over each block's modules.
    """

    modules: dict[str, Summary] = field(default_factory=dict)
    rows: dict[str, RowSpaces | None] = field(default_factory=dict)
    blocks: dict[int, Mean] = field(default_factory=dict)

    def add(self, module: str, block: int | None, figures: Figures) -> None:
        """Takes in one more module."""
        self.modules[module] = figures.summary()
        if block is not None:
            self.blocks.setdefault(block, Mean()).add(figures)

    @property
    def overall(self) -> Figures:
        """The mean over blocks."""
        return Mean.of(block.figures for _, block in sorted(self.blocks.items()))

    @property
    def row_spaces(self) -> RowSpaces | None:
        """The mean over modules; None if some change is not low rank."""
        known = [each for each in self.rows.values() if each is not None]
        if len(known) < len(self.rows):
            return None
        cosines = [each.cosine for each in known if each.cosine is not None]
        return RowSpaces(
            overlap=float(np.mean([each.overlap for each in known])),
            independent=float(np.mean([each.independent for each in known])),
            cosine=float(np.mean(cosines)) if len(cosines) == len(known) else None,
        )

    @property
    def shares_initialisation(self) -> bool:
        """Do the row spaces (those of LoRA's A) coincide more than half, beyond chance?"""
        rows = self.row_spaces
        return rows is not None and rows.overlap - rows.independent > SHARED * (1 - rows.independent)


@dataclass(frozen=True)
class Comparison:
    """All pairs of several updates.

    Attributes:
        changes: name -> module -> what the update does to it; modules that it leaves alone are left out.
        pairs: (name, name), in the order of the updates; pairs without a common module are left out.
    """

    changes: Mapping[str, Mapping[str, Change]]
    pairs: Mapping[tuple[str, str], PairComparison]


def compare(
    updates: Mapping[str, Update],
    blocks: Mapping[str, int | None] | None = None,
    dims: Dims = DIMS,
    draws: int = 64,
    accuracy: float = 0.01,
    seed: int = 0,
) -> Comparison:
    """Compares every pair of updates of one base, module by module; each change is read once.

    Args:
        updates: by name.
        blocks: module -> block; modules of None are compared, and left out of the means. One block if not given.
        dims: leading singular directions that enter.
        draws: of each null.
        accuracy: of the leading directions of dense changes; see `range_finder`.
        seed: of the nulls, and of the range finder's start.

    Raises:
        InputError: fewer than two updates, or shapes that differ; it names module and updates.
    """
    if len(updates) < 2:
        raise InputError(f"expected at least two updates to compare, got {len(updates)}")
    names = list(updates)
    modules = list(dict.fromkeys(module for update in updates.values() for module in update))
    pool = Pool(dims, draws, seed)
    work = partial(_module_pairs, updates, pool, accuracy)
    changes: dict[str, dict[str, Change]] = {name: {} for name in names}
    pairs: dict[tuple[int, int], PairComparison] = {}
    stacks: Stacks[tuple[str, tuple[int, int]]] = Stacks(pool)

    def take(measured: Iterable[tuple[tuple[str, tuple[int, int]], Figures]]) -> None:
        for (module, places), figures in measured:
            pairs[places].add(module, 0 if blocks is None else blocks[module], figures)

    done = track(_in_threads(work, modules, updates), "comparing modules", len(modules))
    for module, found in zip(modules, done, strict=True):
        for place, change in found.changes.items():
            changes[names[place]][module] = change
        for places, pair in found.pairs.items():
            pairs.setdefault(places, PairComparison()).rows[module] = pair.rows
            take(stacks.add((module, places), pair))
    take(stacks.rest())
    return Comparison(changes, {(names[a], names[b]): pair for (a, b), pair in sorted(pairs.items())})


def _module_pairs(updates: Mapping[str, Update], pool: Pool, accuracy: float, module: str) -> ModulePairs:
    deltas = {k: delta for k, update in enumerate(updates.values()) if (delta := update.get(module)) is not None}
    names = list(updates)
    shapes = {delta.shape: names[k] for k, delta in deltas.items()}
    if len(shapes) > 1:
        (one, first), (two, second) = list(shapes.items())[:2]
        raise InputError(
            f"module {module}: {list(one)} in {first}, {list(two)} in {second}: updates of different bases"
        )
    are_adapters = {k: updates[names[k]].kind != DIFFERENCE for k in deltas}
    return module_pairs(module, deltas, are_adapters, pool, accuracy)


def _in_threads(
    work: Callable[[str], ModulePairs], modules: Sequence[str], updates: Mapping[str, Update]
) -> Iterator[ModulePairs]:
    """Modules side by side where changes are low rank, whose products are too small for a library's own threads.

    Dense changes come one after the other, so that one tensor pair of each checkpoint is in memory.
    """
    first = (delta for update in updates.values() for delta in islice(update.values(), 1))
    if not all(isinstance(delta, LowRank) for delta in first):
        yield from map(work, modules)
        return
    with _one_thread_each() as workers, ThreadPoolExecutor(workers) as pool:
        yield from pool.map(work, modules)


@contextmanager
def _one_thread_each() -> Iterator[int]:
    """The number of threads that torch would have used, while it uses one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)
