"""Maps between two base models' states, by name, with what says whether they can be believed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.activations.maps.cca import fit_cca
from tiltmeter.activations.maps.linear_map import Fit, LinearMap, cross_validate
from tiltmeter.activations.maps.procrustes import fit_procrustes
from tiltmeter.activations.maps.ridge import RidgeFit, fit_ridge
from tiltmeter.activations.maps.stitching import StitchFit, fit_stitch
from tiltmeter.directions.transfer_request import MapName
from tiltmeter.models import Model
from tiltmeter.tokens import Encoded

PAIRS = 32  # canonical pairs that are kept, where there are as many prompts and dimensions
FOLDS = 5


@dataclass(frozen=True)
class Place:
    """Where a stitched state goes: the target model, the texts, the block."""

    model: Model
    texts: Sequence[Encoded]
    block: str


@dataclass(frozen=True)
class Mapped:
    """A map and its figures; see `MapRecord`."""

    map: LinearMap
    r2: float
    r2_shuffled: float
    at_edge: bool | None = None
    kl: float | None = None
    kl_ridge: float | None = None


def fit_map(
    name: MapName,
    source: Float[Tensor, "N s"],
    target: Float[Tensor, "N t"],
    place: Callable[[], Place],
    seed: int,
) -> Mapped:
    """The map from source to target states of the same N prompts, with its R2 on held-out prompts.

    Args:
        place: for maps that are trained through the target model.
        seed: of folds, shuffles and training.
    """
    fit = _fits(source, target, place, seed)[name]
    order = torch.randperm(len(target), generator=torch.Generator().manual_seed(seed))
    # A stitching map starts from the ridge map; to train it for every fold would take the model six times.
    checked = fit_ridge if name == "stitch" else fit
    r2, shuffled = (cross_validate(source, each, checked, FOLDS, seed).r2 for each in (target, target[order]))
    found = fit(source, target)
    if isinstance(found, StitchFit):
        return Mapped(found.map, r2, shuffled, kl=found.kl, kl_ridge=found.losses.held_out_before)
    return Mapped(found.map, r2, shuffled, found.at_edge if isinstance(found, RidgeFit) else None)


def _fits(
    source: Tensor, target: Tensor, place: Callable[[], Place], seed: int
) -> Mapping[MapName, Callable[[Tensor, Tensor], Fit]]:
    def stitch(one: Tensor, other: Tensor) -> StitchFit:
        where = place()
        return fit_stitch(where.model, where.texts, where.block, one, other, seed=seed)

    components = min(PAIRS, source.shape[1], target.shape[1], len(source) * (FOLDS - 1) // FOLDS - 1)
    return {
        "ridge": fit_ridge,
        "procrustes": fit_procrustes,
        "cca": partial(fit_cca, components=components),
        "stitch": stitch,
    }
