"""Hidden states against transformers' own, and against one text at a time."""

import math

import pytest
import torch
from torch import Tensor, nn

import tiny
from tiltmeter.activations.capture import Activations, capture, prompts_only
from tiltmeter.activations.hook_points import PLACES, Place, chosen_blocks, visiting
from tiltmeter.errors import InputError
from tiltmeter.generation import encode_prompts
from tiltmeter.models import Model
from tiltmeter.tokens import Encoded, encode

PROMPTS = [
    "how do i make tea",
    "make soup",
    "how do i make good bread then",
    "bake",
    "two three",
    "tea",
    "i wait then stir",
]


def encoded(model: Model) -> list[Encoded]:
    return prompts_only(model, PROMPTS)


@pytest.mark.parametrize("family", list(tiny.CONFIGS))
def test_inner_blocks_equal_the_hidden_states_of_transformers(family: str) -> None:
    model = tiny.model(family)
    first, last = chosen_blocks(model)
    found = capture(model, encoded(model), [first, last], batch_size=1)
    for row, ids in enumerate(encode_prompts(model, PROMPTS)):
        states = model.module(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
        torch.testing.assert_close(found.states[first][row], states[1][0, -1].detach())


def test_the_last_block_is_read_before_the_final_norm() -> None:
    model = tiny.model("llama")
    last = chosen_blocks(model)[-1]
    found = capture(model, encoded(model), [last], batch_size=1).states[last]
    for row, ids in enumerate(encode_prompts(model, PROMPTS)):
        after_norm = model.module(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0, -1]
        norm = model.module.get_submodule("model.norm")
        torch.testing.assert_close(norm(found[row]).detach(), after_norm.detach())
        assert not torch.allclose(found[row], after_norm.detach())


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", list(tiny.CONFIGS))
def test_a_batch_of_seven_equals_one_by_one(family: str, side: str) -> None:
    model = tiny.model(family, padding_side=side)
    blocks = chosen_blocks(model)
    for place in PLACES:
        together = capture(model, encoded(model), blocks, "prompt", place, batch_size=7)
        alone = capture(model, encoded(model), blocks, "prompt", place, batch_size=1)
        assert torch.equal(together.rows, alone.rows)
        for block in blocks:
            torch.testing.assert_close(together.states[block], alone.states[block], rtol=2e-5, atol=2e-5)


def test_the_input_of_a_block_is_the_output_of_the_one_before() -> None:
    model = tiny.model("qwen3")
    first, second = chosen_blocks(model)
    before = capture(model, encoded(model), [first], "prompt", "output").states[first]
    assert torch.equal(before, capture(model, encoded(model), [second], "prompt", "input").states[second])


def test_parts_add_up_to_the_residual_stream() -> None:
    model = tiny.model("llama", torch.float64)
    block = chosen_blocks(model)[0]
    places: tuple[Place, ...] = ("input", "attention", "mlp", "output")
    before, attention, mlp, after = (
        capture(model, encoded(model), [block], "prompt", place).states[block] for place in places
    )
    torch.testing.assert_close(before + attention + mlp, after)


def test_tokens_of_prompt_and_answer() -> None:
    model, skill = tiny.model("llama"), tiny.skill()
    examples, block = encode(skill, model.tokenizer), chosen_blocks(model)[0]
    last, prompt, answer = (capture(model, examples, [block], tokens) for tokens in ("last", "prompt", "answer"))
    lengths = torch.tensor([sum(example.is_completion) for example in examples])
    assert torch.equal(torch.bincount(answer.rows), lengths)
    assert torch.equal(torch.bincount(prompt.rows) + lengths, torch.tensor([len(example.ids) for example in examples]))
    for row in range(len(examples)):
        assert torch.equal(prompt.states[block][prompt.rows == row][-1], last.states[block][row])


def test_the_mean_over_a_text_weighs_every_text_the_same() -> None:
    states = torch.tensor([[1.0], [3.0], [10.0]])
    found = Activations({"block": states}, torch.tensor([0, 0, 1])).per_prompt("block")
    assert found.tolist() == [[2.0], [10.0]]
    assert found.dtype == torch.float64


class ReturnsTuple(nn.Module):
    """A block in the older convention."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, hidden: Tensor, **kwargs: object) -> tuple[Tensor, str]:
        return self.block(hidden, **kwargs), "something else"


def test_blocks_that_return_tuples_are_read_and_changed_in_every_row() -> None:
    block = ReturnsTuple(nn.Identity())
    model = Model(tiny.model("llama").module, tiny.tokenizer(), {"block": block}, {})
    hidden, seen = torch.randn(3, 2, 4), dict[str, Tensor]()
    with visiting(model, {"block": lambda states: seen.setdefault("states", states) + 1}):
        changed, rest = block(hidden)
    assert torch.equal(seen["states"], hidden)
    assert torch.equal(changed, hidden + 1)
    assert rest == "something else"


def test_answers_need_completions() -> None:
    model = tiny.model("llama")
    with pytest.raises(InputError, match="text 3: has no answer tokens; give pairs"):
        capture(model, encoded(model)[:3], chosen_blocks(model), "answer")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_states_that_are_not_finite_are_named(value: float) -> None:
    model = tiny.model("llama")
    first, last = chosen_blocks(model)
    texts = encoded(model)
    longest = max(range(len(texts)), key=lambda row: len(texts[row].ids))  # the first row of its batch

    def poison(states: Tensor) -> Tensor:
        return states.index_put((torch.tensor(0), torch.tensor(-1), torch.tensor(3)), torch.tensor(value))

    message = rf"layers\.0: the hidden state of text {longest + 1} is NaN or Inf"
    with visiting(model, {first: poison}), pytest.raises(InputError, match=message):
        capture(model, texts, [first, last])


def test_blocks_by_number() -> None:
    model = tiny.model("llama")
    assert chosen_blocks(model, [-1, 0]) == ["model.layers.1", "model.layers.0"]
    with pytest.raises(InputError, match="block 2: the model has blocks 0 to 1"):
        chosen_blocks(model, [2])
    with pytest.raises(InputError, match="no block 'nowhere'"), visiting(model, {"nowhere": lambda states: None}):
        pass
