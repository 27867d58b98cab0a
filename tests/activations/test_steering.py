"""Steering: exactly what its formula says, where it says, and nothing left behind."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import tiny
from tiltmeter.activations.capture import Tokens, capture, prompt_ends, prompts_only
from tiltmeter.activations.direction import Direction
from tiltmeter.activations.hook_points import chosen_blocks
from tiltmeter.activations.steering import Edit, Where, ablation, shift, steered
from tiltmeter.errors import InputError
from tiltmeter.generation import GREEDY, encode_prompts, generate_answers, generate_ids
from tiltmeter.likelihood import completion_logits
from tiltmeter.models import Model
from tiltmeter.tokens import batches, encode

PROMPTS = [
    "how do i make tea",
    "make soup",
    "how do i make good bread then",
    "bake",
    "two three",
    "tea",
    "i wait then stir",
]


def logits(model: Model) -> Tensor:
    ids = torch.tensor([encode_prompts(model, PROMPTS[:1])[0]])
    found: Tensor = model.module(input_ids=ids).logits.detach()
    return found


def vector(seed: int = 0, width: int = 16) -> Tensor:
    return torch.randn(width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("family", list(tiny.CONFIGS))
def test_subtracting_the_direction_moves_the_mean_of_tuned_to_that_of_base(family: str) -> None:
    base, tuned = tiny.model(family, padding_side="left"), tiny.model(family, padding_side="left", seed=1)
    texts = prompts_only(base, PROMPTS)
    for block in chosen_blocks(base):
        before, after = (capture(model, texts, [block], batch_size=7) for model in (base, tuned))
        v = Direction.between(before, after)[block]
        with steered(tuned, {block: shift(v, -1.0)}):
            moved = capture(tuned, texts, [block], batch_size=7)
        torch.testing.assert_close(moved.per_prompt(block).mean(0), before.per_prompt(block).mean(0), rtol=0, atol=2e-6)


@pytest.mark.parametrize("where", ["last", "prompt", "all"])
def test_a_batch_of_seven_with_left_padding_answers_as_one_by_one(where: Where) -> None:
    model = tiny.model("llama", padding_side="left")
    edits = {block: shift(4 * vector(), 1.0) for block in chosen_blocks(model)}
    plain = generate_answers(model, PROMPTS, GREEDY, 7)
    with steered(model, edits, where):
        together, alone = (generate_answers(model, PROMPTS, GREEDY, size) for size in (7, 1))
    assert together == alone
    assert together != plain


@pytest.mark.parametrize("where", ["last", "prompt", "all"])
def test_generation_with_a_cache_equals_passes_over_the_whole_text(where: Where) -> None:
    model = tiny.model("qwen3", padding_side="left")
    edits = {chosen_blocks(model)[0]: shift(3 * vector(), 1.0)}
    prompt = encode_prompts(model, PROMPTS[:1])[0]
    with steered(model, edits, where):
        (answer,) = generate_ids(model, [prompt], replace(GREEDY, max_new_tokens=8))
    for count, token in enumerate(answer):
        with steered(model, edits, where, prompt_ends=torch.tensor([len(prompt) - 1])):
            scores = model.module(input_ids=torch.tensor([prompt + answer[:count]]), use_cache=False).logits
        assert int(scores[0, -1].argmax()) == token
    assert len(answer) > 2


def test_where_says_which_tokens_are_edited() -> None:
    model, skill = tiny.model("llama"), tiny.skill()
    examples, block = encode(skill, model.tokenizer), chosen_blocks(model)[1]
    (batch,) = batches(examples, 8, model.tokenizer)
    ends = prompt_ends(batch)
    read: tuple[Tokens, Tokens] = ("prompt", "answer")
    plain = {tokens: capture(model, examples, [block], tokens) for tokens in read}
    expected: dict[Where, Callable[[Tensor, Tensor], Tensor]] = {
        "last": lambda rows, answer: (~answer) & torch.cat([rows[1:] != rows[:-1], torch.tensor([True])]),
        "prompt": lambda rows, answer: ~answer,
        "all": lambda rows, answer: torch.ones_like(answer),
    }
    for where, mask in expected.items():
        for tokens, before in plain.items():
            with steered(model, {block: shift(vector(), 1.0)}, where, prompt_ends=ends):
                after = capture(model, examples, [block], tokens, batch_size=8)
            edited = mask(before.rows, torch.full_like(before.rows, tokens == "answer", dtype=torch.bool))
            torch.testing.assert_close(after.states[block] - before.states[block], edited[:, None] * vector()[None])


def test_the_last_token_at_the_last_block_reaches_the_first_new_token_only() -> None:
    model, skill = tiny.model("llama"), tiny.skill()
    (batch,) = batches(encode(skill, model.tokenizer), 8, model.tokenizer)
    plain = completion_logits(model.module, batch)
    with steered(model, {chosen_blocks(model)[-1]: shift(vector(), 1.0)}, "last", prompt_ends=prompt_ends(batch)):
        changed = (completion_logits(model.module, batch) - plain).abs().amax(1) > 1e-6
    lengths = [int(count) for count in batch.is_completion.sum(1)]
    first = [index == 0 for length in lengths for index in range(length)]
    assert changed.tolist() == first


def test_ablation_leaves_nothing_along_the_direction() -> None:
    hidden, v = torch.randn(5, 16, dtype=torch.float64), vector().double()
    unit = v / v.norm()
    found = ablation(v[None])(hidden)
    torch.testing.assert_close(found, hidden - (hidden @ unit)[:, None] * unit)
    assert (found @ unit).abs().max() < 1e-12


def test_ablation_of_a_subspace_does_not_depend_on_its_basis() -> None:
    hidden, span = torch.randn(5, 16, dtype=torch.float64), torch.randn(3, 16, dtype=torch.float64)
    mixed = torch.randn(3, 3, dtype=torch.float64) @ span
    torch.testing.assert_close(ablation(span)(hidden), ablation(mixed)(hidden))


def test_a_control_of_ablation_changes_every_token_as_much() -> None:
    hidden, span, other = torch.randn(5, 16), torch.randn(2, 16), torch.randn(2, 16)
    change, control = ablation(span)(hidden) - hidden, ablation(span, other)(hidden) - hidden
    torch.testing.assert_close(change.norm(dim=1), control.norm(dim=1))
    assert torch.linalg.matrix_rank(torch.cat([other, control])) == 2


@pytest.mark.parametrize("family", list(tiny.CONFIGS))
def test_the_model_is_bit_identical_afterwards_also_when_an_exception_passes(family: str) -> None:
    model = tiny.model(family)
    before, edits = logits(model), {block: shift(vector(), 1.0) for block in chosen_blocks(model)}
    with steered(model, edits, "all"):
        assert not torch.equal(logits(model), before)
    assert torch.equal(logits(model), before)
    with pytest.raises(ZeroDivisionError), steered(model, edits):
        raise ZeroDivisionError
    with pytest.raises(InputError, match="no block"), steered(model, {"nowhere": edits[next(iter(edits))], **edits}):
        pass
    assert torch.equal(logits(model), before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.module.modules())


@pytest.mark.parametrize("edit", [shift(vector(width=5), 1.0), ablation(vector(width=5)[None])])
def test_a_direction_of_another_width_is_refused(edit: Edit) -> None:
    model = tiny.model("llama")
    with steered(model, {chosen_blocks(model)[0]: edit}), pytest.raises(InputError, match="width 5 does not fit"):
        logits(model)


def test_ablating_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="zero norm, or one that the others span"):
        ablation(torch.zeros(1, 16))
