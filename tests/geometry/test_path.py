"""The ends of a path are the models, its middle is that of averaged weights, and the base comes back bit for bit."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM

import saved
import tiny
from tiltmeter.errors import InputError
from tiltmeter.geometry.ends import read_end
from tiltmeter.geometry.path import End, Variant, WeightPath
from tiltmeter.models import Model, load_model, load_tuned
from tiltmeter.updates.update import Update
from truth import float64_throughout

IDS = torch.tensor([[1, 7, 8, 9, 10, 11, 12]])
QV = ["q_proj", "v_proj"]
GPT2 = {"fan_in_fan_out": True, "target_modules": ["c_attn", "c_proj", "c_fc"]}
ADAPTERS: dict[str, tuple[str, bool, dict[str, Any]]] = {
    "plain": ("llama", False, {"target_modules": QV}),
    "rsLoRA, patterns": ("qwen3", False, {"target_modules": QV, "use_rslora": True, "rank_pattern": {"q_proj": 3}}),
    "Conv1D": ("gpt2", True, GPT2),
    "bias of the factor": ("gpt2", True, {**GPT2, "lora_bias": True}),
    "every bias": ("gpt2", True, {**GPT2, "bias": "all"}),
    "DoRA": ("llama", False, {"target_modules": QV, "use_dora": True}),
    "embedding": ("llama", False, {"target_modules": ["q_proj", "embed_tokens"]}),
    "embedding, tied": ("llama", True, {"target_modules": ["q_proj", "embed_tokens"]}),
    "output layer, tied": ("llama", True, {"target_modules": ["q_proj", "lm_head"]}),
    "output layer saved, tied": ("llama", True, {"target_modules": QV, "modules_to_save": ["lm_head"]}),
    "embedding saved": ("llama", False, {"target_modules": QV, "modules_to_save": ["embed_tokens"]}),
    "embedding saved, tied": ("llama", True, {"target_modules": QV, "modules_to_save": ["embed_tokens"]}),
    "norm saved": ("llama", False, {"target_modules": QV, "modules_to_save": ["norm"]}),
    "trained tokens": ("llama", False, {"target_modules": QV, "trainable_token_indices": [1, 9]}),
    "trained tokens, tied": ("llama", True, {"target_modules": QV, "trainable_token_indices": [1, 9]}),
}


def write_base(folder: Path, family: str = "llama", tied: bool = False) -> Any:
    module = saved.model(family, tied)
    module.save_pretrained(folder / "base")
    tiny.tokenizer().save_pretrained(folder / "base")
    return module


def write_adapter(folder: Path, module: Any, seed: int = 1, r: int = 4, **config: Any) -> Path:
    tuned = get_peft_model(copy.deepcopy(module), LoraConfig(r=r, lora_alpha=6, **config)).double()
    trained = {name for name, parameter in tuned.named_parameters() if parameter.requires_grad}
    saved.shaken(tuned, lambda name: name in trained, seed).save_pretrained(folder)
    return folder


def write_checkpoint(folder: Path, family: str = "llama", tied: bool = False, seed: int = 1) -> Path:
    """Every parameter differs from the base's."""
    saved.shaken(saved.model(family, tied), lambda name: True, seed).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


def path_to(base: Model, folder: Path, *names: str, **options: Any) -> WeightPath:
    return WeightPath(base, [read_end(base, folder / "base", folder / name) for name in names], **options)


def logits(model: Model) -> Tensor:
    with torch.no_grad(), float64_throughout():
        found: Tensor = model.module(input_ids=IDS, use_cache=False).logits
    return found


def weights(model: Model) -> dict[str, Tensor]:
    named = model.module.named_parameters(remove_duplicate=False)
    return {name: parameter.detach().clone() for name, parameter in named}


def parameters(model: Model) -> dict[str, int]:
    return {name: id(parameter) for name, parameter in model.module.named_parameters(remove_duplicate=False)}


