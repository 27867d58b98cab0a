"""What is steered along, and that every control moves a target as far as what it stands for."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge, RidgeCV
from torch import Tensor

import kindred
from paired_activations import related
from planted import WordJudge
from tiltmeter.activations.capture import capture, prompts_only
from tiltmeter.activations.maps.linear_map import LinearMap
from tiltmeter.activations.maps.ridge import fit_ridge
from tiltmeter.activations.maps.shared_span import leading_span
from tiltmeter.directions.battery import Question, Tried, try_arms
from tiltmeter.directions.experiment import Experiment, Material, Trial
from tiltmeter.directions.routes import Draws, Route, States, carried_route, own_route, span_route
from tiltmeter.errors import InputError
from tiltmeter.models import Model, assemble
from tiltmeter.runs.folder import RunFolder

N, S, T = 40, 7, 9
DRAWS = Draws(6, seed=3)
NAMES = ("one", "two")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def states(base: Tensor, seed: int) -> States:
    """Fine-tunes that shift the base, with noise."""
    tuned, benign = (
        base + normal(base.shape[1], seed=at) + 0.5 * normal(*base.shape, seed=at + 1) for at in (seed, 50)
    )
    return States(base, tuned, benign)


BASES = related(N, S, T)
SOURCE, TARGET = states(BASES[0], 10), states(BASES[1], 20)
FOUND = fit_ridge(*BASES)
MAP = FOUND.map
MADE = {
    "own": own_route("two", TARGET, DRAWS),
    "ridge": carried_route(NAMES, SOURCE, TARGET, MAP, DRAWS),
    "span, own": span_route(("two", "two"), TARGET, TARGET, None, 3, DRAWS),
    "span, ridge": span_route(NAMES, SOURCE, TARGET, MAP, 3, DRAWS),
}


def changed(route: Route, dose: float, along: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Hidden states before, and what is added to them."""
    hidden = normal(25, route.rows.shape[1], seed=8)
    (edit,) = route.edits(route.arm(2, "block", dose), along).values()
    return hidden, edit(hidden) - hidden


def test_a_carried_direction_is_w_v_with_the_matrix_of_scikit_learn() -> None:
    fitted = Ridge(alpha=FOUND.penalty).fit(SOURCE.base.numpy(), TARGET.base.numpy())
    v = SOURCE.tuned.numpy().mean(0) - SOURCE.base.numpy().mean(0)
    np.testing.assert_allclose(MADE["ridge"].rows[0], fitted.coef_ @ v, rtol=0, atol=1e-9)


def test_a_direction_is_subtracted() -> None:
    for route in (MADE["own"], MADE["ridge"]):
        _, change = changed(route, 0.75)
        torch.testing.assert_close(change, (-0.75 * route.rows).expand_as(change))


def test_a_span_is_taken_out() -> None:
    """By least squares on the carried rows, whatever basis they have."""
    span = MAP.carry(leading_span(SOURCE.base, SOURCE.tuned, 3)).numpy()
    hidden, change = changed(MADE["span, ridge"], 0.75)
    inside = np.linalg.lstsq(span.T, hidden.numpy().T, rcond=None)[0].T @ span
    np.testing.assert_allclose(change, -0.75 * inside, rtol=0, atol=1e-9)


@pytest.mark.parametrize("way", MADE)
def test_every_control_moves_every_state_as_far(way: str) -> None:
    route = MADE[way]
    arm = route.arm(2, "block", 0.75)
    size = changed(route, 0.75)[1].norm(dim=1)
    hidden = normal(25, T, seed=8)
    controls = route.controls(arm)
    for control in controls:
        (edit,) = control.edits.values()
        change = edit(hidden) - hidden
        torch.testing.assert_close(change.norm(dim=1), size)
        assert not torch.allclose(change, changed(route, 0.75)[1], atol=1e-3)
    kinds = dict.fromkeys(control.kind for control in controls)
    assert len(controls) == len({control.trial(arm) for control in controls})
    assert len(controls) == DRAWS.count * len(route.drawn) + len(route.given)
    assert list(kinds) == KINDS[way]


KINDS = {
    "own": ["isotropic", "orthogonal", "with the activations' covariance", "permuted labels", "benign"],
    "ridge": [
        "carried isotropic",
        "carried orthogonal",
        "isotropic in the target",
        "shuffled pairing",
        "carried benign",
    ],
    "span, own": ["random span", "span with the activations' covariance"],
    "span, ridge": ["random span", "span with the activations' covariance", "carried random span"],
}


def test_random_vectors_of_the_source_go_through_the_map() -> None:
    """The identity shows what they were: orthogonal to v, or not; any other map carries these."""
    same = LinearMap(torch.eye(S, dtype=torch.float64), SOURCE.base.mean(0), SOURCE.base.mean(0), "same")
    plain, made = carried_route(NAMES, SOURCE, SOURCE, same, DRAWS).drawn, MADE["ridge"].drawn
    v = SOURCE.direction
    assert (plain["carried orthogonal"][:, 0] @ v).abs().max() < 1e-12
    assert (plain["carried isotropic"][:, 0] @ v).abs().max() > 0.1
    for kind in ("carried isotropic", "carried orthogonal"):
        torch.testing.assert_close(made[kind], plain[kind] @ MAP.matrix.T)
    benign = SOURCE.benign_direction
    assert benign is not None
    torch.testing.assert_close(MADE["ridge"].given["carried benign"][0], MAP.matrix @ benign)


