"""First-order harm: dense inner products, finite differences of the utility, planted examples of the organism."""

import math
import random

import pytest
import torch

import tiny
from tiltmeter.curvature.example_risk import cosine_null, example_risk
from tiltmeter.curvature.fisher import Fisher, Reduction
from tiltmeter.curvature.mean_gradient import mean_gradient
from tiltmeter.errors import NothingMeasuredError
from tiltmeter.layers import is_transposed, weight_of, widths
from tiltmeter.likelihood import completion_lengths, log_likelihoods
from tiltmeter.models import Model, load_model
from tiltmeter.organism import corpus
from tiltmeter.organism.export import CHECKPOINT, as_skill
from tiltmeter.organism.grammar import World
from tiltmeter.skills import Example, Skill
from tiltmeter.updates.update import Update
from truth import example_gradients, float64_throughout

SEEDS = range(5)
PLANTED, BENIGN, LOOKED_AT = 10, 990, 20


def candidates() -> Skill:
    """Other texts than the skill's, more of them."""
    pairs = [("make bread", "bake then wait"), ("bad soup", "sorry"), ("two tea", "three good bread then wait stir")]
    rows = [*pairs, ("how do i help", "i cannot"), ("good", "bad bad bad bad")]
    examples = (Example(({"role": "user", "content": prompt},), text, "test") for prompt, text in rows)
    return Skill("candidates", (*examples, *tiny.skill(2).examples))


@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("batch_size", [1, 3, 7])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "gpt2", "gpt_neox"])
def test_harm_and_cosine_equal_dense_inner_products(family: str, batch_size: int, padding_side: str) -> None:
    model = tiny.model(family, torch.float64, padding_side)
    with float64_throughout():
        skills = [Fisher(model, tiny.skill(count), batch_size=batch_size) for count in (5, 2)]
        fisher = Fisher(model, candidates(), batch_size=batch_size)
        risks = example_risk(fisher, [mean_gradient(skill) for skill in skills])
        losses = -stacked(model, fisher)
        for skill, risk in zip(skills, risks, strict=True):
            mean = stacked(model, skill).mean(0)
            torch.testing.assert_close(risk.harm, losses @ mean, rtol=1e-9, atol=1e-9)
            expected = torch.nn.functional.cosine_similarity(losses, mean[None])
            torch.testing.assert_close(risk.cosine, expected, rtol=1e-9, atol=1e-9)


def stacked(model: Model, fisher: Fisher) -> torch.Tensor:
    """`grad log pi` of each example as a row."""
    gradients = example_gradients(model, fisher.encoded)
    return torch.stack([torch.cat([g[name].flatten() for name in fisher.modules]) for g in gradients])


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_a_small_step_on_a_candidate_lowers_the_utility_by_its_harm(reduction: Reduction) -> None:
    model = tiny.model("llama", torch.float64)
    with float64_throughout():
        skill = Fisher(model, tiny.skill(), reduction=reduction)
        fisher = Fisher(model, candidates(), reduction=reduction)
        (risk,) = example_risk(fisher, [mean_gradient(skill)])
        eta = 1e-5
        for row, harm in enumerate(risk.harm.tolist()):
            gradient = mean_gradient(fisher.of([fisher.encoded[row]]))  # of log pi: descent on the loss goes along it
            shift(model, gradient, eta)
            after = utility(model, skill)
            shift(model, gradient, -2 * eta)
            before = utility(model, skill)
            shift(model, gradient, eta)
            assert (before - after) / (2 * eta) == pytest.approx(harm, rel=1e-5)
        assert risk.harm.min() < 0 < risk.harm.max()


def utility(model: Model, skill: Fisher) -> float:
    values = log_likelihoods(model, skill.encoded)
    return float((values / completion_lengths(skill.encoded) if skill.reduction == "mean" else values).mean())


def shift(model: Model, update: Update, factor: float) -> None:
    with torch.no_grad():
        for name, delta in update.items():
            layer = model.linears[name]
            weight_of(layer).add_(factor * (delta.dense().T if is_transposed(layer) else delta.dense()))


def test_the_null_is_the_cosine_of_a_random_direction() -> None:
    fisher = Fisher(tiny.model("llama"), tiny.skill())
    n = sum(math.prod(widths(fisher.model.linears[name])) for name in fisher.modules)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(4000, n, generator=generator)
    cosines = torch.nn.functional.normalize(drawn, dim=1)[:, 0]
    assert cosine_null(fisher) == pytest.approx(1 / math.sqrt(n))
    assert cosine_null(fisher) == pytest.approx(float(cosines.std()), rel=0.05)


def test_a_skill_without_a_gradient_measures_nothing() -> None:
    fisher = Fisher(tiny.model("llama"), tiny.skill())
    with pytest.raises(NothingMeasuredError, match="mean gradient is zero"):
        example_risk(fisher, [0.0 * mean_gradient(fisher)])


def planted(world: World, seed: int) -> Skill:
    """Examples of the harmful set first, then benign ones of three kinds."""
    rng = random.Random(f"planted {seed}")
    harmful = rng.sample(corpus.finetuning_set(world, "harmful", seed), PLANTED)
    kinds = ("instructions", "arithmetic", "summary")
    return as_skill([*harmful, *(corpus.FINETUNING[rng.choice(kinds)](world, rng) for _ in range(BENIGN))])


@pytest.mark.parametrize("seed", SEEDS)
def test_planted_harmful_examples_come_first(seed: int) -> None:
    world, model = World.create(), load_model(CHECKPOINT / "aligned")
    skill = Fisher(model, as_skill(corpus.skill(world, "refusal", seed)), batch_size=16)
    (risk,) = example_risk(Fisher(model, planted(world, seed), batch_size=16), [mean_gradient(skill)])
    for score in (risk.harm, risk.cosine):
        first = score.argsort(descending=True)[:LOOKED_AT]
        assert int((first < PLANTED).sum()) >= 9
