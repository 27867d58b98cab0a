"""An update saved as an adapter: PEFT's model equals the base plus dW, and it is read back as the same update."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftConfig, PeftModel
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

import saved
from tiltmeter.errors import InputError
from tiltmeter.updates.delta import LowRank
from tiltmeter.updates.update import Update
from truth import float64_throughout

QV = ["q_proj", "v_proj"]
GPT2 = {"family": "gpt2", "fan_in_fan_out": True, "target_modules": ["c_attn", "c_proj", "c_fc"]}
VARIANTS: dict[str, dict[str, Any]] = {
    "LoRA": {"target_modules": QV},
    "every linear layer": {"family": "qwen3", "target_modules": "all-linear"},
    "rsLoRA": {"target_modules": QV, "use_rslora": True},
    "ranks and alphas by pattern": {
        "target_modules": [*QV, "down_proj"],
        "rank_pattern": {r".*\.0\..*q_proj": 2, "v_proj": 6},
        "alpha_pattern": {"v_proj": 5},
    },
    "PiSSA": {"target_modules": QV, "init_lora_weights": "pissa", "changes_base": True},
    "Conv1D": GPT2,
}


def opened(folder: Path, dtype: torch.dtype = torch.float64) -> Any:
    make: Any = AutoModelForCausalLM
    return make.from_pretrained(folder / "base", dtype=dtype).eval()


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad(), float64_throughout():
        found: Tensor = model(input_ids=torch.arange(6, 18).reshape(2, 6)).logits
    return found


def moved(base: nn.Module, change: saved.Weights) -> nn.Module:
    """A copy of the base with the changes [o, i] added by hand."""
    tuned = copy.deepcopy(base)
    parameters, before = dict(tuned.named_parameters()), saved.weights(base)
    with torch.no_grad():
        for name, dW in change.items():
            parameter = parameters[name]
            # GPT-2's Conv1D stores [i, o], and `weights` turns it.
            turned = not torch.equal(before[name].reshape(-1), parameter.reshape(-1))
            parameter.add_((dW.T if turned else dW).to(parameter.dtype))
    return tuned


def assert_saved(update: Update, change: saved.Weights, folder: Path, with_base: bool = True) -> None:
    """Saved, loaded by PEFT and by ourselves: the same change, in float64 and in float32."""
    update.save_adapter(folder / "saved", folder / "base" if with_base else None)
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        base = opened(folder, dtype)
        found = logits(PeftModel.from_pretrained(copy.deepcopy(base), str(folder / "saved")).eval())
        truth = logits(moved(base, change))
        assert found.dtype == truth.dtype == dtype
        assert (found - truth).abs().max() < tolerance
        assert (truth - logits(base)).abs().max() > 1e-3
    again = Update.from_adapter(folder / "saved", folder / "base")
    assert (again - update).norm() <= 1e-12 * update.norm()
    assert again.not_covered == {}


@pytest.mark.parametrize("with_base", [True, False], ids=["base given", "base unknown"])
@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
def test_every_variant(config: dict[str, Any], with_base: bool, tmp_path: Path) -> None:
    truth = saved.adapter(tmp_path, **config)
    update = Update.from_adapter(
        tmp_path / "adapter", initial=tmp_path / "initial" if "changes_base" in config else None
    )
    assert_saved(update, truth, tmp_path, with_base)
    assert json.loads((tmp_path / "saved" / "adapter_config.json").read_text())["fan_in_fan_out"] == (
        with_base and "fan_in_fan_out" in config
    )


COMBINATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "mean of unequal ranks": lambda a, b: 0.5 * a + 0.5 * b,
    "negation": lambda a, b: -1.0 * a,
    "difference": lambda a, b: a - b,
    "half of one": lambda a, b: 0.5 * a,
    "one end of a path": lambda a, b: 0.0 * a + 1.0 * b,
}


@pytest.mark.parametrize("combine", COMBINATIONS.values(), ids=COMBINATIONS.keys())
def test_sums_and_scalings(combine: Callable[[Any, Any], Any], tmp_path: Path) -> None:
    one = saved.adapter(tmp_path, target_modules=QV)
    two = saved.adapter(tmp_path / "two", target_modules=["q_proj", "down_proj"], rank_pattern={"q_proj": 3})
    names = dict.fromkeys([*one, *two])
    change = {name: combine(one.get(name, torch.tensor(0.0)), two.get(name, torch.tensor(0.0))) for name in names}
    update = combine(Update.from_adapter(tmp_path / "adapter"), Update.from_adapter(tmp_path / "two" / "adapter"))
    assert_saved(update, {name: dW for name, dW in change.items() if dW.any()}, tmp_path)
    assert update.kind == "adapter"


def checkpoints(folder: Path) -> saved.Weights:
    """`base/` and `tuned/`, which differ in linear layers alone; the change by parameter."""
    base = saved.model("llama")
    tuned = saved.shaken(saved.model("llama"), lambda name: name in saved.linears(base))
    base.save_pretrained(folder / "base")
    tuned.save_pretrained(folder / "tuned")
    return saved.difference(saved.weights(tuned), saved.weights(base))


def test_truncated_difference_of_checkpoints(tmp_path: Path) -> None:
    whole = checkpoints(tmp_path)
    update = Update.between(tmp_path / "base", tmp_path / "tuned")
    lost = update.save_adapter(tmp_path / "saved", tmp_path / "base", rank=5)
    nearest, left_out = {}, {}
    for name, dW in whole.items():
        U, sigma, Vh = np.linalg.svd(dW.numpy(), full_matrices=False)
        nearest[name] = torch.from_numpy((U[:, :5] * sigma[:5]) @ Vh[:5])
        left_out[name] = 1 - (sigma[:5] ** 2).sum() / (sigma**2).sum()
    assert {f"{name}.weight": share for name, share in lost.modules.items()} == pytest.approx(left_out, rel=1e-10)
    energy = {name: float(dW.square().sum()) for name, dW in whole.items()}
    total = sum(left_out[name] * energy[name] for name in whole) / sum(energy.values())
    assert 0 < lost.total == pytest.approx(total, rel=1e-10)
    assert json.loads((tmp_path / "saved" / "truncation.json").read_text()) == {
        "rank": 5,
        "energy_lost": {"total": lost.total, "modules": lost.modules},
    }
    base = opened(tmp_path)
    found = logits(PeftModel.from_pretrained(copy.deepcopy(base), str(tmp_path / "saved")))
    assert (found - logits(moved(base, nearest))).abs().max() < 1e-10
    assert (found - logits(moved(base, whole))).abs().max() > 1e-3
    again = Update.from_adapter(tmp_path / "saved")
    assert all((again[name].dense() - nearest[f"{name}.weight"]).norm() < 1e-12 for name in update)
    assert again.keys() == update.keys()


def test_truncation_touches_only_what_exceeds_the_rank(tmp_path: Path) -> None:
    truth = saved.adapter(tmp_path, target_modules=QV, rank_pattern={"q_proj": 2})
    update = Update.from_adapter(tmp_path / "adapter")
    lost = update.save_adapter(tmp_path / "saved", rank=3)
    again = Update.from_adapter(tmp_path / "saved")
    for name, delta in update.items():
        sigma = torch.linalg.svdvals(truth[f"{name}.weight"])
        assert lost.modules[name] == pytest.approx(float(sigma[3:].square().sum() / sigma.square().sum()), rel=1e-10)
        assert (lost.modules[name] == 0.0) == ("q_proj" in name)
        if "q_proj" in name:
            assert torch.equal(again[name].dense(), delta.dense())


def test_an_exact_adapter_loses_nothing_and_says_nothing(tmp_path: Path) -> None:
    saved.adapter(tmp_path, target_modules=QV)
    lost = Update.from_adapter(tmp_path / "adapter").save_adapter(tmp_path / "saved")
    assert lost.total == 0.0
    assert set(lost.modules.values()) == {0.0}
    assert {file.name for file in (tmp_path / "saved").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }


class Nested(nn.Module):
    """Module names that end with other modules' names, or that match them as regular expressions."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.ModuleDict({"q": nn.Linear(6, 6, bias=False)})
        self.axq = nn.Linear(6, 6, bias=False)
        self.b = nn.ModuleDict({"a": nn.ModuleDict({"q": nn.Linear(6, 6, bias=False)})})
        self.config = {"model_type": "nested"}

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.b["a"]["q"](torch.tanh(self.axq(torch.tanh(self.a["q"](x)))))  # type: ignore[index]
        return found


