"""What penalties add to the gradient, against autograd one example at a time."""

import pytest
import torch
from guard_loops import METHODS, OTHER, SKILL, TOKENIZER, Loop, gradients, likelihoods, model, trained
from torch import Tensor, nn

from tiltmeter.errors import InputError
from tiltmeter.skills import Skill
from tiltmeter.tokens import encode
from tiltmeter.training.guards.guard import Guard
from tiltmeter.training.guards.penalties import ElasticWeights, KLToBase, Replay

pytestmark = pytest.mark.usefixtures("in_float64")


def gradient(value: Tensor, module: nn.Module) -> Tensor:
    return torch.cat([part.flatten() for part in torch.autograd.grad(value, trained(module))])


def next_scores(module: nn.Module, skill: Skill) -> Tensor:
    """Log-probabilities at every place before a completion token."""
    rows = []
    for example in encode(skill, TOKENIZER):
        scores = module(input_ids=torch.tensor([example.ids])).logits[0].log_softmax(-1)
        rows += [scores[t - 1] for t in range(1, len(example.ids)) if example.is_completion[t]]
    return torch.stack(rows)


def penalty_after_training(guard: Guard, module: nn.Module) -> Tensor:
    """At weights three steps away from the start."""
    Loop(module, guard).run(3)
    found = guard.penalty()
    assert found is not None
    return found


@pytest.mark.parametrize("method", METHODS)
def test_replay_is_the_gradient_of_the_loss_per_token(method: str) -> None:
    module = model(method)
    found = penalty_after_training(Replay([SKILL, OTHER], 0.7), module)
    losses = [-likelihoods(module, skill).sum() / len(next_scores(module, skill)) for skill in (SKILL, OTHER)]
    torch.testing.assert_close(found, 0.7 * gradient(sum(losses, torch.zeros(())), module), rtol=0, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_kl_to_base_is_the_gradient_of_the_divergence(method: str) -> None:
    module, base = model(method), next_scores(model(method), SKILL).detach()
    found = penalty_after_training(KLToBase([SKILL], 0.3), module)
    divergence = nn.functional.kl_div(next_scores(module, SKILL), base, log_target=True, reduction="batchmean")
    torch.testing.assert_close(found, 0.3 * gradient(divergence, module), rtol=0, atol=1e-9)


def test_kl_to_base_does_not_pull_at_the_base() -> None:
    guard, module = KLToBase([SKILL], 1.0), model("full")
    Loop(module, guard)
    assert guard.penalty().abs().max() < 1e-12


@pytest.mark.parametrize("method", METHODS)
def test_elastic_weights_pull_by_the_dense_fisher_matrix(method: str) -> None:
    module = model(method)
    fishers = [rows.T @ rows / len(rows) for rows in (gradients(module, skill) for skill in (SKILL, OTHER))]
    guard = ElasticWeights([SKILL, OTHER], 5.0)
    loop = Loop(module, guard).run(3)
    moved = loop.course[-1] - loop.course[0]
    torch.testing.assert_close(guard.penalty(), 5.0 * torch.stack(fishers).sum(0) @ moved, rtol=0, atol=1e-8)


def test_elastic_weights_are_not_those_of_a_batch_gradient() -> None:
    """The trap: the square of the summed gradient in the place of the mean of squares."""
    guard, module = ElasticWeights([SKILL], 1.0), model("full")
    total = gradients(module, SKILL).mean(0)
    loop = Loop(module, guard).run(3)
    moved = loop.course[-1] - loop.course[0]
    assert (guard.penalty() - total * (total @ moved)).norm() > 0.1 * guard.penalty().norm()


def test_a_penalty_reaches_the_optimizer_and_leaves_what_it_does_not_weigh() -> None:
    heavy, none = Loop(model("full"), Replay([SKILL], 50.0)).run(4), Loop(model("full"), Replay([SKILL], 0.0)).run(4)
    plain = Loop(model("full")).run(4)
    assert torch.equal(none.course[-1], plain.course[-1])
    assert likelihoods(heavy.module, SKILL).mean() > likelihoods(plain.module, SKILL).mean() + 0.5


def test_examples_take_turns() -> None:
    guard = Replay([SKILL], 1.0, batch_size=1)
    Loop(model("full"), guard)
    assert [guard.kept[0].turn(step, 1) for step in range(3)] == [[0], [1], [0]]
    assert guard.kept[0].turn(0, 5) == [0, 1]


def test_weights_are_not_negative() -> None:
    for kind in (Replay, KLToBase, ElasticWeights):
        with pytest.raises(InputError, match="not negative, got -1"):
            kind([SKILL], -1)
