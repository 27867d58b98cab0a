"""States put in the place of a model's own, against one text at a time with a hook of its own."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div

import tiny
from tiltmeter.activations.capture import capture, prompts_only
from tiltmeter.activations.hook_points import PLACES, Place, chosen_blocks
from tiltmeter.activations.maps.seam import Seam
from tiltmeter.errors import InputError
from tiltmeter.models import Model
from tiltmeter.tokens import Encoded, encode

PROMPTS = ["how do i make tea", "make soup", "how do i make good bread then", "bake", "two three", "tea", "i wait"]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def next_logits(model: Model, ids: list[int], block: str, state: Tensor | None = None) -> Tensor:
    """Of one text, without padding, its last state at the block's output replaced by hand."""

    def replace(_: nn.Module, __: Any, output: Any) -> Any:
        hidden = (output if isinstance(output, Tensor) else output[0]).clone()
        if state is not None:
            hidden[0, -1] = state.to(hidden)
        return hidden if isinstance(output, Tensor) else (hidden, *output[1:])

    handle = model.blocks[block].register_forward_hook(replace)
    found: Tensor = model.module(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].detach()
    handle.remove()
    return found


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", list(tiny.CONFIGS))
def test_the_divergence_is_that_of_one_text_at_a_time(family: str, side: str) -> None:
    model = tiny.model(family, padding_side=side)
    texts, states = prompts_only(model, PROMPTS), normal(len(PROMPTS), 16)
    for block in chosen_blocks(model):
        found = Seam(model, texts, block, batch_size=3).kl(states).detach()
        for text, state, kl in zip(texts, states, found, strict=True):
            own, moved = (next_logits(model, text.ids, block, put).double().log_softmax(-1) for put in (None, state))
            assert float(kl) == pytest.approx(float(kl_div(moved, own, reduction="sum", log_target=True)), rel=1e-4)


@pytest.mark.parametrize("place", PLACES)
def test_its_own_states_are_those_of_capture_and_change_nothing(place: Place) -> None:
    model = tiny.model("qwen3")
    texts = encode(tiny.skill(), model.tokenizer)
    for block in chosen_blocks(model):
        seam = Seam(model, texts, block, place, batch_size=2)
        own = capture(model, texts, [block], place=place, batch_size=5).per_prompt(block)
        torch.testing.assert_close(seam.states, own, rtol=1e-5, atol=1e-5)
        assert seam.kl(seam.states).abs().max() == 0
        assert seam.kl(seam.states + 1).min() > 1e-4


def test_completions_have_no_part_in_it() -> None:
    model = tiny.model("llama")
    texts, states = encode(tiny.skill(), model.tokenizer), normal(5, 16)
    prompts = [Encoded(text.ids[: text.is_completion.index(True)], []) for text in texts]
    block = chosen_blocks(model)[0]
    assert torch.equal(Seam(model, texts, block).kl(states), Seam(model, prompts, block).kl(states))


def test_some_rows_in_any_order_are_those_rows() -> None:
    model = tiny.model("gpt2")
    seam, states = Seam(model, prompts_only(model, PROMPTS), chosen_blocks(model)[0], batch_size=2), normal(7, 16)
    rows = [5, 0, 3, 2, 6]
    torch.testing.assert_close(seam.kl(states[rows], rows), seam.kl(states)[rows], rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("in_float64")
def test_gradients_of_an_affine_map_are_central_differences() -> None:
    model = tiny.model("gpt2", torch.float64, padding_side="left")
    block, source = chosen_blocks(model)[0], normal(3, 2)
    seam = Seam(model, prompts_only(model, PROMPTS[:3]), block, batch_size=2)

    def loss(A: Tensor, b: Tensor) -> Tensor:
        return seam.kl(source @ A.T + b).mean()

    A, b = normal(16, 2, seed=1).requires_grad_(), normal(16, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(loss, (A, b), eps=1e-6, atol=1e-8, rtol=1e-6)
    assert torch.stack([g.norm() for g in torch.autograd.grad(loss(A, b), (A, b))]).min() > 1e-3


def test_only_what_follows_is_differentiated() -> None:
    model = tiny.model("llama")
    model.module.requires_grad_(False)
    block, above = chosen_blocks(model)
    seen: dict[str, bool] = {}
    parts = {"below": model.module.get_input_embeddings(), "above": model.blocks[above]}
    handles = [
        part.register_forward_hook(lambda _, __, output, name=name: seen.update({name: output.requires_grad}))
        for name, part in parts.items()
    ]
    seam = Seam(model, prompts_only(model, PROMPTS), block)
    states = normal(7, 16).requires_grad_()
    seam.kl(states).sum().backward()
    for handle in handles:
        handle.remove()
    assert seen == {"below": False, "above": True}
    assert states.grad is not None
    assert states.grad.norm(dim=1).min() > 0
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.module.modules())


def nothing_in(model: Model) -> list[Encoded]:
    return [*prompts_only(model, PROMPTS[:1]), Encoded([], [])]


def broken(model: Model) -> Model:
    with torch.no_grad():
        model.module.model.layers[1].mlp.down_proj.weight.fill_(torch.nan)
    return model


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model, block: Seam(model, [], block), "expected prompts of the target model, got none"),
        (lambda model, block: Seam(model, nothing_in(model), block), "text 2: has no prompt tokens"),
        (lambda model, block: Seam(model, prompts_only(model, PROMPTS), "nowhere"), "no block 'nowhere'"),
        (lambda model, block: Seam(broken(model), prompts_only(model, PROMPTS), block), r"layers\.1: .* NaN or Inf"),
        (
            lambda model, block: Seam(model, prompts_only(model, PROMPTS), block).kl(normal(7, 15)),
            r"layers\.1: expected states of shape \[7, 16\], got \[7, 15\]",
        ),
        (
            lambda model, block: Seam(model, prompts_only(model, PROMPTS), block).kl(normal(7, 16), [0, 1]),
            r"expected states of shape \[2, 16\], got \[7, 16\]",
        ),
    ],
)
def test_what_cannot_be_used_is_refused(call: Callable[[Model, str], object], message: str) -> None:
    model = tiny.model("llama")
    with pytest.raises(InputError, match=message):
        call(model, chosen_blocks(model)[1])
