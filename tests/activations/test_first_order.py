"""The forecast of a shift against central differences of captured activations, one prompt at a time."""

import pytest
import torch
from torch import Tensor

import tiny
from tiltmeter.activations.capture import prompts_only
from tiltmeter.activations.first_order import agreement, first_order_shift
from tiltmeter.errors import InputError
from tiltmeter.geometry.features import block_outputs
from tiltmeter.geometry.path import End, WeightPath
from tiltmeter.layers import widths
from tiltmeter.models import Model
from tiltmeter.tokens import Encoded, encode
from tiltmeter.updates.update import Update

PROMPTS = ["make tea", "how do i make bad soup", "bake", "two good tea three good bread then wait"]


def random_update(model: Model, rank: int | None = None, seed: int = 3) -> Update:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return 0.1 * torch.randn(*shape, generator=generator, dtype=torch.float64)

    shapes = {name: widths(layer) for name, layer in model.linears.items()}
    return Update.from_tensors(
        {name: normal(o, i) if rank is None else (normal(o, rank), normal(rank, i)) for name, (o, i) in shapes.items()}
    )


def captured(model: Model, encoded: list[Encoded]) -> dict[str, Tensor]:
    """The mean over texts of each block's output at the last token, one text at a time."""
    rows = []
    with torch.no_grad(), block_outputs(model) as outputs:
        for text in encoded:
            model.module(input_ids=torch.tensor([text.ids]), use_cache=False)
            rows.append(torch.stack([output[0, -1] for output in outputs]))
    return dict(zip(model.blocks, torch.stack(rows).mean(0), strict=True))


def central_difference(model: Model, update: Update, prompts: list[Encoded], step: float) -> dict[str, Tensor]:
    path = WeightPath(model, [End(update)])
    with path.at(step):
        after = captured(model, prompts)
    with path.at(-step):
        before = captured(model, prompts)
    return {name: (after[name] - before[name]) / (2 * step) for name in after}


def close(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert list(found) == list(expected)
    for name, shift in expected.items():
        assert shift.norm() > 1e-3
        assert (found[name] - shift).norm() <= tolerance * shift.norm()


@pytest.mark.parametrize(("rank", "padding_side"), [(None, "left"), (2, "right")])
@pytest.mark.parametrize("family", tiny.CONFIGS)
@pytest.mark.usefixtures("in_float64")
def test_the_forecast_equals_a_central_difference(family: str, rank: int | None, padding_side: str) -> None:
    model = tiny.model(family, torch.float64, padding_side)
    update, prompts = random_update(model, rank), prompts_only(model, PROMPTS)
    found = first_order_shift(model, update, prompts, batch_size=3)
    close(found, central_difference(model, update, prompts, 1e-4), 1e-6)


@pytest.mark.usefixtures("in_float64")
def test_the_last_writer_alone_is_forecast_exactly() -> None:
    model = tiny.model("llama", torch.float64)
    name, prompts = "model.layers.1.mlp.down_proj", prompts_only(model, PROMPTS)
    update = Update.from_tensors({name: random_update(model)[name].dense()})
    before = captured(model, prompts)
    with WeightPath(model, [End(update)]).at(1.0):
        after = captured(model, prompts)
    found = first_order_shift(model, update, prompts)
    last = "model.layers.1"
    torch.testing.assert_close(found[last], after[last] - before[last], rtol=1e-10, atol=1e-12)
    assert not found["model.layers.0"].any()


@pytest.mark.usefixtures("in_float64")
def test_the_forecast_is_linear_in_the_update() -> None:
    model = tiny.model("qwen3", torch.float64)
    one, other, prompts = random_update(model, 2), random_update(model, seed=4), prompts_only(model, PROMPTS)
    parts = [first_order_shift(model, update, prompts) for update in (one, other)]
    expected = {name: 3 * parts[0][name] - parts[1][name] for name in parts[0]}
    close(first_order_shift(model, 3 * one - other, prompts), expected, 1e-12)


@pytest.mark.usefixtures("in_float64")
def test_factors_give_what_their_product_gives() -> None:
    model = tiny.model("gpt2", torch.float64)
    update, prompts = random_update(model, 2), prompts_only(model, PROMPTS)
    dense = Update.from_tensors({name: delta.dense() for name, delta in update.items()})
    close(first_order_shift(model, update, prompts), first_order_shift(model, dense, prompts), 1e-12)


@pytest.mark.parametrize("family", ["gemma2", "gpt2"])
def test_the_forecast_does_not_depend_on_the_batch_size(family: str) -> None:
    model = tiny.model(family, padding_side="left")
    update, prompts = random_update(model), prompts_only(model, PROMPTS)
    alone = [first_order_shift(model, update, [text]) for text in prompts]
    expected = {name: torch.stack([each[name] for each in alone]).mean(0) for name in alone[0]}
    for batch_size in (2, 4):
        close(first_order_shift(model, update, prompts, batch_size), expected, 1e-5)


def test_the_model_is_left_as_it_was() -> None:
    model, update = tiny.model("llama"), random_update(tiny.model("llama"), 1)
    prompts = prompts_only(model, PROMPTS)
    before = captured(model, prompts)
    first_order_shift(model, update, prompts)
    plain = model.module.lm_head.forward

    def stop(_: Tensor) -> Tensor:
        raise RuntimeError("stopped on the way")

    model.module.lm_head.forward = stop
    with pytest.raises(RuntimeError, match="stopped"):
        first_order_shift(model, update, prompts)
    model.module.lm_head.forward = plain
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in model.module.modules())
    after = captured(model, prompts)
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.usefixtures("in_float64")
def test_the_shift_is_taken_where_the_answer_begins() -> None:
    model = tiny.model("llama", torch.float64)
    encoded, update = encode(tiny.skill(), model.tokenizer), random_update(model)
    prompts = [Encoded(text.ids[: text.is_completion.index(True)], []) for text in encoded]
    close(first_order_shift(model, update, encoded), central_difference(model, update, prompts, 1e-4), 1e-6)