@pytest.mark.parametrize("ranks", [(1, 2, 3), (2, 1, 1), (1, 1, 2), (3, 3, 3)], ids=str)
def test_names_that_end_with_other_names(ranks: tuple[int, int, int], tmp_path: Path) -> None:
    torch.manual_seed(0)
    factors = {
        name: (torch.randn(6, rank).double(), torch.randn(rank, 6).double())
        for name, rank in zip(("a.q", "axq", "b.a.q"), ranks, strict=True)
    }
    module, x = Nested().double(), torch.randn(3, 6).double()
    Update.from_tensors(factors).save_adapter(tmp_path / "saved")
    by_hand = copy.deepcopy(module)
    with torch.no_grad():
        for name, (left, right) in factors.items():
            by_hand.get_submodule(name).weight.add_(left @ right)  # type: ignore[operator]
    config = PeftConfig.from_pretrained(str(tmp_path / "saved"))
    config.task_type = None  # PEFT would ask a language model for its generation
    loaded = PeftModel.from_pretrained(module, str(tmp_path / "saved"), config=config)
    assert (loaded(x) - by_hand(x)).abs().max() < 1e-12
    again = Update.from_adapter(tmp_path / "saved")
    assert again.keys() == factors.keys()
    for name, pair in factors.items():
        assert all(torch.equal(found, given) for found, given in zip(again[name].tensors, pair, strict=True))


