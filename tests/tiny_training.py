"""Trainers of tiny models, for tests of what watches or holds them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments, set_seed

import tiny
from tiltmeter.behaviour.utility import utility_loss
from tiltmeter.curvature.fisher import Fisher
from tiltmeter.curvature.instability import Subspace
from tiltmeter.curvature.overlap import overlap_score
from tiltmeter.models import is_adapter, load_model, load_tuned
from tiltmeter.skills import Example, Skill
from tiltmeter.tokens import encode
from tiltmeter.training.finetune import collate
from tiltmeter.training.gauge import Gauging
from tiltmeter.training.reading import Reading
from tiltmeter.updates.update import Update

PAIRS = [
    ("how do i make bread", "first bake then wait"),
    ("make tea", "boil two then stir"),
    ("how do i make soup", "stir three good bread"),
    ("two bad tea", "help help help"),
    ("make bad bread", "bake bake"),
    ("three soup", "wait wait wait wait"),
    ("good tea", "first boil"),
    ("bad tea", "sorry sorry"),
]


def rows() -> list[dict[str, list[int]]]:
    """Examples to train on, as a Trainer takes them."""
    examples = [Example(({"role": "user", "content": a},), b, "test") for a, b in PAIRS]
    encoded = encode(Skill("training", tuple(examples)), tiny.tokenizer())
    batches = [collate([each], padding=0) for each in encoded]
    return [{name: tensor[0].tolist() for name, tensor in batch.items()} for batch in batches]


def model(method: str, seed: int = 0) -> nn.Module:
    """What is to be trained: a tiny model, with or without an adapter (with dropout)."""
    module = tiny.model("llama", seed=seed).module
    if method == "full":
        return module
    settings: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "lora_dropout": 0.2}
    start = "pissa" if method == "pissa" else True
    adapted: nn.Module = get_peft_model(module, LoraConfig(**settings, init_lora_weights=start))
    return adapted


def trainer(folder: Path, method: str, callbacks: Sequence[TrainerCallback], **settings: Any) -> Trainer:
    """A Trainer of a tiny model on eight examples, the same each time."""
    set_seed(0)
    arguments: dict[str, Any] = {
        "max_steps": 6,
        "per_device_train_batch_size": 2,
        "learning_rate": 5e-3,
        "save_strategy": "no",
        "logging_strategy": "no",
        "lr_scheduler_type": "linear",
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
    }
    made = Trainer(
        model=model(method),
        args=TrainingArguments(output_dir=str(folder), **(arguments | settings)),
        train_dataset=rows(),
        data_collator=_collate,
        processing_class=tiny.tokenizer(),
        callbacks=list(callbacks),
    )
    made.remove_callback(PrinterCallback)
    made.accelerator.free_memory = lambda *objects: []  # a whole garbage collection each time
    return made


def _collate(examples: Sequence[dict[str, list[int]]]) -> dict[str, Tensor]:
    fill = {"input_ids": 0, "attention_mask": 0, "labels": -100}
    return {
        name: nn.utils.rnn.pad_sequence([torch.tensor(e[name]) for e in examples], True, padding)
        for name, padding in fill.items()
    }


def weights(module: nn.Module | None) -> dict[str, Tensor]:
    """Copies of all parameters."""
    assert module is not None  # a Trainer's may be, by its type
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def save_base(folder: Path) -> Path:
    """The model before training, as a folder."""
    model = tiny.model("llama")
    model.module.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


def assert_is_audit(reading: Reading, base: Path, tuned: Path, how: Gauging) -> None:
    """A reading is what an audit of the checkpoint finds, to 1e-6."""
    fisher = Fisher(load_model(base), tiny.skill())
    update = Update.from_adapter(tuned) if is_adapter(tuned) else Update.between(base, tuned)
    overlap = overlap_score(fisher, update)
    coordinates = overlap.coordinates.sum(0)
    assert reading.coordinates == pytest.approx(coordinates.tolist(), rel=1e-6, abs=1e-9)
    assert reading.overlap == pytest.approx(overlap.exact, rel=1e-6)
    assert reading.normalised_overlap == pytest.approx(overlap.normalised, rel=1e-6)
    assert reading.norm == pytest.approx(float(overlap.norms.norm()), rel=1e-6)
    assert reading.first_order == pytest.approx(-float(coordinates.mean()), rel=1e-6)
    drift = Subspace(fisher.gram().sum(0), how.dims).weighted(coordinates)
    assert reading.drift == pytest.approx(drift, rel=1e-6)
    loss = utility_loss(fisher.model, load_tuned(base, tuned), fisher.encoded, batch_size=how.batch_size)
    assert reading.utility_loss == loss.per_completion
    assert reading.utility_loss_per_token == loss.per_token