def test_fused_experts_are_computed_one_by_one_meanwhile() -> None:
    model = tiny.model("qwen3_moe")
    update, prompts = random_update(model), prompts_only(model, PROMPTS)
    expected = first_order_shift(model, update, prompts)
    model.module.set_experts_implementation("grouped_mm")
    close(first_order_shift(model, update, prompts), expected, 1e-12)
    assert set(model.module.get_experts_implementation().values()) == {"grouped_mm"}


def test_the_output_layer_moves_no_block() -> None:
    model = tiny.model("llama")
    head = Update.from_tensors({"lm_head": random_update(model)["lm_head"].dense()})
    shift = first_order_shift(model, head, prompts_only(model, PROMPTS))
    assert not any(each.any() for each in shift.values())


def test_what_is_refused() -> None:
    model = tiny.model("llama")
    prompts, name = prompts_only(model, PROMPTS), "model.layers.0.mlp.up_proj"
    with pytest.raises(InputError, match=r"no linear layers of the model: model\.norm, elsewhere"):
        first_order_shift(
            model, Update.from_tensors({"model.norm": torch.ones(2, 2), "elsewhere": torch.ones(2, 2)}), prompts
        )
    with pytest.raises(InputError, match=f"module {name}: the model's weight is"):
        first_order_shift(model, Update.from_tensors({name: torch.ones(2, 2)}), prompts)
    update = random_update(model, 1)
    with pytest.raises(InputError, match="got none"):
        first_order_shift(model, update, [])
    with pytest.raises(InputError, match="text 2: has 0 tokens, the model takes 1 to 64"):
        first_order_shift(model, update, [prompts[0], Encoded([], [])])
    with pytest.raises(InputError, match="text 1: has 65 tokens"):
        first_order_shift(model, update, [Encoded([5] * 65, [False] * 65)])


class _NoForwardMode(torch.autograd.Function):
    """A kernel with a backward pass only."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()


def test_a_kernel_without_forward_mode_is_named() -> None:
    model = tiny.model("llama")
    norm = model.module.model.norm
    norm.forward = _NoForwardMode.apply
    with pytest.raises(InputError, match="no forward mode"):
        first_order_shift(model, random_update(model, 1), prompts_only(model, PROMPTS))


def test_nan_is_refused() -> None:
    model = tiny.model("llama")
    with torch.no_grad():
        model.module.model.layers[1].mlp.down_proj.weight.fill_(torch.nan)
    with pytest.raises(InputError, match=r"model\.layers\.1: the model computes NaN"):
        first_order_shift(model, random_update(model, 1), prompts_only(model, PROMPTS))


def test_agreement() -> None:
    found = agreement(torch.tensor([3.0, 0.0]), torch.tensor([3.0, 4.0]))
    assert found.cosine == pytest.approx(0.6)
    assert found.norm_ratio == pytest.approx(0.6)
    with pytest.raises(InputError, match="the measured shift is zero"):
        agreement(torch.ones(2), torch.zeros(2))