@pytest.fixture(scope="module", params=[*ADAPTERS.values()], ids=[*ADAPTERS])
def adapted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("path")
    family, tied, config = request.param
    write_adapter(folder / "adapter", write_base(folder, family, tied), **config)
    return folder


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_the_ends_are_the_models(adapted: Path, dtype: torch.dtype, tolerance: float) -> None:
    base = load_model(adapted / "base", dtype)
    tuned = load_tuned(adapted / "base", adapted / "adapter", dtype)
    before, first, own = logits(base), weights(base), parameters(base)
    path = path_to(base, adapted, "adapter")
    with path.at(0.0) as model:
        assert all(torch.equal(value, first[name]) for name, value in weights(model).items())
        torch.testing.assert_close(logits(model), before, rtol=0, atol=tolerance)
    with path.at(1.0) as model:
        assert not torch.allclose(logits(model), before, atol=1e-3)
        torch.testing.assert_close(logits(model), logits(tuned), rtol=0, atol=tolerance)
    assert parameters(base) == own
    assert all(torch.equal(value, first[name]) for name, value in weights(base).items())


@pytest.mark.parametrize(
    ("family", "tied", "dtype", "tolerance"),
    [
        ("llama", False, torch.float64, 1e-10),
        ("qwen3", True, torch.float64, 1e-10),
        ("gpt2", True, torch.float64, 1e-10),
        ("qwen3_moe", False, torch.float32, 1e-5),  # the kernel for experts has no float64
    ],
)
def test_halfway_between_two_checkpoints_is_the_model_of_averaged_weights(
    family: str, tied: bool, dtype: torch.dtype, tolerance: float, tmp_path: Path
) -> None:
    write_base(tmp_path, family, tied)
    folders = [write_checkpoint(tmp_path / name, family, tied, seed) for seed, name in enumerate(("one", "two"), 2)]
    average = load_model(folders[0], dtype)
    other = load_model(folders[1], dtype).module.state_dict()
    average.module.load_state_dict({key: (a + other[key]) / 2 for key, a in average.module.state_dict().items()})
    base = load_model(tmp_path / "base", dtype)
    path = path_to(base, tmp_path, "one", "two")
    count = len(list(base.module.named_parameters()))
    with path.at(0.5) as model:
        torch.testing.assert_close(logits(model), logits(average), rtol=0, atol=tolerance)
        assert len(list(model.module.named_parameters())) == count  # what was tied is one parameter still
    for s, folder in enumerate(folders):
        with path.at(float(s)) as model:
            torch.testing.assert_close(logits(model), logits(load_model(folder, dtype)), rtol=0, atol=tolerance)


def test_a_checkpoint_and_an_adapter_mix(tmp_path: Path) -> None:
    module = write_base(tmp_path)
    write_adapter(tmp_path / "adapter", module, target_modules=QV)
    write_checkpoint(tmp_path / "whole")
    base = load_model(tmp_path / "base", torch.float64)
    ends = [load_tuned(tmp_path / "base", tmp_path / name, torch.float64) for name in ("whole", "adapter")]
    expected = weights(ends[0])
    merged = Update.from_adapter(tmp_path / "adapter", tmp_path / "base")
    first = weights(base)
    with path_to(base, tmp_path, "whole", "adapter").at(0.25) as model:
        for name, value in weights(model).items():
            own = merged[module].dense() if (module := name.removesuffix(".weight")) in merged else 0.0
            torch.testing.assert_close(value, 0.75 * expected[name] + 0.25 * (first[name] + own), rtol=0, atol=1e-13)


@pytest.mark.parametrize("tied", [False, True])
def test_an_untied_checkpoint_of_a_tied_base_and_the_reverse(tied: bool, tmp_path: Path) -> None:
    write_base(tmp_path, tied=tied)
    tuned = load_model(write_checkpoint(tmp_path / "whole", tied=not tied), torch.float64)
    base = load_model(tmp_path / "base", torch.float64)
    own = parameters(base)
    with path_to(base, tmp_path, "whole").at(1.0) as model:
        torch.testing.assert_close(logits(model), logits(tuned), rtol=0, atol=1e-10)
    assert parameters(base) == own


