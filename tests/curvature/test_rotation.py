"""Joint Gram, principal angles, distance and bound against dense matrices and scipy, in float64."""

import copy

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from scipy.linalg import subspace_angles
from torch import Tensor

import saved
import tiny
from tiltmeter.curvature.fisher import Fisher
from tiltmeter.curvature.joint import JointGram, halves, joint_gram
from tiltmeter.curvature.rotation import Rotation, rotation
from tiltmeter.curvature.sites import sites
from tiltmeter.errors import InputError
from tiltmeter.layers import weight_of
from tiltmeter.models import Model, assemble
from tiltmeter.tokens import Encoded
from truth import example_gradients, float64_throughout

D = 2


def turned(model: Model, amount: float) -> Model:
    """The model with all weights moved a little."""
    module = copy.deepcopy(model.module)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(amount * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return assemble(module, model.tokenizer)


def gradients(model: Model, fisher: Fisher, encoded: list[Encoded]) -> list[Tensor]:
    found = example_gradients(model, encoded)
    return [torch.stack([g[name].flatten() for g in found]) for name in fisher.modules]


def dense(first: list[Tensor], second: list[Tensor], members: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Both Fisher matrices of some modules."""
    G, H = (torch.cat([side[m] for m in members], dim=1) for side in (first, second))
    return G.T @ G / len(G), H.T @ H / len(H)


def check(found: Rotation | None, F: Tensor, F_t: Tensor, d: int) -> None:
    assert found is not None
    (before, U), (after, V) = torch.linalg.eigh(F), torch.linalg.eigh(F_t)
    expected = subspace_angles(U[:, -d:].numpy(), V[:, -d:].numpy())
    np.testing.assert_allclose(found.angles.numpy(), expected, rtol=1e-6, atol=1e-7)
    P, P_t = U[:, -d:] @ U[:, -d:].T, V[:, -d:] @ V[:, -d:].T
    assert found.sine == pytest.approx(float(torch.linalg.matrix_norm(P - P_t, 2)), rel=1e-6)
    assert found.overlap == pytest.approx(float((P @ P_t).trace()) / d, rel=1e-6)
    assert found.distance == pytest.approx(float(torch.linalg.matrix_norm(F_t - F, 2)), rel=1e-6)
    assert found.gap == pytest.approx(float(before[-d] - before[-d - 1]), rel=1e-6)
    assert found.gap_after == pytest.approx(float(after[-d] - after[-d - 1]), rel=1e-6)
    assert found.trace_ratio == pytest.approx(float(F_t.trace() / F.trace()), rel=1e-6)
    assert found.bound == pytest.approx(2 * found.distance / found.gap)
    assert found.sine <= float(found.bound or 0) * (1 + 1e-9)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("memory", [1, 20_000, 1 << 30])
def test_rotation_between_two_models_equals_the_dense_one(family: str, memory: int) -> None:
    model = tiny.model(family, torch.float64)
    other = turned(model, 0.05)
    sizes = {name: weight_of(layer).numel() for name, layer in model.linears.items() if "lm_head" not in name}
    small = [name for name, size in sizes.items() if size == min(sizes.values())]
    with float64_throughout():
        fisher = Fisher(model, tiny.skill(), modules=small, batch_size=2, memory=memory)
        joint = joint_gram(fisher, fisher.at(other))
        first, second = (gradients(each, fisher, fisher.encoded) for each in (model, other))
    cross = torch.stack([g @ h.T for g, h in zip(first, second, strict=True)]) / len(fisher)
    torch.testing.assert_close(joint.cross, cross, rtol=1e-8, atol=1e-10 * float(cross.abs().max()))
    places = sites(fisher)
    assert places[0].size == 512
    for index, site in enumerate(places):
        check(rotation(joint.at(places), index, D), *dense(first, second, site.members), D)


def test_texts_of_other_lengths_are_joined_too() -> None:
    model = tiny.model("llama", torch.float64)
    with float64_throughout():
        fisher = Fisher(model, tiny.skill(), batch_size=2)
        sampled = fisher.of(Fisher(model, tiny.skill(), labels="sampled").encoded)
        assert [len(e.ids) for e in fisher.encoded] != [len(e.ids) for e in sampled.encoded]
        joint, own = joint_gram(fisher, sampled), sampled.gram()
        first, second = (gradients(model, fisher, each.encoded) for each in (fisher, sampled))
    cross = torch.stack([g @ h.T for g, h in zip(first, second, strict=True)]) / len(fisher)
    torch.testing.assert_close(joint.cross, cross, rtol=1e-8, atol=1e-10 * float(cross.abs().max()))
    torch.testing.assert_close(joint.second, own, rtol=1e-10, atol=0)


def test_adapters_are_measured_under_the_names_of_the_base() -> None:
    model = tiny.model("llama", torch.float64)
    fisher = Fisher(model, tiny.skill())
    tuned = assemble(copy.deepcopy(model.module), model.tokenizer)
    adapted = get_peft_model(tuned.module, LoraConfig(r=2, target_modules=["q_proj", "down_proj"]))
    saved.shaken(adapted, lambda name: "lora_" in name)
    merged = assemble(copy.deepcopy(adapted).merge_and_unload(), model.tokenizer)
    with float64_throughout():
        own, whole = (joint_gram(fisher, fisher.at(each)) for each in (tuned, merged))
    torch.testing.assert_close(own.cross, whole.cross, rtol=1e-9, atol=1e-10 * float(whole.cross.abs().max()))
    torch.testing.assert_close(own.second, whole.second, rtol=1e-9, atol=1e-10 * float(whole.second.abs().max()))


def test_nothing_moved_is_no_rotation() -> None:
    fisher = Fisher(tiny.model("llama", torch.float64), tiny.skill())
    joint = joint_gram(fisher, fisher.at(fisher.model))
    found = rotation(joint, 0, D)
    assert found is not None
    assert found.sine < 1e-6
    assert found.overlap == pytest.approx(1)
    assert found.is_informative


def test_rounding_in_float32_is_no_rotation() -> None:
    model = tiny.model("llama")
    one, other = (Fisher(model, tiny.skill(), batch_size=size) for size in (1, 5))
    found = rotation(joint_gram(one, other), 0, D)
    assert found is not None
    assert found.sine < 1e-3


def gram_of(first: Tensor, second: Tensor) -> JointGram:
    N = len(first)
    return JointGram((first @ first.T / N)[None], (second @ second.T / N)[None], (first @ second.T / N)[None])


def test_the_bound_is_only_claimed_where_there_is_a_gap() -> None:
    equal = torch.eye(4, 6, dtype=torch.float64)
    tied = rotation(gram_of(equal, equal), 0, D)
    assert tied is not None
    assert tied.bound is None
    assert not tied.is_informative
    whole = rotation(gram_of(equal, equal), 0, 4)  # lambda_5 = 0
    assert whole is not None
    assert whole.bound == pytest.approx(0, abs=1e-9)
    assert rotation(gram_of(equal, equal), 0, 5) is None
    low = equal.clone()
    low[2:] = 0
    assert rotation(gram_of(equal, low), 0, 3) is None  # the other side has two directions only
    assert rotation(gram_of(low, low), 0, 2) is not None


def test_halves_are_the_two_fishers_of_a_split() -> None:
    generator = torch.Generator().manual_seed(0)
    G = torch.randn(8, 30, generator=generator, dtype=torch.float64)
    order = torch.from_numpy(np.random.default_rng(3).permutation(8))
    A, B = G[order[:4]], G[order[4:]]
    found = halves((G @ G.T / 8)[None], seed=3)
    check(rotation(found, 0, D), A.T @ A / 4, B.T @ B / 4, D)


def test_another_architecture_is_refused() -> None:
    fisher = Fisher(tiny.model("llama"), tiny.skill())
    with pytest.raises(InputError, match="no linear modules"):
        fisher.at(tiny.model("gpt2"))
    config = copy.deepcopy(tiny.CONFIGS["llama"])
    config.intermediate_size = 40
    wide = assemble(type(fisher.model.module)(config), tiny.tokenizer())
    with pytest.raises(InputError, match="gate_proj: expected a weight of"):
        fisher.at(wide)
    with pytest.raises(InputError, match="as many examples"):
        joint_gram(fisher, fisher.of(fisher.encoded[:3]))
