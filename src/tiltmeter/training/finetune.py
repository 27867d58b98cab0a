"""Supervised fine-tuning on completions only, by Hugging Face's Trainer and PEFT."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.trainer import TRAINER_STATE_NAME

from tiltmeter.errors import InputError
from tiltmeter.models import Model
from tiltmeter.tokens import Encoded
from tiltmeter.training.checkpoints import Checkpoints, MarkWhole
from tiltmeter.training.processes import share_of_batch
from tiltmeter.training.recipes import Recipe

IGNORED = -100


@dataclass(frozen=True)
class Session:
    """How a fine-tune is carried out, beside its recipe.

    Attributes:
        checkpoints: where it saves itself, and goes on from; None to do neither.
        mixed_precision: passes in bfloat16, over weights and optimizer in float32.
        gradient_checkpointing: activations are computed again instead of kept: less memory, more time.
        report_to: trackers that the Trainer reports to ("tensorboard", "wandb", ...).
    """

    checkpoints: Checkpoints | None = None
    mixed_precision: bool = False
    gradient_checkpointing: bool = False
    report_to: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainingLog:
    """What the Trainer said of a fine-tune.

    Attributes:
        entries: its log without times, an entry a step ("step", "loss", "grad_norm", "learning_rate", "epoch"), in
            order; callbacks that log through the Trainer have entries of their own.
        steps, epochs: the length; `planned_steps` unless a callback ended it early.
        tokens: seen over all steps, prompts included, padding not.
        resumed_from: the step of the checkpoint that it went on from; 0 where it started anew.
        session_tokens, session_seconds: seen and spent since then.
    """

    entries: list[dict[str, Any]] = field(repr=False)
    steps: int
    planned_steps: int
    epochs: float
    tokens: int
    resumed_from: int
    session_tokens: int
    session_seconds: float


class _Examples(Dataset[Encoded]):
    def __init__(self, examples: Sequence[Encoded]) -> None:
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Encoded:
        return self._examples[index]


def finetune(
    model: Model,
    examples: Sequence[Encoded],
    recipe: Recipe,
    folder: Path,
    seed: int = 0,
    callbacks: Sequence[TrainerCallback] = (),
    session: Session | None = None,
) -> TrainingLog:
    """Fine-tunes a model on completions and writes the result: a checkpoint folder, or a PEFT adapter folder.

    The loss is the mean over the completion tokens of a step's examples. The model itself is changed: load a fresh one
    per run. The same seed gives the same result on the same machine, also where the run was killed and goes on.

    Args:
        model: the base to start from.
        examples: what to learn, encoded by the base's chat template.
        recipe: method, learning rate, length; its `max_length` is for whoever encodes.
        folder: where the result goes, with the tokenizer; created when missing.
        seed: of the order of the examples, of the adapter's initial weights, and of dropout.
        callbacks: told of the training's progress.
        session: checkpoints, precision and trackers.

    Raises:
        InputError: there are no examples.
    """
    if not examples:
        raise InputError("fine-tuning needs at least one example, got none")
    session = session or Session()
    set_seed(seed)
    trained = _adapted(model.module, recipe) if recipe.method == "lora" else model.module
    padding = model.tokenizer.pad_token_id or model.tokenizer.eos_token_id
    with _place(session.checkpoints) as place:
        trainer = Trainer(
            model=trained,
            args=_arguments(recipe, seed, session, place, model.module.device),
            data_collator=partial(collate, padding=int(padding or 0)),
            train_dataset=_Examples(examples),
            callbacks=[*callbacks, MarkWhole()],
        )
        trainer.remove_callback(PrinterCallback)
        log = _train(trainer, session.checkpoints)
    trained.eval()
    if trainer.is_world_process_zero():
        trained.save_pretrained(folder)
        model.tokenizer.save_pretrained(folder)
    return log


def collate(examples: Sequence[Encoded], padding: int) -> dict[str, Tensor]:
    """A batch padded on the right; labels are the ids of completion tokens and `IGNORED` elsewhere."""
    ids = [torch.tensor(example.ids) for example in examples]
    labels = [
        torch.where(torch.tensor(example.is_completion), row, IGNORED)
        for example, row in zip(examples, ids, strict=True)
    ]
    masks = [torch.ones_like(row) for row in ids]
    pad = partial(nn.utils.rnn.pad_sequence, batch_first=True)
    return {
        "input_ids": pad(ids, padding_value=padding),
        "attention_mask": pad(masks, padding_value=0),
        "labels": pad(labels, padding_value=IGNORED),
    }


def _train(trainer: Trainer, checkpoints: Checkpoints | None) -> TrainingLog:
    last = checkpoints.last() if checkpoints else None
    before = _progress_of(last)
    done = trainer.train(resume_from_checkpoint=None if last is None else str(last))
    state = trainer.state
    return TrainingLog(
        [_without_times(entry) for entry in state.log_history if "train_loss" not in entry],
        steps=state.global_step,
        planned_steps=state.max_steps,
        epochs=float(state.epoch or 0.0),
        tokens=int(state.num_input_tokens_seen),
        resumed_from=before.global_step,
        session_tokens=int(state.num_input_tokens_seen - before.num_input_tokens_seen),
        session_seconds=float(done.metrics["train_runtime"]),
    )


def _without_times(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if not key.startswith("train_")}


def _progress_of(checkpoint: Path | None) -> TrainerState:
    return TrainerState() if checkpoint is None else TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))


@contextmanager
def _place(checkpoints: Checkpoints | None) -> Iterator[Path]:
    """The Trainer's own folder."""
    if checkpoints is not None:
        yield checkpoints.folder
    else:
        with TemporaryDirectory() as scratch:
            yield Path(scratch)


def _adapted(module: PreTrainedModel, recipe: Recipe) -> PeftModel:
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
        lora_dropout=recipe.dropout,
    )
    return get_peft_model(module, config)


def _arguments(recipe: Recipe, seed: int, session: Session, place: Path, device: torch.device) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(place),
        **_length(recipe),
        per_device_train_batch_size=share_of_batch(recipe.batch_size),
        gradient_accumulation_steps=recipe.accumulation,
        learning_rate=recipe.learning_rate,
        adam_epsilon=recipe.epsilon,
        lr_scheduler_type=recipe.schedule,
        weight_decay=0.0,
        max_grad_norm=1.0,
        optim="adamw_torch",
        seed=seed,
        use_cpu=device.type == "cpu",
        bf16=session.mixed_precision,
        **_memory(session),
        **_saving(session.checkpoints),
        logging_steps=1,
        logging_nan_inf_filter=False,
        include_num_input_tokens_seen="non_padding",
        report_to=list(session.report_to),
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_pin_memory=False,
    )


def _length(recipe: Recipe) -> dict[str, Any]:
    return {"max_steps": recipe.steps} if recipe.epochs is None else {"num_train_epochs": recipe.epochs}


def _memory(session: Session) -> dict[str, Any]:
    # Hooks and double backward work under non-reentrant checkpointing only.
    if not session.gradient_checkpointing:
        return {}
    return {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}


def _saving(checkpoints: Checkpoints | None) -> dict[str, Any]:
    if checkpoints is None or not checkpoints.every:
        return {"save_strategy": "no"}
    return {"save_steps": checkpoints.every, "save_total_limit": max(2, checkpoints.keep)}
