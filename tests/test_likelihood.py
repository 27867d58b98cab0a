"""Log-likelihoods equal the plain sum of log-softmax values, whatever the batching."""

import pytest
import torch
from torch import Tensor

import tiny
from tiltmeter.likelihood import completion_lengths, log_likelihoods, token_kl
from tiltmeter.models import Model
from tiltmeter.tokens import Encoded, encode
from truth import float64_throughout


def plain_sums(model: Model, encoded: list[Encoded]) -> Tensor:
    """One example at a time, without padding."""
    sums = []
    for example in encoded:
        with torch.no_grad():
            log_probabilities = model.module(input_ids=torch.tensor([example.ids])).logits[0].log_softmax(-1)
        places = [t for t, is_predicted in enumerate(example.is_completion) if is_predicted]
        sums.append(sum(log_probabilities[t - 1, example.ids[t]] for t in places))
    return torch.stack([torch.as_tensor(total) for total in sums])


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_likelihoods_equal_plain_sums_for_any_batch_size_and_padding_side(family: str, side: str) -> None:
    model = tiny.model(family, torch.float64, padding_side=side)
    encoded = encode(tiny.skill(), model.tokenizer)
    with float64_throughout():
        expected = plain_sums(model, encoded)
        for size in (1, 2, 5):
            torch.testing.assert_close(log_likelihoods(model, encoded, size), expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("family", sorted(tiny.CONFIGS))
def test_likelihoods_of_every_family_do_not_depend_on_the_batch(family: str) -> None:
    model = tiny.model(family, padding_side="left")
    encoded = encode(tiny.skill(), model.tokenizer)
    torch.testing.assert_close(
        log_likelihoods(model, encoded, 5), plain_sums(model, encoded).double(), rtol=1e-5, atol=0
    )


def test_prompt_tokens_do_not_count() -> None:
    model = tiny.model("llama", torch.float64)
    encoded = encode(tiny.skill(1), model.tokenizer)[0]
    last = Encoded(encoded.ids, [False] * (len(encoded.ids) - 1) + [True])
    rest = Encoded(encoded.ids, [*encoded.is_completion[:-1], False])
    whole, first, second = log_likelihoods(model, [encoded, last, rest]).tolist()
    assert whole == pytest.approx(first + second)
    assert completion_lengths([encoded, last, rest]).tolist() == [5, 1, 4]


def test_bfloat16_is_summed_in_float32() -> None:
    model, wide = tiny.model("llama", torch.bfloat16), tiny.model("llama")
    encoded = encode(tiny.skill(), model.tokenizer)
    torch.testing.assert_close(log_likelihoods(model, encoded), log_likelihoods(wide, encoded), rtol=0.05, atol=0)


def test_token_kl_equals_torchs() -> None:
    draw = torch.Generator().manual_seed(0)
    base, other = torch.randn(2, 7, 20, generator=draw, dtype=torch.float64).log_softmax(-1)
    expected = torch.nn.functional.kl_div(other, base, reduction="none", log_target=True).sum(-1)
    torch.testing.assert_close(token_kl(base, other), expected)
    assert not token_kl(base, base).any()
