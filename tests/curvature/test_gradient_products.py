"""Inner products and norms of gradients against per-example gradients by autograd."""

import pytest
import torch
from torch import Tensor

import tiny
from tiltmeter.curvature import gradient_products as products
from tiltmeter.curvature.fisher import Fisher
from tiltmeter.curvature.gradient_products import gradient_products
from tiltmeter.errors import InputError
from tiltmeter.layers import widths
from tiltmeter.models import Model
from tiltmeter.updates.update import Update
from truth import example_gradients, float64_throughout


def two_updates(model: Model, fisher: Fisher) -> list[Update]:
    generator = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    shapes = {name: widths(model.linears[name]) for name in fisher.modules}
    return [
        Update.from_tensors({name: normal(o, i) for name, (o, i) in shapes.items()}),
        Update.from_tensors({name: (normal(o, 2), normal(2, i)) for name, (o, i) in shapes.items()}),
    ]


def check(model: Model, fisher: Fisher, mean: bool = False) -> None:
    """Against dense gradients, to 1e-9."""
    updates = two_updates(model, fisher)
    measured = gradient_products(fisher, updates)
    gradients = example_gradients(model, fisher.encoded, mean)
    stacked = torch.stack([torch.cat([g[name].flatten() for name in fisher.modules]) for g in gradients])
    flat = torch.stack([torch.cat([update[name].dense().flatten() for name in fisher.modules]) for update in updates])
    torch.testing.assert_close(measured.inner, flat @ stacked.T, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(measured.norms, stacked.norm(dim=1), rtol=1e-9, atol=0)


@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("batch_size", [1, 3, 5])
@pytest.mark.parametrize("family", list(tiny.CONFIGS))
def test_products_equal_those_of_dense_gradients(family: str, batch_size: int, padding_side: str) -> None:
    model = tiny.model(family, torch.float64, padding_side)
    with float64_throughout():
        check(model, Fisher(model, tiny.skill(), batch_size=batch_size))


def test_a_mean_over_tokens() -> None:
    model = tiny.model("qwen3", torch.float64)
    with float64_throughout():
        check(model, Fisher(model, tiny.skill(), reduction="mean"), mean=True)


def test_gradients_formed_row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "SCRATCH", 1)
    model = tiny.model("llama", torch.float64)
    with float64_throughout():
        check(model, Fisher(model, tiny.skill(), batch_size=2))


def test_a_module_that_is_called_twice_has_one_gradient() -> None:
    model = tiny.model("llama", torch.float64)
    model.module.model.layers[1] = model.module.model.layers[0]
    with float64_throughout():
        check(model, Fisher(model, tiny.skill(), batch_size=2))


def test_a_call_without_part_in_the_loss_counts_nothing() -> None:
    model = tiny.model("llama", torch.float64)
    mlp = model.module.model.layers[0].mlp
    plain = mlp.forward
    mlp.forward = lambda x: (mlp.up_proj(x.detach() * 2), plain(x))[1]
    with float64_throughout():
        fisher = Fisher(model, tiny.skill(), batch_size=2)
        assert fisher.calls["model.layers.0.mlp.up_proj"] == 2
        check(model, fisher)


def test_an_update_of_other_modules_is_refused() -> None:
    model = tiny.model("llama")
    fisher = Fisher(model, tiny.skill())
    name = fisher.modules[0]
    with pytest.raises(InputError, match=f"module {name} is measured"):
        gradient_products(fisher, [Update.from_tensors({"elsewhere": torch.ones(2, 2)})])
    with pytest.raises(InputError, match=f"module {name}: the model's weight is"):
        gradient_products(fisher, [Update.from_tensors({name: torch.ones(2, 2)})])
