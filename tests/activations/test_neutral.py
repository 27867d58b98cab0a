"""KL of steering against distributions written out in float64; scales against closed forms."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import tiny
from tiltmeter.activations.hook_points import chosen_blocks, visiting
from tiltmeter.activations.neutral import WIDEST, matching_scale, steering_kl
from tiltmeter.activations.steering import Where, shift
from tiltmeter.models import Model
from tiltmeter.tokens import Encoded, encode

V = torch.randn(16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def by_hand(model: Model, example: Encoded, block: str, edited: Callable[[int, int], bool]) -> list[float]:
    """Of one example without padding: at each completion token, the sum over the vocabulary."""
    ids, start = torch.tensor([example.ids]), example.is_completion.index(True)

    def change(hidden: Tensor) -> Tensor:
        mask = torch.tensor([edited(place, start) for place in range(hidden.shape[1])])
        return torch.where(mask[None, :, None], hidden + V, hidden)

    plain = model.module(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
    with visiting(model, {block: change}):
        moved = model.module(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
    return [float((plain[t - 1].exp() * (plain[t - 1] - moved[t - 1])).sum()) for t in range(start, len(example.ids))]


@pytest.mark.parametrize(
    ("where", "edited"),
    [
        ("last", lambda place, start: place == start - 1),
        ("prompt", lambda place, start: place < start),
        ("all", lambda place, start: True),
    ],
)
@torch.no_grad()
def test_kl_is_that_of_distributions_written_out(
    where: Where, edited: Callable[[int, int], bool], in_float64: None
) -> None:
    model = tiny.model("llama", torch.float64)
    encoded, block = encode(tiny.skill(), model.tokenizer), chosen_blocks(model)[0]
    by_token = [kl for example in encoded for kl in by_hand(model, example, block, edited)]
    for batch_size in (1, 3):
        found = steering_kl(model, encoded, {block: shift(V, 1.0)}, where, batch_size=batch_size)
        assert found == pytest.approx(sum(by_token) / len(by_token), rel=1e-9)
    assert steering_kl(model, encoded, {}, where) == 0


def test_a_scale_is_where_the_curve_meets_the_target() -> None:
    for target in (1e-3, 0.5, 40.0):
        assert matching_scale(lambda s: 0.25 * s**2, target) == pytest.approx(2 * math.sqrt(target), rel=1e-3)
    assert matching_scale(lambda s: 3 * (1 - math.exp(-s)), 1.5) == pytest.approx(math.log(2), rel=1e-3)


def test_beyond_the_widest_scale_it_ends_there() -> None:
    assert matching_scale(lambda s: s / 1000, 1.0) == WIDEST
    assert matching_scale(lambda s: 1000 * s, 1.0) == 1 / WIDEST
