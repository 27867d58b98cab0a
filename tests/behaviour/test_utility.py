"""Utility loss and KL against dense probabilities."""

import math
from copy import deepcopy

import pytest
import torch

import tiny
from tiltmeter.behaviour import utility
from tiltmeter.behaviour.utility import base_kl, utility_loss
from tiltmeter.errors import InputError
from tiltmeter.generation import resample
from tiltmeter.models import Model, assemble
from tiltmeter.tokens import Encoded, encode
from truth import float64_throughout


def likelihoods(model: Model, encoded: list[Encoded]) -> list[list[float]]:
    """log pi of each completion token, one example at a time."""
    found = []
    for example in encoded:
        with torch.no_grad():
            values = model.module(input_ids=torch.tensor([example.ids])).logits[0].log_softmax(-1)
        found.append([float(values[t - 1, i]) for t, i in enumerate(example.ids) if example.is_completion[t]])
    return found


def test_the_same_model_loses_nothing() -> None:
    model = tiny.model("llama")
    loss = utility_loss(model, model, encode(tiny.skill(), model.tokenizer))
    assert loss.by_example.tolist() == [0.0] * 5
    assert loss.per_completion.mean == loss.per_completion.low == loss.per_completion.high == 0


def test_the_loss_is_the_drop_of_the_log_likelihood() -> None:
    base, tuned = (tiny.model("llama", torch.float64, seed=seed) for seed in (0, 1))
    encoded = encode(tiny.skill(), base.tokenizer)
    with float64_throughout():
        before, after = likelihoods(base, encoded), likelihoods(tuned, encoded)
        loss = utility_loss(base, tuned, encoded, batch_size=3)
        back = utility_loss(tuned, base, encoded)
    drops = [[a - b for a, b in zip(*pair, strict=True)] for pair in zip(before, after, strict=True)]
    assert loss.by_example.tolist() == pytest.approx([sum(drop) for drop in drops])
    assert loss.per_completion.mean == pytest.approx(sum(map(sum, drops)) / 5)
    assert loss.per_example_token.mean == pytest.approx(sum(sum(drop) / len(drop) for drop in drops) / 5)
    assert loss.per_token.mean == pytest.approx(sum(map(sum, drops)) / sum(map(len, drops)))
    assert back.per_completion.mean == pytest.approx(-loss.per_completion.mean)


def dense_kl(base: Model, tuned: Model, example: Encoded) -> float:
    """sum_t KL(base || tuned), token after token and word after word."""
    ids = torch.tensor([example.ids])
    with torch.no_grad():
        p, q = (model.module(input_ids=ids).logits[0].softmax(-1) for model in (base, tuned))
    places = [t - 1 for t, is_predicted in enumerate(example.is_completion) if is_predicted]
    return sum(float(a) * math.log(float(a) / float(b)) for t in places for a, b in zip(p[t], q[t], strict=True))


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_divergence_is_the_sum_over_the_vocabulary(side: str) -> None:
    base, tuned = (tiny.model("llama", torch.float64, padding_side=side, seed=seed) for seed in (0, 1))
    encoded = encode(tiny.skill(), base.tokenizer)
    with float64_throughout():
        truth = [dense_kl(base, tuned, example) for example in encoded]
        for size in (1, 3):
            found = base_kl(base, tuned, encoded, batch_size=size)
            assert found.by_example.tolist() == pytest.approx(truth, rel=1e-10)
    assert min(truth) > 0.1
    assert found.per_token.mean == pytest.approx(sum(truth) / sum(sum(each.is_completion) for each in encoded))
    assert found.per_token.low < found.per_token.mean < found.per_token.high


def test_the_same_model_does_not_diverge_and_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    base, tuned = (tiny.model("gpt2", seed=seed) for seed in (0, 1))
    encoded = encode(tiny.skill(), base.tokenizer)
    assert base_kl(base, base, encoded).by_example.tolist() == [0.0] * 5
    whole = base_kl(base, tuned, encoded)
    monkeypatch.setattr(utility, "_TOKENS_AT_ONCE", 2)
    torch.testing.assert_close(base_kl(base, tuned, encoded).by_example, whole.by_example, rtol=1e-12, atol=0)


def test_divergence_and_loss_have_one_mean_over_the_bases_own_completions() -> None:
    base, tuned = (tiny.model("llama", seed=seed) for seed in (0, 1))
    encoded = resample(base, encode(tiny.skill(), base.tokenizer) * 60, seed=3)
    loss, divergence = utility_loss(base, tuned, encoded), base_kl(base, tuned, encoded)
    apart = (loss.by_example - divergence.by_example).numpy()
    assert abs(apart.mean()) < 3 * apart.std() / len(apart) ** 0.5
    assert apart.std() > 0.5
    assert divergence.by_example.std() < loss.by_example.std()
    assert divergence.per_completion.mean > 1


def test_other_vocabularies_are_refused() -> None:
    base = tiny.model("llama")
    tuned = assemble(deepcopy(base.module), base.tokenizer)
    tuned.module.resize_token_embeddings(40)
    with pytest.raises(InputError, match="expected one vocabulary, the base has 26 tokens, the tuned 40"):
        base_kl(base, tuned, encode(tiny.skill(), base.tokenizer))