def test_twice_the_change_is_on_the_same_line(tmp_path: Path) -> None:
    write_base(tmp_path)
    write_checkpoint(tmp_path / "whole")
    base = load_model(tmp_path / "base", torch.float64)
    first, tuned = weights(base), weights(load_model(tmp_path / "whole", torch.float64))
    with path_to(base, tmp_path, "whole").at(2.0) as model:
        for name, value in weights(model).items():
            torch.testing.assert_close(value, 2 * tuned[name] - first[name], rtol=0, atol=1e-13)


def test_an_exception_on_the_way_leaves_the_base(tmp_path: Path) -> None:
    write_base(tmp_path, tied=True)
    write_checkpoint(tmp_path / "whole", tied=True)
    base = load_model(tmp_path / "base")
    first, own = weights(base), parameters(base)
    path = path_to(base, tmp_path, "whole")

    def fail_on_the_way() -> None:
        with path.at(0.7) as model:
            assert not torch.equal(weights(model)["model.norm.weight"], first["model.norm.weight"])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_on_the_way()
    assert parameters(base) == own
    assert all(torch.equal(value, first[name]) for name, value in weights(base).items())


def test_bfloat16_weights_are_moved_in_float32_and_rounded_once(tmp_path: Path) -> None:
    write_base(tmp_path)
    write_checkpoint(tmp_path / "whole")
    base = load_model(tmp_path / "base", torch.bfloat16)
    tuned = Update.between(tmp_path / "base", tmp_path / "whole")
    weight = weights(base)["lm_head.weight"]
    with path_to(base, tmp_path, "whole").at(0.5) as model:
        expected = (weight.double() + 0.5 * tuned["lm_head"].dense()).bfloat16()
        found = weights(model)["lm_head.weight"]
        assert found.dtype == torch.bfloat16
        assert float((found != expected).float().mean()) < 0.01  # a tie in float32 may round the other way


def test_rounding_is_told(tmp_path: Path) -> None:
    write_base(tmp_path)
    write_checkpoint(tmp_path / "whole")
    exact = path_to(load_model(tmp_path / "base"), tmp_path, "whole")
    assert exact.rounding(0.5) == 0
    path = path_to(load_model(tmp_path / "base", torch.bfloat16), tmp_path, "whole")
    first = weights(path.model)
    changes = dict(path.ends[0].others) | {
        f"{name}.weight": delta.dense() for name, delta in path.ends[0].update.items()
    }
    moved = {name: first[name].double() + 0.1 * change for name, change in changes.items()}
    lost = sum(float((value - value.bfloat16().double()).square().sum()) for value in moved.values())
    distance = sum(float((0.1 * change.double()).square().sum()) for change in changes.values())
    assert path.rounding(0.1) == pytest.approx((lost / distance) ** 0.5, rel=1e-2)


def two_adapters(folder: Path, **second: Any) -> Model:
    module = write_base(folder)
    write_adapter(folder / "one", module, 1, target_modules=QV)
    write_adapter(folder / "two", module, 2, **{"target_modules": QV, **second})
    return load_model(folder / "base", torch.float64)


def factors(folder: Path, name: str, module: str) -> tuple[Tensor, Tensor]:
    left, right = Update.from_adapter(folder / name, folder / "base")[module].tensors
    return left, right


