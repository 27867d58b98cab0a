"""Utility loss against dense log-likelihoods."""

import pytest
import torch

import tiny
from tiltmeter.behaviour.utility import utility_loss
from tiltmeter.models import Model
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
