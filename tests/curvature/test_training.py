"""The short way from Python agrees with the long one, and with dense autograd."""

import pytest
import torch

import tiltmeter as tm
import tiny
from tiltmeter.errors import InputError
from tiltmeter.layers import is_transposed, weight_of
from truth import float64_throughout


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_gradient_is_autograds_of_the_mean_loss(family: str) -> None:
    model = tiny.model(family, torch.float64)
    with float64_throughout():
        update = tm.gradient(model, tiny.skill(2), batch_size=1)
        fisher = tm.Fisher(model, tiny.skill(2))
        total, tokens = torch.zeros((), dtype=torch.float64), 0
        for example in fisher.encoded:
            ids = torch.tensor([example.ids])
            picked = model.module(ids, use_cache=False).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
            total = total - picked[torch.tensor(example.is_completion[1:])].sum()
            tokens += sum(example.is_completion)
        for name in fisher.modules:
            weight = weight_of(model.linears[name])
            (expected,) = torch.autograd.grad(total / tokens, weight, retain_graph=True)
            expected = expected.T if is_transposed(model.linears[name]) else expected
            assert torch.allclose(update[name].dense(), expected, rtol=1e-9, atol=1e-12)


def test_products_are_symmetric_and_linear_whatever_kind_of_update() -> None:
    model, data = tiny.model("gpt2", torch.float64), tiny.skill(3)
    with float64_throughout():
        fisher = tm.Fisher(model, data)
        shapes = {name: tuple(weight_of(model.linears[name]).T.shape) for name in fisher.modules}
        generator = torch.Generator().manual_seed(0)

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        low = tm.Update.from_tensors({name: (normal(o, 1), normal(1, i)) for name, (o, i) in shapes.items()})
        some = tm.Update.from_tensors({name: normal(o, i) for name, (o, i) in list(shapes.items())[:2]})
        first, second = (tm.hessian_vector_product(model, data, each) for each in (low, some))
        assert first.inner(some) == pytest.approx(second.inner(low), rel=1e-9)
        both = tm.hessian_vector_product(model, data, 2 * low + some)
        assert (both - 2 * first - second).norm() < 1e-10 * both.norm()
    with pytest.raises(InputError, match="nowhere"):
        tm.hessian_vector_product(model, data, tm.Update.from_tensors({"nowhere": torch.ones(2, 2)}))


def test_the_condition_is_that_of_gradient_and_product() -> None:
    model, data = tiny.model("llama", torch.float64), tiny.skill(3)
    with float64_throughout():
        fisher = tm.Fisher(model, tiny.skill())
        g = tm.gradient(model, data)
        c = fisher.coordinates([g, tm.hessian_vector_product(model, data, g)]).sum(1)
        found = tm.instability(fisher, data, dims=3)
        assert torch.allclose(found.velocity, c[0], rtol=1e-9, atol=1e-12)
        assert torch.allclose(found.acceleration, c[1], rtol=1e-8, atol=1e-12)
        assert found.speed == pytest.approx(g.norm())
        times = [1e-6, 2e-6]
        ahead = tm.forecast(fisher, data, times, dims=3)
        assert ahead.drift.drift == pytest.approx([t * found.weighted_epsilon for t in times], rel=1e-3)
        assert ahead.utility_loss == pytest.approx([t * found.first_order for t in times], rel=1e-2)
