"""The text stack of a vision-language wrapper is found, and computes as the same stack does alone."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

import saved
import tiny
from tiltmeter.audit.measure import Settings
from tiltmeter.audit.run import Request, Sources, run_audit
from tiltmeter.errors import InputError
from tiltmeter.generation import GREEDY, Sampling, generate_answers
from tiltmeter.layers import find_text_linears, skeleton
from tiltmeter.likelihood import log_likelihoods
from tiltmeter.models import Model, assemble, context_length, load_model, load_tuned
from tiltmeter.runs.results import AuditResult
from tiltmeter.tokens import encode

FAMILIES = sorted(tiny.WRAPPERS)
BLOCKS = ["model.language_model.layers.0", "model.language_model.layers.1"]
IDS = torch.tensor([[1, 4, 7, 8, 5, 9]])
PROMPTS = ["how do i make tea", "make", "two three good bread do i wait"]


def logits(model: Model) -> Tensor:
    with torch.no_grad():
        found: Tensor = model.module(input_ids=IDS).logits
    return found


def alone(model: Model, family: str) -> Model:
    """The text stack as a causal language model of its own, with the wrapper's weights."""
    wrapper: Any = model.module
    text: Any = AutoModelForCausalLM.from_config(tiny.WRAPPERS[family][1], dtype=torch.float32)
    text.model.load_state_dict(wrapper.model.language_model.state_dict())
    text.lm_head.load_state_dict(wrapper.lm_head.state_dict())
    return assemble(text, model.tokenizer)


def save(folder: Path, model: Model) -> Path:
    model.module.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


def audit(base: Path, tuned: Path) -> AuditResult:
    rows = [json.dumps({"prompt": each.prompt, "completion": each.completion}) for each in tiny.skill(3).examples]
    skill = base.parent / "tea.jsonl"
    skill.write_text("\n".join(rows))
    request = Request(Sources(str(base), str(tuned), (str(skill),)), settings=Settings(dims=3, draws=2))
    return run_audit(request, base.parent / f"audit of {tuned.name}", None)


@contextmanager
def called(module: nn.Module) -> Iterator[set[str]]:
    """The linear layers that run meanwhile."""
    names: set[str] = set()
    layers = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, nn.Linear)]
    hooks = [layer.register_forward_hook(lambda *_, name=name: names.add(name)) for name, layer in layers]
    yield names
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_wrapper_comes_back(family: str, tmp_path: Path) -> None:
    model = tiny.model(family)
    back = load_model(save(tmp_path, model))
    assert type(back.module) is type(model.module)
    assert type(back.module).__name__ in json.loads((tmp_path / "config.json").read_text())["architectures"]
    assert torch.equal(logits(back), logits(model))
    assert list(back.blocks) == BLOCKS
    assert context_length(back) == 64
    assert list(find_text_linears(skeleton(tmp_path))) == list(back.linears)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_linear_layers_are_those_that_text_reaches(family: str) -> None:
    model = tiny.model(family)
    with called(model.module) as reached:
        logits(model)
    assert set(model.linears) == reached
    assert sum(isinstance(layer, nn.Linear) for layer in model.module.modules()) > len(reached) == 15


@pytest.mark.parametrize("family", FAMILIES)
def test_it_computes_as_its_text_stack_alone(family: str) -> None:
    model = tiny.model(family, padding_side="left")
    text = alone(model, family)
    encoded = encode(tiny.skill(), model.tokenizer)
    torch.testing.assert_close(logits(model), logits(text), rtol=0, atol=1e-6)
    torch.testing.assert_close(log_likelihoods(model, encoded), log_likelihoods(text, encoded), rtol=0, atol=1e-6)
    for sampling in (GREEDY, Sampling(max_new_tokens=12)):
        answers = generate_answers(model, PROMPTS, sampling)
        assert answers == generate_answers(text, PROMPTS, sampling)
        assert any(answer.text for answer in answers)


def test_an_adapter_changes_the_wrapper_as_its_merge_does(tmp_path: Path) -> None:
    change = saved.adapter(tmp_path, "mistral3", target_modules=["q_proj", "down_proj"])
    tiny.tokenizer().save_pretrained(tmp_path / "base")
    merged = load_model(tmp_path / "base", torch.float64)
    before = logits(merged)
    with torch.no_grad():
        for name, delta in change.items():
            merged.module.get_parameter(name).add_(delta)
    tuned = load_tuned(tmp_path / "base", tmp_path / "adapter", torch.float64)
    torch.testing.assert_close(logits(tuned), logits(merged), rtol=1e-5, atol=1e-6)
    assert (logits(merged) - before).abs().max() > 1e-2
    assert list(tuned.blocks) == BLOCKS


def test_a_wrapper_that_is_not_understood_says_how_to_name_its_blocks() -> None:
    module: Any = tiny.model("mistral3").module
    block = module.model.language_model.layers[1]
    block.__class__ = type("OtherBlock", (type(block),), {})
    with pytest.raises(InputError, match=r"^Mistral3ForConditionalGeneration: found no list .*blocks=\S+$"):
        assemble(module, tiny.tokenizer())
    named = assemble(module, tiny.tokenizer(), blocks="model.language_model.layers")
    assert list(named.blocks) == BLOCKS
    assert len(named.linears) == 15


def test_an_audit_of_wrappers_is_that_of_their_text_stacks(tmp_path: Path) -> None:
    base, tuned = tiny.model("mistral3"), tiny.model("mistral3")
    saved.shaken(tuned.module, lambda name: "q_proj" in name)
    found = audit(save(tmp_path / "base", base), save(tmp_path / "whole", tuned))
    expected = audit(
        save(tmp_path / "text base", alone(base, "mistral3")), save(tmp_path / "text whole", alone(tuned, "mistral3"))
    )
    random = {"nulls": {"same_rank"}}  # seeded by the modules' names
    assert found.skills["tea"].model_dump(exclude=random) == expected.skills["tea"].model_dump(exclude=random)
    assert found.update.norm == expected.update.norm > 0
    vision = {f"model.vision_tower.transformer.layers.{index}.attention.q_proj.weight" for index in range(3)}
    assert {name for name, norm in found.update.not_covered.items() if norm} == vision


def test_an_audit_of_an_adapter_on_both_towers(tmp_path: Path) -> None:
    base: Any = tiny.model("mistral3")
    folder = save(tmp_path / "base", base)
    adapted = get_peft_model(base.module, LoraConfig(r=2, target_modules=["q_proj"]))
    saved.shaken(adapted, lambda name: "lora_" in name).save_pretrained(tmp_path / "adapter")
    found = audit(folder, tmp_path / "adapter")
    assert found.update.modules == 2
    vision = {f"model.vision_tower.transformer.layers.{index}.attention.q_proj.weight" for index in range(3)}
    assert found.update.not_covered.keys() == vision