def test_mixed_factors_add_cross_terms(tmp_path: Path) -> None:
    base, name = two_adapters(tmp_path), "model.layers.1.self_attn.q_proj"
    (B1, A1), (B2, A2) = (factors(tmp_path, end, name) for end in ("one", "two"))
    s, first = 0.3, weights(base)[f"{name}.weight"]
    straight = 0.7 * B1 @ A1 + 0.3 * B2 @ A2
    mixed = 0.49 * B1 @ A1 + 0.09 * B2 @ A2 + 0.21 * (B1 @ A2 + B2 @ A1)
    for variant, expected in (("effective", straight), ("factors", mixed)):
        path = path_to(base, tmp_path, "one", "two", variant=variant)
        torch.testing.assert_close(path.update(s)[name].dense(), expected, rtol=0, atol=1e-13)
        with path.at(s) as model:
            torch.testing.assert_close(weights(model)[f"{name}.weight"], first + expected, rtol=0, atol=1e-13)


def test_scaled_factors_scale_the_change_by_the_square(tmp_path: Path) -> None:
    base, name = two_adapters(tmp_path), "model.layers.0.self_attn.v_proj"
    B, A = factors(tmp_path, "one", name)
    for variant, power in (("effective", 1), ("factors", 2)):
        path = path_to(base, tmp_path, "one", variant=variant)
        torch.testing.assert_close(path.update(1.5)[name].dense(), 1.5**power * B @ A, rtol=0, atol=1e-13)


def test_the_effective_path_does_not_depend_on_the_factors(tmp_path: Path) -> None:
    """(B G, G^-1 A) is the same adapter for any G."""
    base, name = two_adapters(tmp_path), "model.layers.0.self_attn.q_proj"
    one, two = (read_end(base, tmp_path / "base", tmp_path / end) for end in ("one", "two"))
    factors_of = {name: (delta.tensors[0], delta.tensors[1]) for name, delta in one.update.items()}
    G = torch.eye(4, dtype=torch.float64) + 0.3 * torch.randn(4, 4, generator=torch.Generator().manual_seed(0)).double()
    B, A = factors_of[name]
    turned = End(Update.from_tensors({**factors_of, name: (B @ G, G.inverse() @ A)}))

    def moved_by(variant: Variant) -> float:
        same, other = (WeightPath(base, [start, two], variant).update(0.5)[name].dense() for start in (one, turned))
        return float((same - other).abs().max())

    assert moved_by("effective") < 1e-12
    assert moved_by("factors") > 1e-3


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"r": 3}, "equal rank: model.layers.0.self_attn.q_proj has 4 and 3"),
        ({"target_modules": ["q_proj"]}, "same modules: model.layers.0.self_attn.v_proj is in one of them only"),
        ({"use_dora": True}, "LoRA adapters only: the change of model.layers.0.self_attn.q_proj has none"),
    ],
)
def test_factors_that_cannot_be_mixed(second: dict[str, Any], message: str, tmp_path: Path) -> None:
    base = two_adapters(tmp_path, **second)
    with pytest.raises(InputError, match=message):
        path_to(base, tmp_path, "one", "two", variant="factors")


def test_an_update_of_another_model(tmp_path: Path) -> None:
    write_base(tmp_path)
    base = load_model(tmp_path / "base")
    with pytest.raises(InputError, match="no linear module elsewhere"):
        WeightPath(base, [End(Update.from_tensors({"elsewhere": torch.ones(2, 2)}))])


def test_averaged_weights_equal_transformers_own(tmp_path: Path) -> None:
    """The same, from files that transformers alone wrote and read."""
    write_base(tmp_path)
    folders = [write_checkpoint(tmp_path / name, seed=seed) for seed, name in enumerate(("one", "two"), 2)]
    make: Any = AutoModelForCausalLM
    one, two = (make.from_pretrained(folder, dtype=torch.float32) for folder in folders)
    with torch.no_grad():
        for a, b in zip(one.parameters(), two.parameters(), strict=True):
            a.copy_((a + b) / 2)
    one.save_pretrained(tmp_path / "average")
    expected = make.from_pretrained(tmp_path / "average", dtype=torch.float32).eval()(input_ids=IDS).logits
    base = load_model(tmp_path / "base")
    with path_to(base, tmp_path, "one", "two").at(0.5) as model:
        found = model.module(input_ids=IDS).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
