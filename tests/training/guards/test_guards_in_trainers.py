"""Guards inside plain Trainer and TRL's SFTTrainer, with accumulation, over a resume."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from guard_loops import METHODS, likelihoods
from peft import LoraConfig
from torch import nn
from transformers import Trainer

import tiny
from tiltmeter.errors import InputError
from tiltmeter.skills import Example, Skill
from tiltmeter.training.guards.guard import Guard
from tiltmeter.training.guards.penalties import KLToBase
from tiltmeter.training.guards.projection import Projection
from tiltmeter.training.guards.trust_region import TrustRegion
from tiltmeter.training.guards.utility_limit import UtilityLimit
from tiny_training import PAIRS, same, save_base, trainer, weights

LIMIT = 0.02
RATES = {"full": 3e-2, "lora": 1e-1}
# The model's own most likely answers: training on others makes them less likely.
OWN = [("make tea", "bake good bread"), ("two bad tea", "i bake two"), ("good tea", "i bake")]
SKILL = Skill("own", tuple(Example(({"role": "user", "content": a},), b, "test") for a, b in OWN))
GUARDS: dict[str, Callable[[], Guard]] = {
    "trust": lambda: TrustRegion([SKILL], 1e-3, horizon=1),
    "tracked": lambda: Projection([SKILL], dims=1, every=3),
    "utility": lambda: UtilityLimit([SKILL], LIMIT),
    "kl": lambda: KLToBase([SKILL], 1.0, batch_size=1),
}


def of(made: Trainer) -> nn.Module:
    """The model that it trains."""
    assert made.model is not None
    return made.model


def loss(module: nn.Module | None) -> float:
    """What the skill has lost, one example at a time."""
    assert module is not None
    module.eval()
    with torch.no_grad():
        base, present = (likelihoods(each, SKILL).mean() for each in (tiny.model("llama").module, module))
    return float(base - present)


@pytest.mark.parametrize(("method", "accumulation"), [("full", 1), ("full", 2), ("lora", 2)])
def test_a_plain_trainer_ends_within_the_limit(method: str, accumulation: int, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"gradient_accumulation_steps": accumulation, "learning_rate": RATES[method]}
    free = trainer(tmp_path, method, [], **settings)
    free.train()
    guard = UtilityLimit([SKILL], LIMIT)
    held = trainer(tmp_path, method, [guard], **settings)
    held.train()
    assert guard.step == held.state.global_step == 6
    assert loss(free.model) > 5 * LIMIT
    assert loss(held.model) <= LIMIT + 1e-4  # float32, padded


def test_the_loss_that_is_logged_is_the_tasks(tmp_path: Path) -> None:
    """The first step's loss is of the same weights with and without a penalty."""
    logged = []
    for guards in ([], [KLToBase([SKILL], 100.0)]):
        made = trainer(tmp_path, "full", guards, logging_strategy="steps", logging_steps=1)
        made.train()
        logged.append([entry["loss"] for entry in made.state.log_history if "loss" in entry])
    assert logged[0][0] == logged[1][0]
    assert logged[0][-1] != logged[1][-1]


@pytest.mark.parametrize(
    ("kind", "method"), [("trust", "lora"), ("trust", "full"), ("tracked", "lora"), ("utility", "full"), ("kl", "lora")]
)
def test_a_run_that_goes_on_ends_as_the_whole_one(kind: str, method: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"save_strategy": "steps", "save_steps": 3}
    whole = trainer(tmp_path, method, [GUARDS[kind]()], **settings)
    whole.train()
    resumed = trainer(tmp_path, method, [GUARDS[kind]()], **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert same(weights(of(whole)), weights(of(resumed)))
    plain = trainer(tmp_path / "plain", method, [])
    plain.train()
    assert not same(weights(of(whole)), weights(of(plain)))


def test_a_run_that_began_from_other_weights_does_not_go_on(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"save_strategy": "steps", "save_steps": 3}
    trainer(tmp_path, "full", [Projection([SKILL], dims=1)], **settings).train()
    made = trainer(tmp_path, "full", [], **settings)
    of(made).get_parameter("model.layers.0.mlp.up_proj.weight").data.add_(1.0)
    guard = Projection([SKILL], dims=1)
    guard.watch(of(made), tiny.tokenizer())
    made.add_callback(guard)
    with pytest.raises(InputError, match="did not start as it did then"):
        made.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))


def test_a_guard_that_comes_too_late_says_so(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"save_strategy": "steps", "save_steps": 3}
    trainer(tmp_path, "full", [], **settings).train()
    made = trainer(tmp_path, "full", [], **settings)
    made.add_callback(UtilityLimit([SKILL], LIMIT))
    with pytest.raises(InputError, match="whose start it never saw"):
        made.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))


def test_without_a_tokenizer_it_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give the guard a tokenizer"):
        Trainer(model=tiny.model("llama").module, callbacks=[UtilityLimit([SKILL], LIMIT)])


@pytest.mark.parametrize("method", METHODS)
def test_an_sft_trainer_ends_within_the_limit(method: str, tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    guard = UtilityLimit([SKILL], LIMIT)
    made = trl.SFTTrainer(
        model=str(save_base(tmp_path / "base")),
        args=trl.SFTConfig(
            output_dir=str(tmp_path / "run"),
            max_steps=4,
            per_device_train_batch_size=2,
            learning_rate=RATES[method],
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            bf16=False,
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list([{"prompt": a, "completion": b} for a, b in PAIRS]),
        processing_class=tiny.tokenizer(),
        callbacks=[guard],
        peft_config=LoraConfig(r=4, target_modules="all-linear", lora_dropout=0.1) if method == "lora" else None,
    )
    made.train()
    assert guard.step == 4
    assert guard.corrections.steps > 0
    assert loss(made.model) <= LIMIT + 1e-4
