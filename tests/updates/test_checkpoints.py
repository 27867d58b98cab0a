"""The streamed difference of two checkpoints equals the difference of their models."""

import json
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import saved
from tiltmeter.errors import InputError
from tiltmeter.updates.files import Tensors, check_folder
from tiltmeter.updates.update import Update

INDEX = "model.safetensors.index.json"
Q = "model.layers.0.self_attn.q_proj.weight"


def pair(folder: Path, family: str, tied: bool, base_shard: str = "5GB", tuned_shard: str = "5GB") -> saved.Weights:
    """Save `base/` and `tuned/`; what changed, by parameter."""
    base, tuned = (
        saved.model(family, tied),
        saved.shaken(saved.model(family, tied), lambda name: "0" in name or "e" in name),
    )
    base.save_pretrained(folder / "base", max_shard_size=base_shard)
    tuned.save_pretrained(folder / "tuned", max_shard_size=tuned_shard)
    return saved.difference(saved.weights(tuned), saved.weights(base))


CASES = {
    "one file": ("llama", False, "5GB", "5GB"),
    "shards": ("llama", False, "10KB", "10KB"),
    "other shards": ("llama", False, "20KB", "7KB"),
    "tied": ("qwen3", True, "5GB", "5GB"),
    "Conv1D": ("gpt2", True, "5GB", "10KB"),
    "another name in the files": ("gpt_neox", False, "5GB", "10KB"),
    "fused experts": ("qwen3_moe", False, "5GB", "20KB"),
}


@pytest.mark.parametrize(("family", "tied", "base_shard", "tuned_shard"), CASES.values(), ids=CASES.keys())
def test_difference_equals_the_models(
    family: str, tied: bool, base_shard: str, tuned_shard: str, tmp_path: Path
) -> None:
    truth = pair(tmp_path, family, tied, base_shard, tuned_shard)
    update = Update.between(tmp_path / "base", tmp_path / "tuned")
    linears = saved.linears(saved.model(family, tied))
    assert {f"{name}.weight" for name in update} == linears
    for name in linears:
        found = update[name.removesuffix(".weight")].dense()
        assert torch.equal(found, truth[name] if name in truth else torch.zeros_like(found))
    others = [float(torch.linalg.norm(change)) for name, change in truth.items() if name not in linears]
    assert sum(n**2 for n in update.not_covered.values()) == pytest.approx(sum(n**2 for n in others), rel=1e-12)
    if "moe" not in family:  # experts are fused in memory, but stored one by one
        assert update.not_covered.keys() == truth.keys() - linears


def test_half_precision_is_subtracted_in_float32(tmp_path: Path) -> None:
    base, tuned = saved.model("llama"), saved.model("llama", seed=2)
    base.bfloat16().save_pretrained(tmp_path / "base")
    tuned.half().save_pretrained(tmp_path / "tuned")
    update = Update.between(tmp_path / "base", tmp_path / "tuned")
    layer = Q.removesuffix(".weight")
    old, new = base.get_parameter(Q).float(), tuned.get_parameter(Q).float()
    assert torch.equal(update[layer].dense(), (new - old).detach())


def test_untied_output_layer_of_a_tied_base_is_covered(tmp_path: Path) -> None:
    base, tuned = saved.model("llama", tied=True), saved.model("llama", tied=False, seed=3)
    base.save_pretrained(tmp_path / "base")
    tuned.save_pretrained(tmp_path / "tuned")
    expected = tuned.get_parameter("lm_head.weight") - base.get_parameter("model.embed_tokens.weight")
    for update in (
        Update.between(tmp_path / "base", tmp_path / "tuned"),
        -1.0 * Update.between(tmp_path / "tuned", tmp_path / "base"),
    ):
        assert torch.equal(update["lm_head"].dense(), expected.detach())
        assert "model.embed_tokens.weight" in update.not_covered


def test_one_side_may_lack_the_prefix_and_carry_old_buffers(tmp_path: Path) -> None:
    pair(tmp_path, "gpt2", tied=True)
    before = Update.between(tmp_path / "base", tmp_path / "tuned")
    bare = Path(shutil.copytree(tmp_path / "tuned", tmp_path / "bare"))
    file = bare / "model.safetensors"
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in load_file(file).items()}
    save_file({**tensors, "h.0.attn.bias": torch.ones(1, 1, 8, 8)}, file)
    after = Update.between(tmp_path / "base", bare)
    assert (after - before).norm() == 0.0
    assert after.not_covered == before.not_covered


def test_a_missing_bias_is_no_old_buffer(tmp_path: Path) -> None:
    pair(tmp_path, "gpt2", tied=True)
    file = tmp_path / "tuned" / "model.safetensors"
    tensors = load_file(file)
    del tensors["transformer.h.0.attn.c_attn.bias"]
    save_file(tensors, file)
    with pytest.raises(InputError, match=r"tuned: no tensor transformer\.h\.0\.attn\.c_attn\.bias in its files"):
        Update.between(tmp_path / "base", tmp_path / "tuned")


def test_only_one_pair_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair(tmp_path, "llama", tied=False, base_shard="20KB")
    alive: weakref.WeakSet[Tensor] = weakref.WeakSet()
    most = 0
    raw = Tensors.raw

    def counted(self: Tensors, name: str) -> Tensor:
        nonlocal most
        tensor = raw(self, name)
        alive.add(tensor)
        most = max(most, len(alive))
        return tensor

    monkeypatch.setattr(Tensors, "raw", counted)
    for delta in Update.between(tmp_path / "base", tmp_path / "tuned").values():
        del delta
    assert most == 2


