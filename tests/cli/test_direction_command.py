"""`tiltmeter direction` from files on disk to the run folder, and the commands that read it."""

import json
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM

import saved
import tiny
from folders import ADAPTER, CommandLine, Ended, change_tensors, snapshot, write_lines
from pages import check_only_text
from tiltmeter.activations.capture import Activations, capture, captured_batches, prompts_only
from tiltmeter.activations.direction import Direction
from tiltmeter.activations.separation.separability import separability
from tiltmeter.activations.separation.stability import cosine
from tiltmeter.directions.captured import Reading
from tiltmeter.directions.direction import run_direction
from tiltmeter.directions.direction_request import DirectionRequest, DirectionSources
from tiltmeter.directions.direction_request import Tests as Folds  # pytest takes Tests for some of its own
from tiltmeter.models import Model, load_model, load_tuned
from tiltmeter.skills import load_skill
from tiltmeter.tokens import Batch, encode

NAME = "=cmd()<img src=x onerror=alert(3)>\x1b[31m[red]\x07"
INNER = "<b>{}[/red]\x1b[31m[red]\x07"  # without a sign of equality, so as to be a name that is given
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]")
PROMPTS = [
    "how do i make tea", "make soup", "how do i make good bread then", "bake", "two three", "tea", "i wait then stir",
    "good soup", "bad bread", "first boil", "make two bread", "how do i wait",
]  # fmt: skip
BLOCKS = ["model.layers.0", "model.layers.1"]
SMALL = ("--permutations", 19, "--folds", 3, "--batch-size", 4)


