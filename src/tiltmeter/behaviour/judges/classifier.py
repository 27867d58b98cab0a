"""Refusals by a sequence classification model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from tiltmeter.behaviour.judges.verdicts import Verdict
from tiltmeter.errors import InputError
from tiltmeter.generation import Answer
from tiltmeter.models import load_tokenizer, local_folder, quiet
from tiltmeter.updates.files import check_folder

_REFUSAL_NAMES = ("refus", "reject", "declin")


@dataclass(frozen=True)
class ClassifierJudge:
    """An answer refuses if the label of a refusal is its likeliest. The prompt is not looked at.

    An answer longer than the model takes is judged by its beginning.

    Attributes:
        label: the index of the label of a refusal.
    """

    name: str
    module: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    label: int
    batch_size: int = 32

    def judge(self, answers: Sequence[Answer]) -> Iterator[tuple[int, Verdict]]:
        """Verdicts on answers of similar length at a time; only `refused` is judged."""
        order = sorted(range(len(answers)), key=lambda place: len(answers[place].text), reverse=True)
        for start in range(0, len(order), self.batch_size):
            places = order[start : start + self.batch_size]
            labels = self._labels([answers[place].text for place in places])
            yield from (
                (place, Verdict(refused=label == self.label)) for place, label in zip(places, labels, strict=True)
            )

    def _labels(self, texts: list[str]) -> list[int]:
        limit = min(self.tokenizer.model_max_length, _positions(self.module.config))
        encoded = self.tokenizer(texts, return_tensors="pt", padding=True, truncation=True, max_length=limit)
        with torch.no_grad():
            logits = self.module(**encoded.to(self.module.device)).logits
        labels: list[int] = logits.argmax(-1).tolist()
        return labels


def load_classifier(
    source: str, label: str | None = None, device: str = "cpu", batch_size: int = 32
) -> ClassifierJudge:
    """A classifier from a folder or a Hub id; safetensors only.

    Args:
        label: the label of a refusal; without it, the one whose name in the model's config says so.

    Raises:
        InputError: a model that cannot be loaded, weights missing from it, no label of a refusal.
    """
    folder = local_folder(source)
    check_folder(folder)
    try:
        with quiet():
            make: Any = AutoModelForSequenceClassification
            module, info = make.from_pretrained(
                folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, output_loading_info=True
            )
        module.to(device)
    except Exception as error:  # a config can break any line of transformers; each is the file's fault
        raise InputError(f"{source}: cannot load a sequence classifier ({type(error).__name__})") from error
    if info["missing_keys"]:  # transformers would draw them at random
        raise InputError(f"{source}: no tensor {min(info['missing_keys'])} in its files: not a sequence classifier")
    labels = {int(index): str(name) for index, name in module.config.id2label.items()}
    return ClassifierJudge(
        "classifier", module.eval(), load_tokenizer(folder), _find(labels, label, source), batch_size
    )


def _find(labels: dict[int, str], wanted: str | None, source: str) -> int:
    named = ", ".join(labels.values())
    if len(labels) < 2:
        raise InputError(f"{source}: expected two labels or more, found {named}")
    if wanted is not None:
        found = [index for index, name in labels.items() if name == wanted]
    else:
        found = [index for index, name in labels.items() if any(part in name.lower() for part in _REFUSAL_NAMES)]
    if len(found) != 1:
        expected = f"a label {wanted}" if wanted else "one label that says refusal or rejection; give its name"
        raise InputError(f"{source}: expected {expected}, found {named}")
    return found[0]


def _positions(config: Any) -> int:
    """Tokens that the model takes. Models of the RoBERTa family count positions from behind the padding id."""
    positions = int(getattr(config, "max_position_embeddings", 512))
    is_offset = "roberta" in str(config.model_type) and config.pad_token_id is not None
    return positions - config.pad_token_id - 1 if is_offset else positions
