"""Coordinates and Gram against per-example gradients by autograd."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from torch import Tensor

import tiny
from tiltmeter.curvature.fisher import Fisher
from tiltmeter.errors import InputError
from tiltmeter.layers import widths
from tiltmeter.models import Model
from tiltmeter.updates.update import Update
from truth import example_gradients, float64_throughout

FAMILIES = list(tiny.CONFIGS)
# As shipped, transformers computes norms and softmax in float32 whatever the model's dtype.
PRECISIONS = [
    (torch.float64, float64_throughout, 1e-9),
    (torch.float64, nullcontext, 1e-5),
    (torch.float32, nullcontext, 1e-4),
]
Context = Callable[[], AbstractContextManager[None]]


def updates(model: Model, names: list[str], dtype: torch.dtype) -> list[Update]:
    """Two dense updates, two low-rank ones of different rank, one that touches one module only."""
    generator = torch.Generator().manual_seed(7)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    shapes = {name: widths(model.linears[name]) for name in names}
    return [
        Update.from_tensors({name: normal(o, i) for name, (o, i) in shapes.items()}),
        Update.from_tensors({name: (normal(o, 1), normal(1, i)) for name, (o, i) in shapes.items()}),
        Update.from_tensors({name: normal(o, i) for name, (o, i) in shapes.items()}),
        Update.from_tensors({name: (normal(o, 3), normal(3, i)) for name, (o, i) in shapes.items()}),
        Update.from_tensors({names[1]: normal(*shapes[names[1]])}),
    ]


def dense_truth(model: Model, fisher: Fisher, some: list[Update]) -> tuple[Tensor, Tensor]:
    gradients = example_gradients(model, fisher.encoded)
    stacked = {m: torch.stack([g[m].double().flatten() for g in gradients]) for m in fisher.modules}
    coordinates = torch.zeros(len(some), len(fisher.modules), len(fisher), dtype=torch.float64)
    for k, update in enumerate(some):
        for m, name in enumerate(fisher.modules):
            if name in update:
                coordinates[k, m] = stacked[name] @ update[name].dense().double().flatten()
    gram = torch.stack([g @ g.T for g in stacked.values()]) / len(fisher)
    return coordinates, gram


def close(a: Tensor, b: Tensor, relative: float) -> bool:
    return bool((a - b).norm() <= relative * b.norm()) and bool(b.norm() > 0)


@pytest.mark.parametrize(("dtype", "context", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_coordinates_and_gram_equal_dense_gradients(
    family: str, dtype: torch.dtype, context: Context, tolerance: float
) -> None:
    model = tiny.model(family, dtype)
    with context():
        fisher = Fisher(model, tiny.skill(), batch_size=2)
        some = updates(model, fisher.modules, dtype)
        coordinates, gram = dense_truth(model, fisher, some)
        measured = fisher.coordinates(some)
        assert close(measured, coordinates, tolerance)
        assert close(fisher.gram(), gram, tolerance)
        for k in range(len(some)):  # one at a time takes other paths through the arithmetic
            assert close(fisher.coordinates([some[k]])[0], coordinates[k], tolerance)


@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("batch_size", [1, 3, 5])
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_coordinates_and_gram_do_not_depend_on_batch_size_or_padding_side(
    family: str, batch_size: int, padding_side: str
) -> None:
    model = tiny.model(family, torch.float64, padding_side)
    with float64_throughout():
        fisher = Fisher(model, tiny.skill(), batch_size=batch_size)
        some = updates(model, fisher.modules, torch.float64)
        coordinates, gram = dense_truth(model, fisher, some)
        assert close(fisher.coordinates(some), coordinates, 1e-9)
        assert close(fisher.gram(), gram, 1e-9)


@pytest.mark.parametrize("memory", [1, 10_000, 40_000])
def test_results_do_not_depend_on_the_memory_budget(memory: int) -> None:
    model = tiny.model("llama", torch.float64)
    with float64_throughout():
        free, tight = Fisher(model, tiny.skill()), Fisher(model, tiny.skill(), memory=memory)
        some = updates(model, free.modules, torch.float64)
        assert close(tight.coordinates(some), free.coordinates(some), 1e-12)
        assert close(tight.gram(), free.gram(), 1e-12)


def test_mean_reduction_divides_by_completion_tokens() -> None:
    model = tiny.model("qwen3", torch.float64)
    with float64_throughout():
        fisher = Fisher(model, tiny.skill(), reduction="mean")
        gradients = example_gradients(model, fisher.encoded, mean=True)
        name = fisher.modules[3]
        stacked = torch.stack([g[name].flatten() for g in gradients])
        assert close(fisher.gram()[3], stacked @ stacked.T / len(fisher), 1e-9)


def test_a_module_that_is_called_twice_counts_twice() -> None:
    model = tiny.model("llama", torch.float64)
    layers = model.module.model.layers
    layers[1] = layers[0]  # the same block twice
    with float64_throughout():
        fisher = Fisher(model, tiny.skill(), batch_size=2)
        some = updates(model, fisher.modules, torch.float64)
        coordinates, gram = dense_truth(model, fisher, some)
        assert close(fisher.coordinates(some), coordinates, 1e-9)
        assert close(fisher.gram(), gram, 1e-9)


def test_two_modules_that_share_a_weight_count_as_one() -> None:
    model = tiny.model("llama", torch.float64)
    layers = model.module.model.layers
    layers[1].mlp.up_proj.weight = layers[0].mlp.up_proj.weight
    with float64_throughout():
        fisher = Fisher(model, tiny.skill(), batch_size=2)
        assert "model.layers.1.mlp.up_proj" not in fisher.modules
        name = "model.layers.0.mlp.up_proj"
        stacked = torch.stack([g[name].flatten() for g in example_gradients(model, fisher.encoded)])
        assert close(fisher.gram()[fisher.modules.index(name)], stacked @ stacked.T / len(fisher), 1e-9)


def test_fused_experts_and_embeddings_are_named_as_not_covered() -> None:
    moe = Fisher(tiny.model("qwen3_moe"), tiny.skill())
    assert any("experts" in name for name in moe.not_covered)
    tied = tiny.model("gemma2")
    with pytest.raises(InputError, match="input embedding"):
        Fisher(tied, tiny.skill(), modules=["lm_head"])


def test_weights_and_hooks_are_left_as_they_were() -> None:
    model = tiny.model("llama")
    fisher = Fisher(model, tiny.skill())
    fisher.gram()
    assert all(p.requires_grad and p.grad is None for p in model.module.parameters())
    assert not any(layer._forward_hooks for layer in model.linears.values())


def test_sampled_labels_are_the_models_own_and_deterministic() -> None:
    model = tiny.model("llama")
    one, two = (Fisher(model, tiny.skill(), labels="sampled") for _ in range(2))
    given = Fisher(model, tiny.skill())
    assert one.encoded == two.encoded != given.encoded
    assert [e.ids[: e.is_completion.index(True)] for e in one.encoded] == [
        e.ids[: e.is_completion.index(True)] for e in given.encoded
    ]


def test_unfit_input_is_named() -> None:
    model = tiny.model("llama")
    with pytest.raises(InputError, match="no linear modules"):
        Fisher(model, tiny.skill(), modules=["nonsense"])
    with pytest.raises(InputError, match="float16"):
        Fisher(tiny.model("llama", torch.float16), tiny.skill())
    fisher = Fisher(model, tiny.skill())
    with pytest.raises(InputError, match="shares no module"):
        fisher.coordinates([Update.from_tensors({"elsewhere": torch.ones(2, 2)})])
    with pytest.raises(InputError, match=fisher.modules[0]):
        fisher.coordinates([Update.from_tensors({fisher.modules[0]: torch.ones(2, 2)})])