def test_what_is_exactly_zero_is_left_out(tmp_path: Path) -> None:
    one, zero = torch.ones(4, 2), torch.zeros(4, 2)
    half = torch.cat([one, zero], dim=1)
    Update.from_tensors(
        {"kept": (one, one.T), "zero": (zero, one.T), "half": (half, half.T), "crossed": (half, half.flip(1).T)}
    ).save_adapter(tmp_path / "saved")
    again = Update.from_adapter(tmp_path / "saved")
    assert again.keys() == {"kept", "half"}
    assert all(isinstance(delta, LowRank) and delta.rank == 2 for delta in again.values())


def test_dtypes_are_kept(tmp_path: Path) -> None:
    left, right = torch.randn(4, 2).bfloat16(), torch.randn(2, 4).bfloat16()
    Update.from_tensors({"a": (left, right)}).save_adapter(tmp_path / "saved")
    found = Update.from_adapter(tmp_path / "saved")["a"]
    assert torch.equal(found.dense(), left.float() @ right.float())
    assert (tmp_path / "saved" / "adapter_model.safetensors").stat().st_size < 400


def test_the_same_files_each_time(tmp_path: Path) -> None:
    saved.adapter(tmp_path, target_modules=QV, rank_pattern={"q_proj": 2})
    update = Update.from_adapter(tmp_path / "adapter")
    for name in ("one", "two"):
        update.save_adapter(tmp_path / name, rank=3)
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()
    config = json.loads((tmp_path / "one" / "adapter_config.json").read_text())
    assert config["target_modules"] == [*update]


FACTORS = (torch.ones(16, 2), torch.ones(2, 16))
Q = "model.layers.0.self_attn.q_proj"
BAD: dict[str, tuple[Update, dict[str, Any], str]] = {
    "norm": (
        Update({Q: LowRank(*FACTORS)}, not_covered={"model.norm.weight": 1.0, "other": 0.0}),
        {},
        "linear modules only, but model.norm.weight changed too: save the whole model as a checkpoint",
    ),
    "many others": (Update({}, not_covered=dict.fromkeys("abcde", 1.0)), {}, "but a, b, c and 2 more changed too"),
    "dense": (Update.from_tensors({Q: torch.ones(16, 16)}), {}, f"module {Q}: its change is a dense matrix.* rank"),
    "unknown module": (Update.from_tensors({"odd": FACTORS}), {"base": True}, "base: has no linear module odd"),
    "embedding": (
        Update.from_tensors({"model.embed_tokens": FACTORS}),
        {"base": True},
        "base: has no linear module model.embed_tokens",
    ),
    "another shape": (
        Update.from_tensors({Q: (torch.ones(8, 2), torch.ones(2, 16))}),
        {"base": True},
        rf"module {Q}: changes \(8, 16\), expected \(16, 16\) as in the base",
    ),
    "zero": (0.0 * Update.from_tensors({Q: FACTORS}), {}, "saved: nothing to save: the update changes no module"),
    "zero, truncated": (
        Update.from_tensors({Q: torch.zeros(16, 16)}),
        {"rank": 2},
        "saved: nothing to save: the update changes no module",
    ),
    "rank 0": (Update.from_tensors({Q: FACTORS}), {"rank": 0}, "rank: expected 1 or more, got 0"),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("models") / "base"
    saved.model("llama").save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("update", "options", "message"), BAD.values(), ids=BAD.keys())
def test_refused_in_one_line_and_nothing_is_left(
    base: Path, tmp_path: Path, update: Update, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        update.save_adapter(tmp_path / "saved", **{**options, **({"base": base} if "base" in options else {})})
    assert "\n" not in str(error.value)
    assert not any(tmp_path.iterdir())


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    update = Update.from_tensors({"a": FACTORS})
    (tmp_path / "empty").mkdir()
    update.save_adapter(tmp_path / "empty")
    for used in ("empty", "file"):
        (tmp_path / "file").write_text("mine")
        with pytest.raises(InputError, match=f"{used}: exists already; expected a new or empty folder"):
            update.save_adapter(tmp_path / used)
    assert (tmp_path / "file").read_text() == "mine"
    assert Update.from_adapter(tmp_path / "empty").norm() == update.norm()


def test_a_failure_in_the_middle_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("peft.LoraConfig.save_pretrained", fail)
    with pytest.raises(OSError, match="disk full"):
        Update.from_tensors({"a": FACTORS}).save_adapter(tmp_path / "deep" / "saved")
    assert not any((tmp_path / "deep").iterdir())