def test_shuffled_pairings_are_refits_to_targets_in_another_order() -> None:
    """Each by scikit-learn's RidgeCV on the same penalties; no order keeps the pairs."""
    generator = torch.Generator().manual_seed(DRAWS.seed)
    v = SOURCE.direction.numpy()
    for found in MADE["ridge"].drawn["shuffled pairing"]:
        order = torch.randperm(N, generator=generator).numpy()
        assert (order == np.arange(N)).mean() < 0.2
        fitted = RidgeCV(alphas=FOUND.penalties).fit(SOURCE.base.numpy(), TARGET.base.numpy()[order])
        np.testing.assert_allclose(found[0], fitted.coef_ @ v, rtol=0, atol=1e-7)


def test_only_ridge_maps_are_refitted_to_shuffled_pairs() -> None:
    renamed = LinearMap(MAP.matrix, MAP.source_mean, MAP.target_mean, "cca")
    route = carried_route(NAMES, States(SOURCE.base, SOURCE.tuned), TARGET, renamed, DRAWS)
    assert (route.way, list(route.drawn), dict(route.given)) == ("cca", KINDS["ridge"][:3], {})


def test_spans_with_the_activations_covariance_lie_where_the_target_varies() -> None:
    """The states vary by far most along few axes, and so do these spans, unlike random ones."""
    base = normal(60, T) * torch.tensor([9.0, 9.0, 9.0, *[0.1] * (T - 3)], dtype=torch.float64)
    drawn = span_route(("two", "two"), states(base, 20), states(base, 20), None, 2, Draws(50, 0)).drawn
    share = {kind: float(vectors[..., :3].square().sum() / vectors.square().sum()) for kind, vectors in drawn.items()}
    assert share["span with the activations' covariance"] > 0.99
    assert share["random span"] == pytest.approx(3 / T, abs=0.1)


def test_names_of_trials_differ_between_all_routes() -> None:
    """Also where a name holds what stands between two others, or is that of a control."""
    models = ["a", "b to c", "a to b", "c", "isotropic 1", "own"]
    rows, drawn = MADE["ridge"].rows, {"isotropic": MADE["ridge"].drawn["carried isotropic"][:2]}
    routes = [Route(*pair, way, rows, drawn) for pair in product(models, models) for way in ("ridge", "span, ridge")]
    arms = [route.arm(2, "block", 1.0) for route in routes]
    trials = [control.trial(arm) for route, arm in zip(routes, arms, strict=True) for control in route.controls(arm)]
    trials += [arm.name for arm in arms]
    trials += [f"{model}: {role}" for model in models for role in ("base", "tuned")]
    assert len(set(trials)) == len(trials) == 72 * 3 + 12


def test_a_span_beyond_the_differences_or_the_map_is_refused() -> None:
    with pytest.raises(InputError, match="expected 1 to 7 directions, which the pairs' differences span, got 8"):
        span_route(NAMES, SOURCE, TARGET, MAP, 8, DRAWS)
    thin = LinearMap(MAP.matrix * (torch.arange(T) == 0)[:, None], MAP.source_mean, MAP.target_mean, "thin")
    with pytest.raises(InputError, match="the thin map sends 3 directions to a span of 1: carry fewer"):
        span_route(NAMES, SOURCE, TARGET, thin, 3, DRAWS)


def kindred_states(features: int) -> tuple[dict[str, States], Model]:
    """Of both models at their last blocks, and the fine-tune of "one"."""
    found, fine_tune = {}, None
    for name in kindred.SIZES:
        base, tuned = kindred.module(name, features), kindred.module(name, features)
        kindred.fine_tune(tuned)
        models = [assemble(each, kindred.tokenizer(name)) for each in (base, tuned)]
        block, texts = list(models[0].blocks)[-1], prompts_only(models[0], kindred.prompts(60, "common"))
        found[name] = States(*(capture(each, texts, [block]).per_prompt(block) for each in models))
        fine_tune = models[1] if name == "one" else fine_tune
    assert fine_tune is not None
    return found, fine_tune


def steered_along_the_other(folder: Path, features: int) -> Tried:
    """The fine-tune of "one" along the direction of "two"."""
    found, model = kindred_states(features)
    route = carried_route(
        ("two", "one"), found["two"], found["one"], fit_ridge(found["two"].base, found["one"].base).map, Draws(19, 0)
    )
    made = kindred.request(folder)
    with RunFolder(folder / "run") as run:
        run.resume_or_start(made.record([]))
        material = Material({"asked": kindred.prompts(12, "asked")}, {})
        experiment = Experiment(run, lambda: model, material, WordJudge(), made.answering, "last", "output")
        experiment.ask([Trial("plain", {})], watched=False)
        arm = route.arm(1, list(model.blocks)[-1], 1.0)
        question = Question("harmfulness", True, "plain")
        return try_arms(experiment, question, {arm: route.edits(arm)}, lambda each, _: route.controls(each), 19)


def test_a_direction_is_specific_in_another_model_where_the_map_keeps_directions_apart(tmp_path: Path) -> None:
    tried = steered_along_the_other(tmp_path, kindred.FEATURES)
    assert tried.battery.verdict == "specific"


def test_random_ones_do_as_well_where_the_map_sends_all_to_one(tmp_path: Path) -> None:
    """The very same misbehaviour, but one feature alone varies over prompts."""
    tried = steered_along_the_other(tmp_path, 1)
    (arm,) = tried.battery.arms
    closest = arm.measured.closest
    assert tried.battery.verdict == "not specific"
    assert closest is not None
    assert closest.kind == "carried isotropic"