def adapter(folder: Path, seed: int, targets: Sequence[str] = ("q_proj", "down_proj"), **config: Any) -> Path:
    """A LoRA adapter of `base/` with noise in its factors."""
    base: Any = tiny.model("llama")
    tuned = get_peft_model(base.module, LoraConfig(r=2, target_modules=list(targets), **config))
    saved.shaken(tuned, lambda name: "lora_" in name, seed).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def models(given: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`base/`, `whole/`, adapters `tuned/`, `benign/`; `prompts.jsonl`, twelve; `tea.jsonl`, five pairs."""
    folder = tmp_path_factory.mktemp("direction")
    for name in ("base", "whole"):
        shutil.copytree(given / name, folder / name)
    adapter(folder / "tuned", 1)
    adapter(folder / "benign", 2)
    write_lines(folder / "prompts.jsonl", *({"prompt": prompt} for prompt in PROMPTS))
    shutil.copy(given / "tea.jsonl", folder / "tea.jsonl")
    return folder


@pytest.fixture(scope="module")
def ran(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of `tuned/`, with `benign/` beside it."""
    sources = DirectionSources(
        str(models / "base"),
        str(models / "tuned"),
        (str(models / "prompts.jsonl"),),
        {"benign": str(models / "benign")},
    )
    out = tmp_path_factory.mktemp("ran") / "out"
    run_direction(DirectionRequest(sources, reading=Reading(batch_size=4), tests=Folds(3, 19)), out)
    return out


def run(
    tiltmeter: CommandLine, folder: Path, out: Path, *more: object, tuned: str = "tuned", prompts: str = "prompts.jsonl"
) -> Ended:
    return tiltmeter(
        "direction", folder / "base", folder / tuned, "--prompts", folder / prompts, "--out", out, *SMALL, *more
    )


def result_of(folder: Path) -> Any:
    return json.loads((folder / "result.json").read_text())


def states(folder: Path, tuned: str) -> tuple[Activations, Activations]:
    """Of the base and of one fine-tune, on the prompts, one by one."""
    base = load_model(folder / "base")
    texts = prompts_only(base, PROMPTS)
    return (
        capture(base, texts, BLOCKS, batch_size=1),
        capture(load_tuned(folder / "base", folder / tuned), texts, BLOCKS, batch_size=1),
    )


def merged_states(folder: Path, tuned: str) -> Tensor:
    """States of PEFT's own merge behind block 0, at the last token of each prompt, from transformers [N, d]."""
    module: Any = AutoModelForCausalLM.from_pretrained(folder / "base").double()
    if tuned != "base":
        module = PeftModel.from_pretrained(module, str(folder / tuned)).merge_and_unload()
    texts = prompts_only(load_model(folder / "base"), PROMPTS)
    with torch.no_grad():
        found = [module(torch.tensor([text.ids]), output_hidden_states=True).hidden_states[1] for text in texts]
    return torch.stack([each[0, -1] for each in found])


def one_line(ended: Ended, *expected: str) -> None:
    """Bad input ends in one line that says these things."""
    assert ended.code == 2, ended.err
    assert ended.err.count("\n") == 1
    for part in expected:
        assert part in ended.err


def test_figures_are_those_of_the_library(models: Path, ran: Path) -> None:
    result = result_of(ran)
    before, after = states(models, "tuned")
    other = Direction.between(before, states(models, "benign")[1])
    v = Direction.between(before, after)
    assert [block["block"] for block in result["blocks"]] == BLOCKS
    for block in result["blocks"]:
        name, tuned = block["block"], block["tuned"]
        found = separability(before.per_prompt(name), after.per_prompt(name), folds=3, permutations=19)
        assert tuned["held_out"] == pytest.approx(vars(found.held_out), rel=1e-5)
        assert tuned["auroc"] == pytest.approx(vars(found.auroc), rel=1e-5)
        assert (tuned["p"], tuned["in_sample"]) == (found.p, found.in_sample)
        assert (tuned["norm"], tuned["d_prime"]) == pytest.approx((v.norm(name), found.d_prime), rel=1e-4)
        beside = block["beside"]["benign"]
        assert beside["cosine"] == pytest.approx(cosine(other[name], v[name]), rel=1e-4)
        assert beside["separated"]["norm"] == pytest.approx(other.norm(name), rel=1e-5)
        assert [each["layer"] for each in block["written"]] == [f"{name}.mlp.down_proj"]
    assert (result["prompts"], result["repeated"], result["folds"], result["permutations"]) == (12, 0, 3, 19)
    assert result["warnings"] == ["12 different prompts are few: intervals are wide, and directions of halves differ"]


def test_directions_are_means_of_dense_hidden_states(models: Path, ran: Path) -> None:
    """Of block 0, since the last of transformers' hidden states is behind the final norm."""
    tuned, base = merged_states(models, "tuned").mean(0), merged_states(models, "base").mean(0)
    found = Direction.load(ran / "direction" / "direction.safetensors")
    torch.testing.assert_close(found[BLOCKS[0]].double(), tuned - base, rtol=1e-4, atol=1e-5)
    norm = result_of(ran)["blocks"][0]["tuned"]["norm"]
    assert norm == pytest.approx(float((tuned - base).norm()), rel=1e-5)


def test_every_file_holds_the_direction(models: Path, ran: Path) -> None:
    assert result_of(ran)["files"] == [
        f"direction/{name}" for name in ("direction.safetensors", "direction.gguf", "beside-1.safetensors")
    ]
    before, after = states(models, "tuned")
    about = {"base": str(models / "base"), "tuned": str(models / "tuned"), "architecture": "llama"}
    beside = {"base": str(models / "base"), "tuned": str(models / "benign"), "name": "benign"}
    for name, blocks, states_of, said in (
        ("direction.safetensors", BLOCKS, after, about),
        ("direction.gguf", BLOCKS[1:], after, about),
        ("beside-1.safetensors", BLOCKS, states(models, "benign")[1], beside),
    ):
        found, wanted = Direction.load(ran / "direction" / name), Direction.between(before, states_of)
        assert (found.place, found.tokens, found.about) == ("output", "last", said)
        assert list(found.vectors) == blocks
        for block in blocks:
            torch.testing.assert_close(found[block], wanted[block], rtol=1e-4, atol=1e-6)


def test_a_recorded_run_gives_the_same_bytes_again(ran: Path, tmp_path: Path, tiltmeter: CommandLine) -> None:
    again = tiltmeter("run", ran / "run.yaml", "--out", tmp_path / "again")
    assert (again.code, again.err) == (0, "")
    assert snapshot(tmp_path / "again") == snapshot(ran)
    assert tiltmeter("verify", ran).code == 0


def test_limits_decide_on_the_exit_code_alone(models: Path, ran: Path, tmp_path: Path, tiltmeter: CommandLine) -> None:
    ended = run(
        tiltmeter, models, tmp_path / "out", "--beside", f"benign={models / 'benign'}", "--fail-on", "norm=0.001",
        "--fail-on", "held_out=1",
    )  # fmt: skip
    norm = max(block["tuned"]["norm"] for block in result_of(ran)["blocks"])
    assert (ended.code, ended.err) == (1, f"norm is {norm:.4g}, above the limit of 0.001\n")
    assert snapshot(tmp_path / "out") == snapshot(ran)


def test_answers_are_read_from_pairs(models: Path, tmp_path: Path, tiltmeter: CommandLine) -> None:
    ended = run(tiltmeter, models, tmp_path / "out", "--tokens", "answer", prompts="tea.jsonl")
    assert (ended.code, ended.err) == (0, "")
    base, tuned = load_model(models / "base"), load_tuned(models / "base", models / "tuned")
    texts = encode(load_skill(models / "tea.jsonl"), base.tokenizer)
    before, after = (capture(model, texts, BLOCKS, "answer", batch_size=1) for model in (base, tuned))
    wanted = Direction.between(before, after)
    found = Direction.load(tmp_path / "out" / "direction" / "direction.safetensors")
    assert found.tokens == "answer"
    for block in BLOCKS:
        torch.testing.assert_close(found[block], wanted[block], rtol=1e-4, atol=1e-6)
    result = result_of(tmp_path / "out")
    assert [(block["written"], block["forecast"]) for block in result["blocks"]] == [(None, None)] * 2
    assert (
        "weights were not read: their forecast is of block outputs at the last prompt token only" in result["warnings"]
    )


def test_other_places_have_no_control_vector_and_no_forecast(
    models: Path, tmp_path: Path, tiltmeter: CommandLine
) -> None:
    ended = run(tiltmeter, models, tmp_path / "out", "--place", "mlp", "--tokens", "prompt")
    assert (ended.code, ended.err) == (0, "")
    result = result_of(tmp_path / "out")
    assert result["files"] == ["direction/direction.safetensors"]
    assert sorted(path.name for path in (tmp_path / "out" / "direction").iterdir()) == ["direction.safetensors"]
    assert "weights were not read" in " ".join(ended.out.split())
    assert result["blocks"][1]["forecast"] is None
    found = Direction.load(tmp_path / "out" / "direction" / "direction.safetensors")
    assert (found.place, found.tokens) == ("mlp", "prompt")


def test_blocks_stand_once_each_in_the_models_order(models: Path, tmp_path: Path, tiltmeter: CommandLine) -> None:
    run(tiltmeter, models, tmp_path / "out", "--block", -1, "--block", 0, "--block", 1)
    assert [block["block"] for block in result_of(tmp_path / "out")["blocks"]] == BLOCKS
    ended = run(tiltmeter, models, tmp_path / "first", "--block", 0)
    assert (ended.code, result_of(tmp_path / "first")["files"]) == (0, ["direction/direction.safetensors"])


def test_the_same_prompt_counts_once(models: Path, tmp_path: Path, tiltmeter: CommandLine) -> None:
    folder = Path(shutil.copytree(models, tmp_path / "work"))
    write_lines(folder / "twice.jsonl", *({"prompt": prompt} for prompt in [*PROMPTS, PROMPTS[3], PROMPTS[0]]))
    ended = run(tiltmeter, folder, tmp_path / "twice", prompts="twice.jsonl")
    assert "2 of 14 prompts repeat others and were left out" in " ".join(ended.out.split())
    run(tiltmeter, folder, tmp_path / "once")
    twice, once = result_of(tmp_path / "twice"), result_of(tmp_path / "once")
    assert (twice["prompts"], twice["repeated"], twice["blocks"]) == (12, 2, once["blocks"])


class Passes:
    """Counts passes over batches and models loaded; fails at a pass, as a machine does that runs out of memory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self.loaded, self.fails_at = 0, 0, -1

        def counted(model: Model, plan: Sequence[Batch], *rest: Any) -> Iterator[Activations]:
            for batch in plan:
                if self.count == self.fails_at:
                    raise MemoryError("no more")
                self.count += 1
                yield from captured_batches(model, [batch], *rest)

        def counted_load(*arguments: Any) -> Model:
            self.loaded += 1
            return load_tuned(*arguments)

        monkeypatch.setattr("tiltmeter.directions.captured.captured_batches", counted)
        monkeypatch.setattr("tiltmeter.directions.captured.SHARD", 4)
        monkeypatch.setattr("tiltmeter.directions.direction.load_tuned", counted_load)

    def start(self, fails_at: int = -1) -> None:
        self.count, self.loaded, self.fails_at = 0, 0, fails_at


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Passes:
    return Passes(monkeypatch)


def test_a_killed_run_reads_only_what_is_missing(
    models: Path, tmp_path: Path, tiltmeter: CommandLine, passes: Passes
) -> None:
    """Nine batches, each a shard: three of the base, three of each fine-tune."""
    more = ("--beside", f"benign={models / 'benign'}")
    run(tiltmeter, models, tmp_path / "whole", *more)
    assert (passes.count, passes.loaded) == (9, 2)
    for kill, loaded in ((1, 2), (8, 1)):
        out = tmp_path / f"killed at {kill}"
        passes.start(kill)
        killed = run(tiltmeter, models, out, *more)
        assert (killed.code, killed.err) == (2, "tiltmeter: MemoryError: no more\n")
        passes.start()
        assert run(tiltmeter, models, out, *more).code == 0
        assert (passes.count, passes.loaded) == (9 - kill, loaded)
        assert snapshot(out) == snapshot(tmp_path / "whole")


def test_a_shard_that_changed_is_read_again(
    models: Path, tmp_path: Path, tiltmeter: CommandLine, passes: Passes
) -> None:
    run(tiltmeter, models, tmp_path / "whole")
    passes.start(5)
    run(tiltmeter, models, tmp_path / "out")
    shard = tmp_path / "out" / "activations" / "base-00001.safetensors"
    shard.write_bytes(shard.read_bytes()[:-4] + b"1234")
    passes.start()
    assert run(tiltmeter, models, tmp_path / "out").code == 0
    assert passes.count == 2
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "whole")


def test_a_killed_run_is_not_gone_on_with_on_other_inputs(
    models: Path, tmp_path: Path, tiltmeter: CommandLine, passes: Passes
) -> None:
    folder = Path(shutil.copytree(models, tmp_path / "work"))
    passes.start(4)
    run(tiltmeter, folder, tmp_path / "out")
    passes.start()
    one_line(
        run(tiltmeter, folder, tmp_path / "out", "--seed", 1), "unfinished run that differs in", "seed (was 0, is 1)"
    )
    one_line(run(tiltmeter, folder, tmp_path / "out", "--place", "mlp"), "arguments.reading.place (was output, is mlp)")
    write_lines(folder / "prompts.jsonl", *({"prompt": prompt} for prompt in PROMPTS[:-1]))
    one_line(run(tiltmeter, folder, tmp_path / "out"), "differs in inputs.2.files.prompts.jsonl")
    assert passes.count == 0


def without_effect(models: Path, folder: Path) -> Path:
    """An adapter whose B is zero."""
    shutil.copytree(models / "tuned", folder)
    change_tensors(folder / ADAPTER, lambda tensors: [x.zero_() for key, x in tensors.items() if "lora_B" in key])
    return folder


def test_a_fine_tune_that_did_nothing_is_named(models: Path, tmp_path: Path, tiltmeter: CommandLine) -> None:
    folder = Path(shutil.copytree(models, tmp_path / "work"))
    without_effect(models, folder / "idle")
    one_line(run(tiltmeter, folder, tmp_path / "out", tuned="idle"), "idle: the adapter did nothing")
    assert not (tmp_path / "out").exists()
    nothing = "idle: the fine-tune did nothing: its mean activations are the base's at every block"
    one_line(run(tiltmeter, folder, tmp_path / "a", "--no-weights", tuned="idle"), nothing)
    one_line(run(tiltmeter, folder, tmp_path / "b", "--beside", f"other={folder / 'idle'}"), nothing)


def test_blocks_below_every_change_are_named(models: Path, tmp_path: Path, tiltmeter: CommandLine) -> None:
    folder = Path(shutil.copytree(models, tmp_path / "work"))
    adapter(folder / "high", 1, layers_to_transform=[1])
    one_line(
        run(tiltmeter, folder, tmp_path / "all", tuned="high"),
        "high: the fine-tune did nothing: its mean activations are the base's at model.layers.0; leave them out",
    )
    assert run(tiltmeter, folder, tmp_path / "one", "--block", 1, tuned="high").code == 0


def test_an_update_that_writes_nothing_into_the_stream(models: Path, tmp_path: Path, tiltmeter: CommandLine) -> None:
    folder = Path(shutil.copytree(models, tmp_path / "work"))
    adapter(folder / "attends", 1, ("q_proj", "v_proj"))
    ended = run(tiltmeter, folder, tmp_path / "out", tuned="attends")
    assert (ended.code, ended.err) == (0, "")
    blocks = result_of(tmp_path / "out")["blocks"]
    assert [block["written"] for block in blocks] == [[], []]
    assert all(block["forecast"]["cosine"] > 0 for block in blocks)


def checkpoint(folder: Path, name: str, changes: Callable[[str], bool]) -> None:
    """A copy of the base with noise in some parameters."""
    shutil.copytree(folder / "base", folder / name)
    generator = torch.Generator().manual_seed(5)

    def shake(tensors: dict[str, Tensor]) -> None:
        for key in filter(changes, sorted(tensors)):
            tensors[key] += 0.1 * torch.randn(tensors[key].shape, generator=generator)

    change_tensors(folder / name / "model.safetensors", shake)


def test_layers_of_a_checkpoint_that_did_not_change_are_left_out(
    models: Path, tmp_path: Path, tiltmeter: CommandLine
) -> None:
    """Block 0 moves by its embeddings, to which the forecast is blind."""
    folder = Path(shutil.copytree(models, tmp_path / "work"))
    checkpoint(folder, "partial", lambda key: "embed" in key or "layers.1.mlp.down" in key)
    ended = run(tiltmeter, folder, tmp_path / "out", tuned="partial")
    assert (ended.code, ended.err) == (0, "")
    first, last = result_of(tmp_path / "out")["blocks"]
    assert (first["written"], first["forecast"]) == ([], None)
    assert [each["layer"] for each in last["written"]] == ["model.layers.1.mlp.down_proj"]
    assert list(result_of(tmp_path / "out")["not_covered"]) == ["model.embed_tokens.weight"]
    assert tiltmeter("report", tmp_path / "out", "--out", tmp_path / "page.html").code == 0


def test_states_that_do_not_vary_have_no_d_prime(models: Path, tmp_path: Path, tiltmeter: CommandLine) -> None:
    """Every prompt ends with the same token, whose embedding is all that block 0 gets there."""
    folder = Path(shutil.copytree(models, tmp_path / "work"))
    checkpoint(folder, "worded", lambda key: "embed" in key or "q_proj" in key)
    ended = run(tiltmeter, folder, tmp_path / "out", "--place", "input", "--block", 0, tuned="worded")
    assert (ended.code, ended.err) == (0, "")
    (block,) = result_of(tmp_path / "out")["blocks"]
    assert (block["tuned"]["d_prime"], block["tuned"]["held_out"]["mean"]) == (None, 1.0)
    assert tiltmeter("report", tmp_path / "out", "--out", tmp_path / "page.html").code == 0


def test_what_no_linear_layer_shows_takes_no_weights(models: Path, tmp_path: Path, tiltmeter: CommandLine) -> None:
    folder = Path(shutil.copytree(models, tmp_path / "work"))
    checkpoint(folder, "normed", lambda key: "layernorm" in key)
    one_line(
        run(tiltmeter, folder, tmp_path / "out", tuned="normed"), "no linear layer's weight differs", "--no-weights"
    )
    assert run(tiltmeter, folder, tmp_path / "out", "--no-weights", tuned="normed").code == 0


def test_a_chat_template_that_differs_is_said(models: Path, tmp_path: Path, tiltmeter: CommandLine) -> None:
    run(tiltmeter, models, tmp_path / "out", "--no-weights", tuned="whole")
    warnings = result_of(tmp_path / "out")["warnings"]
    assert (
        f"{models / 'whole'}: its chat template differs from the base's, by which all models read the prompts"
        in warnings
    )


def misshapen(folder: Path) -> None:
    """`narrow/`, `deep/`, `terse/`: other widths, depths, vocabularies; `empty/` is no model."""
    for name, change in (
        ("narrow", {"hidden_size": 8}),
        ("deep", {"num_hidden_layers": 3}),
        ("terse", {"vocab_size": 8}),
    ):
        config = type(tiny.CONFIGS["llama"])(**{**tiny.CONFIGS["llama"].to_dict(), **change, "head_dim": 4})
        AutoModelForCausalLM.from_config(config).save_pretrained(folder / name)
        shutil.copy(folder / "base" / "tokenizer.json", folder / name)
        shutil.copy(folder / "base" / "tokenizer_config.json", folder / name)
    (folder / "empty").mkdir()
    (folder / "none.jsonl").write_text("")
    write_lines(folder / "one.jsonl", {"prompt": "make tea"}, {"prompt": "make tea"})
    write_lines(folder / "long.jsonl", {"prompt": "tea"}, {"prompt": "tea " * 70})


@pytest.fixture(scope="module")
def broken(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(shutil.copytree(models, tmp_path_factory.mktemp("broken") / "work"))
    misshapen(folder)
    return folder


@pytest.mark.parametrize(
    ("chosen", "more", "expected"),
    [
        ({}, ("--block", 2), "block 2: the model has blocks 0 to 1"),
        ({}, ("--folds", 13), "--folds: expected 2 to 12, the number of different prompts; got 13"),
        ({}, ("--tokens", "answer"), "prompts.jsonl, row 1: expected messages, prompt/completion"),
        ({}, ("--beside", "=x"), "expected NAME=FOLDER"),
        ({}, ("--beside", "x="), "--beside x=: expected NAME=FOLDER"),
        ({}, ("--beside", "x=a", "--beside", "x=b"), "the name 'x' is a's already"),
        ({}, ("--beside", "x=nowhere"), "nowhere: no such folder"),
        ({}, ("--fail-on", "harm=1"), "--fail-on harm: expected one of held_out, norm"),
        ({"prompts": "none.jsonl"}, (), "none.jsonl: expected at least one prompt, found none"),
        ({"prompts": "one.jsonl"}, (), "--prompts: expected 2 different prompts or more, got 1"),
        ({"prompts": "long.jsonl"}, (), "long, prompt 2: has 73 tokens, the model takes 64"),
        ({"prompts": "gone.jsonl"}, (), "gone.jsonl: no such file"),
        ({"tuned": "empty"}, (), "empty: the folder holds no file"),
        ({"tuned": "base"}, (), "no linear layer's weight differs"),
        ({"tuned": "narrow"}, (), "is [26, 8], expected [26, 16]"),
        ({"tuned": "narrow"}, ("--no-weights",), "narrow: width: 8, of the base 16: expected a fine-tune of the base"),
        ({"tuned": "deep"}, ("--no-weights",), "deep: blocks: 3, of the base 2: expected a fine-tune of the base"),
        ({"tuned": "terse"}, ("--no-weights",), "terse: has 8 tokens, the base's tokenizer gives number"),
        ({"tuned": "tuned"}, ("--device", "nonsense"), "cannot load the model"),
    ],
)
def test_bad_input_ends_in_one_line(
    broken: Path,
    tmp_path: Path,
    tiltmeter: CommandLine,
    chosen: dict[str, str],
    more: tuple[object, ...],
    expected: str,
) -> None:
    one_line(run(tiltmeter, broken, tmp_path / "out", *more, **chosen), expected)
    assert not (tmp_path / "out" / "result.json").exists()


def test_a_fine_tune_beside_has_the_bases_shape_too(broken: Path, tmp_path: Path, tiltmeter: CommandLine) -> None:
    ended = run(tiltmeter, broken, tmp_path / "out", "--beside", f"x={broken / 'narrow'}")
    one_line(ended, "narrow: width: 8, of the base 16")


def test_hostile_names_stay_text(models: Path, tmp_path: Path, tiltmeter: CommandLine) -> None:
    folder = Path(shutil.copytree(models, tmp_path / "work"))
    (folder / "tuned").rename(folder / NAME)
    (folder / "prompts.jsonl").rename(folder / f"{NAME}.jsonl")
    ended = run(
        tiltmeter, folder, tmp_path / "out", "--beside", f"{INNER}={folder / 'benign'}",
        tuned=NAME, prompts=f"{NAME}.jsonl",
    )  # fmt: skip
    assert (ended.code, ended.err) == (0, "")
    assert not RAW.search(ended.out)
    assert r"\x1b[31m[red]" in "".join(ended.out.split())
    assert list(result_of(tmp_path / "out")["beside"]) == [INNER]
    assert tiltmeter("report", tmp_path / "out", "--out", tmp_path / "page.html").code == 0
    page = check_only_text((tmp_path / "page.html").read_text())
    assert any("<img src=x onerror=alert(3)>" in words for words in page.words)
    assert tiltmeter("verify", tmp_path / "out").code == 0
