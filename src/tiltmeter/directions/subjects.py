"""The models of a matrix of transfers: what their files say before any weights are read, and their states."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from transformers import PreTrainedModel

from tiltmeter.activations.capture import prompts_only
from tiltmeter.activations.hook_points import chosen_blocks
from tiltmeter.directions.captured import Capturing
from tiltmeter.directions.routes import States
from tiltmeter.directions.transfer_request import Subject, TransferRequest
from tiltmeter.errors import InputError
from tiltmeter.layers import find_blocks, skeleton
from tiltmeter.models import (
    Model,
    assemble,
    chat_template_hash,
    context_length,
    has_tokenizer,
    is_adapter,
    load_model,
    load_tokenizer,
    load_tuned,
    local_folder,
)
from tiltmeter.requests import DTYPES
from tiltmeter.tokens import Encoded
from tiltmeter.updates.adapter_files import AdapterFiles
from tiltmeter.updates.model_folder import ModelFolder


@dataclass(frozen=True)
class Outline:
    """One model by its files.

    Attributes:
        texts: the common prompts by the base's tokenizer.
        blocks: names of all blocks.
        number: of the block that is read and edited.
        templates: fine-tunes whose chat template is not the base's.
    """

    name: str
    subject: Subject
    texts: Sequence[Encoded]
    blocks: Sequence[str]
    number: int
    templates: Sequence[str]

    @property
    def block(self) -> str:
        """The name of that block."""
        return self.blocks[self.number]

    @property
    def is_at_end(self) -> bool:
        """Whether no block follows it."""
        return self.number == len(self.blocks) - 1


def outline(name: str, subject: Subject, common: Sequence[str], block: int) -> Outline:
    """Reads configurations and tokenizers, and the files of adapters.

    Args:
        block: its number; negative ones from the end.

    Raises:
        InputError: no such model or block, fine-tunes that are none of the base, a prompt that is too long.
    """
    folder = local_folder(subject.base)
    base = _without_weights(folder)
    with naming(name):
        (chosen,) = chosen_blocks(base, [block])
    texts = prompts_only(base, common)
    _check_texts(name, base, texts)
    fine_tunes = [(given, local_folder(given)) for given in fine_tunes_of(subject).values()]
    for _, tuned in fine_tunes:
        _check_fine_tune(base, folder, tuned, max(max(text.ids) for text in texts))
    templates = [given for given, tuned in fine_tunes if _has_other_template(base, tuned)]
    return Outline(name, subject, texts, list(base.blocks), list(base.blocks).index(chosen), templates)


def fine_tunes_of(subject: Subject) -> dict[str, str]:
    """By role: tuned, and benign where it is given."""
    return {"tuned": subject.tuned} | ({} if subject.benign is None else {"benign": subject.benign})


def read_states(request: TransferRequest, capturing: Capturing, label: str, found: Outline) -> States:
    """States of base and fine-tunes on the common prompts at the block.

    Args:
        label: begins the names of the files that keep them.

    Raises:
        InputError: a fine-tune that did nothing there.
    """
    loaders = {"base": partial(load_base, request, found.subject)}
    loaders |= {
        role: partial(load_fine_tune, request, found.subject, tuned)
        for role, tuned in fine_tunes_of(found.subject).items()
    }
    read = {
        role: capturing.read(f"{label}-{role}", load, found.texts, [found.block]).per_prompt(found.block)
        for role, load in loaders.items()
    }
    for role, tuned in fine_tunes_of(found.subject).items():
        if torch.equal(read[role].mean(0), read["base"].mean(0)):
            raise InputError(
                f"{found.name}: {tuned}: the fine-tune did nothing: its mean activations are the base's at "
                f"{found.block}"
            )
    return States(**read)


def load_base(request: TransferRequest, subject: Subject) -> Model:
    """The base model."""
    answering = request.answering
    return load_model(local_folder(subject.base), DTYPES[answering.dtype], answering.device)


def load_fine_tune(request: TransferRequest, subject: Subject, tuned: str) -> Model:
    """One of its fine-tunes."""
    answering = request.answering
    return load_tuned(local_folder(subject.base), local_folder(tuned), DTYPES[answering.dtype], answering.device)


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Errors from inside begin with what they are about."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{what}: {error}") from error


def _without_weights(folder: Path) -> Model:
    return assemble(_skeleton(folder), load_tokenizer(folder))


def _skeleton(folder: Path) -> PreTrainedModel:
    module = skeleton(folder)
    assert isinstance(module, PreTrainedModel)
    return module


def _check_texts(name: str, base: Model, texts: Sequence[Encoded]) -> None:
    longest, most = max(len(text.ids) for text in texts), context_length(base)
    if longest > most:
        raise InputError(f"{name}: --common: a prompt has {longest} tokens, the model takes {most}")


def _check_fine_tune(base: Model, folder: Path, tuned: Path, highest: int) -> None:
    """Whether the files are those of a fine-tune of the base, which knows its tokens up to the highest number."""
    if is_adapter(tuned):
        AdapterFiles(tuned).check_against(ModelFolder(folder))
        return
    module = _skeleton(tuned)
    own, its = (each.config.get_text_config() for each in (base.module, module))
    shapes = (("blocks", len(base.blocks), len(find_blocks(module))), ("width", own.hidden_size, its.hidden_size))
    for what, expected, found in shapes:
        if found != expected:
            raise InputError(f"{tuned}: {what}: {found}, of the base {expected}: expected a fine-tune of the base")
    if highest >= its.vocab_size:
        raise InputError(f"{tuned}: has {its.vocab_size} tokens, the base's tokenizer gives number {highest}")


def _has_other_template(base: Model, tuned: Path) -> bool:
    return has_tokenizer(tuned) and chat_template_hash(load_tokenizer(tuned)) != chat_template_hash(base.tokenizer)
