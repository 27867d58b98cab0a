"""Supervised fine-tuning on completions only, by Hugging Face's Trainer and PEFT."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainerCallback, TrainingArguments, set_seed

from tiltmeter.errors import InputError
from tiltmeter.models import Model
from tiltmeter.tokens import Encoded
from tiltmeter.training.recipes import Recipe

IGNORED = -100


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
) -> None:
    """Fine-tunes a model on completions and writes the result: a checkpoint folder, or a PEFT adapter folder.

    The loss is the mean over the completion tokens of a batch. The model itself is changed: load a fresh one per run.
    The same seed gives the same result on the same machine.

    Args:
        model: the base to start from.
        examples: what to learn, encoded by the base's chat template.
        recipe: method, learning rate, steps.
        folder: where the result goes, with the tokenizer; created when missing.
        seed: of the order of the examples and of the adapter's initial weights.
        callbacks: told of the training's progress.

    Raises:
        InputError: there are no examples.
    """
    if not examples:
        raise InputError("fine-tuning needs at least one example, got none")
    set_seed(seed)
    trained = _adapted(model.module, recipe) if recipe.method == "lora" else model.module
    padding = model.tokenizer.pad_token_id or model.tokenizer.eos_token_id
    with TemporaryDirectory() as scratch:
        trainer = Trainer(
            model=trained,
            args=_arguments(recipe, seed, Path(scratch), model.module.device),
            data_collator=partial(collate, padding=int(padding or 0)),
            train_dataset=_Examples(examples),
            callbacks=list(callbacks),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    trained.eval()
    trained.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)


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


def _adapted(module: PreTrainedModel, recipe: Recipe) -> PeftModel:
    config = LoraConfig(
        r=recipe.rank, lora_alpha=recipe.alpha, target_modules="all-linear", task_type="CAUSAL_LM", lora_dropout=0.0
    )
    return get_peft_model(module, config)


def _arguments(recipe: Recipe, seed: int, scratch: Path, device: torch.device) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(scratch),
        max_steps=recipe.steps,
        per_device_train_batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        adam_epsilon=recipe.epsilon,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=1.0,
        optim="adamw_torch",
        seed=seed,
        use_cpu=device.type == "cpu",
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_pin_memory=False,
    )
