"""Many pairs of changes measured together: those of one shape and rank stand in one tensor, figures and nulls alike."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Generic, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.geometry.figures import Figures
from tiltmeter.geometry.nulls import Pool, RandomB, Spectra, closed_forms, null_figures
from tiltmeter.geometry.pairs import ModulePair, SharedA
from tiltmeter.geometry.similarity import FIGURES, SIDES, cosine, subspace_figures

TOGETHER = 1000  # random products of r x r in one tensor: more of them leave the cache

Key = TypeVar("Key")


class Stacks(Generic[Key]):
    """Pairs that wait until there are enough of their shape and ranks to be measured together."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._rng = np.random.default_rng(pool.seed)
        self._waiting: dict[tuple[object, ...], list[tuple[Key, ModulePair]]] = {}

    def add(self, key: Key, pair: ModulePair) -> Iterator[tuple[Key, Figures]]:
        """Takes in a pair; gives the figures of those whose turn has come, by their keys."""
        kind = _kind(pair)
        waiting = self._waiting.setdefault(kind, [])
        waiting.append((key, pair))
        if len(waiting) * self._pool.draws >= TOGETHER:
            yield from self._measure(self._waiting.pop(kind))

    def rest(self) -> Iterator[tuple[Key, Figures]]:
        """The figures of all that still wait."""
        while self._waiting:
            yield from self._measure(self._waiting.pop(next(iter(self._waiting))))

    def _measure(self, waiting: Sequence[tuple[Key, ModulePair]]) -> Iterator[tuple[Key, Figures]]:
        values, closed, draws = (part.numpy() for part in measure([pair for _, pair in waiting], self._pool, self._rng))
        for place, (key, _) in enumerate(waiting):
            yield key, Figures(values[place], closed[place], draws[place])


def measure(
    pairs: Sequence[ModulePair], pool: Pool, rng: np.random.Generator
) -> tuple[Float[Tensor, "G F"], Float[Tensor, "G F"], Float[Tensor, "G Q F D"]]:
    """Figures, closed forms and draws of G pairs of one shape and of the same ranks, in the order of `FIGURES`."""
    spectra = Spectra(
        pairs[0].shape,
        torch.stack([pair.values[0] for pair in pairs]),
        torch.stack([pair.values[1] for pair in pairs]),
        torch.tensor([pair.kept for pair in pairs], dtype=torch.float64),
    )
    products = {side: torch.stack([getattr(pair, side) for pair in pairs]) for side in SIDES}
    values = {
        f"{kind}_{side}": found
        for side in SIDES
        for kind, found in subspace_figures(products[side], spectra.one, spectra.two, pool.dims).items()
    }
    implied = cosine(products["left"], products["right"], spectra.one, spectra.two)
    given = torch.tensor([torch.nan if pair.cosine is None else pair.cosine for pair in pairs], dtype=torch.float64)
    values["cosine"] = torch.where(given.isnan(), implied, given)
    shared = _shared([pair.shared for pair in pairs if pair.shared is not None])
    draws = null_figures(spectra, shared, pool, rng)
    return _in_order(values), _in_order(closed_forms(spectra, pool.dims)), draws


def _kind(pair: ModulePair) -> tuple[object, ...]:
    """What pairs that are measured together have in common."""
    return pair.shape, pair.left.shape, None if pair.shared is None else pair.shared.rows.shape


def _shared(pairs: Sequence[SharedA]) -> tuple[RandomB, RandomB, Tensor] | None:
    if not pairs:
        return None
    one, two = (
        RandomB(torch.stack([b.values for b in changes]), torch.stack([b.turns for b in changes]))
        for changes in ([pair.one for pair in pairs], [pair.two for pair in pairs])
    )
    return one, two, torch.stack([pair.rows for pair in pairs])


def _in_order(found: Mapping[str, Float[Tensor, " G"]]) -> Float[Tensor, "G F"]:
    missing = torch.full_like(found["cosine"], torch.nan)
    return torch.stack([found.get(figure, missing) for figure in FIGURES], 1)
