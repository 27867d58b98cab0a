"""The predictions of an audit against the loss that it measures, for updates small enough to predict."""

import copy
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

import tiny
from tiltmeter.audit.measure import STUDY_K, Settings, measure, observe, utility_losses
from tiltmeter.curvature.fisher import Fisher, Reduction
from tiltmeter.curvature.overlap import overlap_score
from tiltmeter.generation import Sampling
from tiltmeter.layers import weight_of
from tiltmeter.models import Model, assemble
from tiltmeter.updates.update import Update
from truth import float64_throughout


@pytest.fixture(scope="module")
def base() -> Model:
    return tiny.model("llama", torch.float64)


def change(base: Model, size: float) -> dict[str, Tensor]:
    torch.manual_seed(2)
    inside = {name: layer for name, layer in base.linears.items() if name != "lm_head"}
    return {name: size * torch.randn_like(weight_of(layer)) for name, layer in inside.items()}


def changed(base: Model, deltas: Mapping[str, Tensor]) -> Model:
    tuned = assemble(copy.deepcopy(base.module), base.tokenizer)
    with torch.no_grad():
        for name, delta in deltas.items():
            weight_of(tuned.linears[name]).add_(delta)
    return tuned


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_the_first_order_term_predicts_a_small_loss(base: Model, reduction: Reduction) -> None:
    deltas = change(base, 1e-7)
    fisher = Fisher(base, tiny.skill(), reduction=reduction)
    encoded = {"tea": fisher.encoded}
    (figures,) = measure(fisher, [Update.from_tensors(deltas)], Settings(draws=2))
    with float64_throughout():
        before, after = (observe(m, encoded, {}, None, Sampling()) for m in (base, changed(base, deltas)))
    loss = utility_losses(encoded, before, after)["tea"]
    measured = loss.per_completion if reduction == "sum" else loss.per_example_token
    assert figures.first_order == pytest.approx(measured.mean, rel=1e-3)
    assert abs(figures.first_order) > 1e-8


def test_half_the_overlap_is_the_divergence_over_the_models_own_completions(base: Model) -> None:
    prompts = tiny.skill(1)
    many = type(prompts)(prompts.name, prompts.examples * 600)
    with float64_throughout():
        fisher = Fisher(base, many, labels="sampled", batch_size=200)
        deltas = change(base, 2e-2)
        quadratic = overlap_score(fisher, Update.from_tensors(deltas)).exact / 2
        encoded = {"tea": fisher.encoded}
        before, after = (observe(m, encoded, {}, None, Sampling()) for m in (base, changed(base, deltas)))
    back = utility_losses(encoded, before, after)["tea"].per_completion
    assert back.low <= quadratic <= back.high
    assert back.high - back.low < quadratic


def test_nothing_is_judged_without_a_judge(base: Model) -> None:
    assert observe(base, {}, {"p": ["make tea"]}, None, Sampling()).judged == {}


def test_settings_decide_how_much_is_measured(base: Model) -> None:
    fisher, update = Fisher(base, tiny.skill()), Update.from_tensors(change(base, 0.1))
    plain, more = (measure(fisher, [update], settings)[0] for settings in (Settings(2, None, 3), Settings(99, 16, 4)))
    assert (len(plain.top), plain.projected, plain.k, len(plain.same_rank.draws)) == (2, None, STUDY_K, 3)
    assert (len(more.top), more.k, len(more.same_rank.draws)) == (5, 16, 4)
    assert more.projected is not None
    assert more.projected > 0
    assert plain.top.tolist() == more.top[:2].tolist()
    assert bool((more.top.diff() <= 0).all())
