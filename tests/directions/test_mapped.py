"""Maps by name, and their figures against scikit-learn's on the same folds."""

from typing import get_args

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold
from torch import Tensor

import kindred
from paired_activations import related
from tiltmeter.activations.capture import capture, prompts_only
from tiltmeter.directions.mapped import FOLDS, PAIRS, Place, fit_map
from tiltmeter.directions.transfer_request import MapName
from tiltmeter.models import assemble

SOURCE, TARGET = related(50, 7, 9)
CLOSED: tuple[MapName, ...] = ("ridge", "procrustes", "cca")


def nowhere() -> Place:
    raise AssertionError("a map in closed form asks for no model")


def held_out(source: Tensor, target: Tensor, seed: int) -> float:
    """`1 - SSE/SST` over folds, penalties chosen in the other folds: 13, relative to the mean nonzero eigenvalue."""
    X, Y = source.numpy(), target.numpy()
    errors = total = 0.0
    for train, test in KFold(FOLDS, shuffle=True, random_state=seed).split(X):
        eigenvalues = np.linalg.eigvalsh(np.cov(X[train], rowvar=False) * (len(train) - 1))
        fitted = RidgeCV(alphas=np.logspace(-6, 3, 13) * eigenvalues.mean()).fit(X[train], Y[train])
        errors += ((Y[test] - fitted.predict(X[test])) ** 2).sum()
        total += ((Y[test] - Y[test].mean(0)) ** 2).sum()
    return 1 - errors / total


def test_a_ridge_map_has_scikit_learns_r2_on_held_out_prompts() -> None:
    found = fit_map("ridge", SOURCE, TARGET, nowhere, seed=4)
    assert found.r2 == pytest.approx(held_out(SOURCE, TARGET, 4), abs=1e-9)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(4))
    assert found.r2_shuffled == pytest.approx(held_out(SOURCE, TARGET[order], 4), abs=1e-9)
    assert (found.at_edge, found.kl, found.kl_ridge) == (False, None, None)


@pytest.mark.parametrize("name", CLOSED)
def test_shuffled_pairs_predict_nothing(name: MapName) -> None:
    found = fit_map(name, SOURCE, TARGET, nowhere, seed=0)
    assert found.map.name == name
    assert found.r2_shuffled < 0.05 < 0.5 < found.r2


@pytest.mark.parametrize("name", CLOSED)
def test_pairs_that_are_unrelated_predict_nothing_either(name: MapName) -> None:
    other = related(50, 7, 9, seed=1)[1]
    assert fit_map(name, SOURCE, other, nowhere, seed=0).r2 < 0.05


@pytest.mark.parametrize("name", CLOSED)
@pytest.mark.parametrize("prompts", range(10, 16))
def test_the_fewest_prompts_suffice_for_any_width(name: MapName, prompts: int) -> None:
    for shape in ((prompts, 40, 30), (prompts, 5, 60), (prompts, 60, 5)):
        source, target = related(*shape)
        assert fit_map(name, source, target, nowhere, seed=0).map.matrix.shape == shape[:0:-1]


def test_canonical_pairs_are_few() -> None:
    source, target = related(200, 50, 60)
    wide = fit_map("cca", source, target, nowhere, seed=0).map
    assert int(torch.linalg.matrix_rank(wide.matrix)) == PAIRS
    narrow = fit_map("cca", SOURCE, TARGET, nowhere, seed=0).map
    assert int(torch.linalg.matrix_rank(narrow.matrix)) == 7


def test_a_stitching_map_is_trained_through_the_target_and_is_no_worse_than_its_ridge_map() -> None:
    common = kindred.prompts(20, "common")
    models = {name: assemble(kindred.module(name), kindred.tokenizer(name)) for name in kindred.SIZES}
    texts = {name: prompts_only(model, common) for name, model in models.items()}
    blocks = {name: list(model.blocks)[-1] for name, model in models.items()}
    read = {name: capture(models[name], texts[name], [blocks[name]]).per_prompt(blocks[name]) for name in models}
    place = Place(models["two"], texts["two"], blocks["two"])
    found = fit_map("stitch", read["one"], read["two"], lambda: place, seed=0)
    ridge = fit_map("ridge", read["one"], read["two"], nowhere, seed=0)
    assert (found.map.name, found.at_edge) == ("stitch", None)
    assert (found.r2, found.r2_shuffled) == (ridge.r2, ridge.r2_shuffled)
    assert found.kl is not None
    assert found.kl_ridge is not None
    assert 0 <= found.kl <= found.kl_ridge


def test_every_name_is_tried_here() -> None:
    assert set(get_args(MapName)) == {*CLOSED, "stitch"}
