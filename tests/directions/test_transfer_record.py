"""What is saved of a map: where it carries the source's direction, beside random ones."""

import numpy as np
import pytest
import torch

from paired_activations import related
from tiltmeter.activations.specificity.controls import isotropic
from tiltmeter.directions.mapped import Mapped, Place, fit_map
from tiltmeter.directions.routes import States
from tiltmeter.directions.transfer_record import COSINES, map_record
from tiltmeter.directions.transfer_request import MapName

BASES = related(40, 7, 9)


def nowhere() -> Place:
    raise AssertionError


def states(base: torch.Tensor, seed: int) -> States:
    noise = torch.randn(len(base) + 1, base.shape[1], generator=torch.Generator().manual_seed(seed)).double()
    return States(base, base + noise[0] + 0.5 * noise[1:])


SOURCE, TARGET = states(BASES[0], 1), states(BASES[1], 2)


@pytest.mark.parametrize("kind", ["ridge", "procrustes", "cca"])
def test_figures_are_those_of_dense_numpy(kind: MapName) -> None:
    found = fit_map(kind, SOURCE.base, TARGET.base, nowhere, seed=3)
    record = map_record(("one", "two"), SOURCE, TARGET, found, seed=3)
    W, v = found.map.matrix.numpy(), SOURCE.tuned.numpy().mean(0) - SOURCE.base.numpy().mean(0)
    own = TARGET.tuned.numpy().mean(0) - TARGET.base.numpy().mean(0)
    singular = np.linalg.svd(W, compute_uv=False)
    random = isotropic(SOURCE.direction, COSINES, 3).numpy() @ W.T
    cosines = np.abs(random @ own) / (np.linalg.norm(random, axis=1) * np.linalg.norm(own))
    assert (record.source, record.target, record.map) == ("one", "two", kind)
    assert record.cosine == pytest.approx(W @ v @ own / (np.linalg.norm(W @ v) * np.linalg.norm(own)))
    assert record.norm_ratio == pytest.approx(np.linalg.norm(W @ v) / np.linalg.norm(own))
    assert record.effective_rank == pytest.approx((singular**2).sum() ** 2 / (singular**4).sum())
    assert record.random_cosine == pytest.approx(np.quantile(cosines, 0.95))
    assert (record.r2, record.r2_shuffled) == (found.r2, found.r2_shuffled)


def test_what_only_some_maps_have_is_kept() -> None:
    found = fit_map("ridge", SOURCE.base, TARGET.base, nowhere, seed=0)
    stitched = Mapped(found.map, 0.5, 0.25, kl=0.125, kl_ridge=0.75)
    record = map_record(("one", "two"), SOURCE, TARGET, stitched, seed=0)
    assert (record.penalty_at_edge, record.kl, record.kl_ridge) == (None, 0.125, 0.75)
    assert map_record(("one", "two"), SOURCE, TARGET, found, seed=0).penalty_at_edge is False