def test_a_zero_difference_is_an_error(tmp_path: Path) -> None:
    model = saved.model("llama")
    model.save_pretrained(tmp_path / "base")
    model.save_pretrained(tmp_path / "tuned", max_shard_size="20KB")
    with pytest.raises(InputError, match=r"tuned: no linear layer's weight differs from .*base$"):
        Update.between(tmp_path / "base", tmp_path / "tuned")


def test_a_change_outside_the_linear_layers_alone_is_said(tmp_path: Path) -> None:
    saved.model("llama").save_pretrained(tmp_path / "base")
    saved.shaken(saved.model("llama"), lambda name: "norm" in name).save_pretrained(tmp_path / "tuned")
    with pytest.raises(InputError, match=r"no linear layer's .*5 other parameters differ, such as model\."):
        Update.between(tmp_path / "base", tmp_path / "tuned")


def indexed(change: Callable[[dict[str, str]], object]) -> Callable[[Path], None]:
    def damage(tuned: Path) -> None:
        index = json.loads((tuned / INDEX).read_text())
        change(index["weight_map"])
        (tuned / INDEX).write_text(json.dumps(index))

    return damage


def first(change: Callable[[dict[str, Tensor], str], object]) -> Callable[[Path], None]:
    """Change the shard that holds one query projection."""

    def damage(tuned: Path) -> None:
        shard = tuned / json.loads((tuned / INDEX).read_text())["weight_map"][Q]
        tensors = load_file(shard)
        change(tensors, Q)
        save_file(tensors, shard)

    return damage


def truncated(tuned: Path) -> None:
    shard = sorted(tuned.glob("*.safetensors"))[0]
    shard.write_bytes(shard.read_bytes()[:-8])


def linked(tuned: Path) -> None:
    shard = sorted(tuned.glob("*.safetensors"))[0]
    shard.rename(tuned.parent / "elsewhere")
    shard.symlink_to("../elsewhere")


def pickled(tuned: Path) -> None:
    for file in [*tuned.glob("*.safetensors"), tuned / INDEX]:
        file.unlink()
    (tuned / "pytorch_model.bin").write_bytes(b"\x80\x02.")


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "index climbs out": (
        indexed(lambda m: m.update({Q: "../base/model.safetensors"})),
        r"index\.json: weight_map leads",
    ),
    "absolute index": (
        indexed(lambda m: m.update({Q: "/etc/passwd"})),
        r"index\.json: weight_map leads to '/etc/passwd'",
    ),
    "index into a sub-folder": (indexed(lambda m: m.update({Q: "sub/model.safetensors"})), "weight_map leads to 'sub/"),
    "parent as a file": (indexed(lambda m: m.update({Q: ".."})), r"weight_map leads to '\.\.'"),
    "number in the index": (indexed(lambda m: m.update({Q: 3})), r"index\.json: expected a weight_map"),  # type: ignore[dict-item]
    "link out of the folder": (linked, r"model-00001.*safetensors: a link out of its folder, to .*elsewhere"),
    "missing shard": (lambda tuned: sorted(tuned.glob("*.safetensors"))[0].unlink(), r"model-00001.*: missing, though"),
    "index promises too much": (indexed(lambda m: m.update({"new": m[Q]})), "has no tensor new, though"),
    "invalid index": (lambda tuned: (tuned / INDEX).write_text("{"), r"index\.json: expected JSON"),
    "empty index": (lambda tuned: (tuned / INDEX).write_text("{}"), r"index\.json: expected a weight_map"),
    "truncated shard": (truncated, r"model-00001.*safetensors: truncated or corrupt"),
    "pickle": (pickled, r"pytorch_model\.bin: pickle .* refused"),
    "no config": (lambda tuned: (tuned / "config.json").unlink(), r"config\.json: no such file"),
    "unknown architecture": (
        lambda tuned: (tuned / "config.json").write_text('{"model_type": "nonsense"}'),
        r"config\.json: cannot build a causal language model",
    ),
    "code from elsewhere": (
        lambda tuned: (tuned / "config.json").write_text(
            '{"model_type": "nonsense", "auto_map": {"AutoConfig": "evil.Config"}}'
        ),
        r"config\.json: cannot build a causal language model",
    ),
    "missing tensor": (
        lambda tuned: (first(lambda t, q: t.pop(q))(tuned), indexed(lambda m: m.pop(Q))(tuned)),
        r"tuned: no tensor model\.layers\.0\.self_attn\.q_proj\.weight",
    ),
    "another shape": (first(lambda t, q: t.update({q: torch.ones(8, 16)})), r"q_proj.*\[8, 16\].*expected \[16, 16\]"),
    "NaN": (first(lambda t, q: t[q].fill_(torch.nan)), r"model-.*safetensors: tensor .*q_proj.* NaN or Inf"),
    "quantised": (
        first(lambda t, q: t.update({q: t[q].to(torch.float8_e4m3fn)})),
        "q_proj.* stored as F8_E4M3.*dequant",
    ),
    "tensor too many": (
        lambda tuned: (
            first(lambda t, q: t.update({"score.weight": torch.ones(2)}))(tuned),
            indexed(lambda m: m.update({"score.weight": m[Q]}))(tuned),
        ),
        "base: no tensor score.weight in its files",
    ),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    pair(folder, "llama", tied=False, tuned_shard="20KB")
    return folder


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE.keys())
def test_refused_in_one_line(good: Path, tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    folder = Path(shutil.copytree(good, tmp_path / "copy"))
    damage(folder / "tuned")
    with pytest.raises(InputError, match=message) as error:
        Update.between(folder / "base", folder / "tuned").norm()
    assert "\n" not in str(error.value)


def test_links_that_lead_nowhere_and_loops(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").symlink_to("tokenizer.json")
    with pytest.raises(InputError, match=r"tokenizer\.json: a link that leads nowhere"):
        check_folder(tmp_path)
