"""Load a base model, a fine-tuned checkpoint, or a base with a PEFT adapter on it."""

import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from torch import nn
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from tiltmeter.errors import InputError
from tiltmeter.layers import auto_class, find_blocks, find_text_linears
from tiltmeter.updates.adapter_files import AdapterFiles
from tiltmeter.updates.adapters import check_patterns
from tiltmeter.updates.files import check_folder
from tiltmeter.updates.model_folder import ModelFolder

ADAPTER_CONFIG = "adapter_config.json"
_HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]


@dataclass(frozen=True)
class Model:
    """A causal language model with its tokenizer and its parts, found by structure.

    Attributes:
        module: the transformers model, in eval mode.
        tokenizer: its tokenizer; padding side and chat template are taken from it.
        blocks: the transformer blocks of the text stack in order, by name.
        linears: the linear layers that text can reach (of the text stack, and the head), by name in `named_modules()`.
    """

    module: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    blocks: dict[str, nn.Module]
    linears: dict[str, nn.Module]

    @property
    def device(self) -> torch.device:
        """Where the input ids go."""
        return self.module.device


def load_model(
    source: str | Path,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    blocks: str | None = None,
    trust_remote_code: bool = False,
) -> Model:
    """A model from a folder or a Hub id. Safetensors only; pickles are refused.

    Args:
        source: a folder in Hugging Face format, or a Hub id.
        dtype: the dtype of the weights in memory.
        device: where the weights go.
        blocks: the name of the list of blocks, where structure alone does not find it ("model.layers").
        trust_remote_code: run Python code that comes with the model; never implied.

    Raises:
        InputError: no such folder or id, a file that cannot be used, weights that are missing or not finite, no blocks.
    """
    folder = local_folder(source)
    module = _read_weights(folder, dtype, device, trust_remote_code)
    return assemble(module, load_tokenizer(folder, trust_remote_code), blocks)


def assemble(module: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, blocks: str | None = None) -> Model:
    """A `Model` around a transformers model that is already in memory."""
    module.eval()
    found = find_blocks(module) if blocks is None else _named_blocks(module, blocks)
    return Model(module, tokenizer, found, find_text_linears(module))


def load_tuned(base: str | Path, tuned: str | Path, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Model:
    """The tuned model: a checkpoint, or `base` with the PEFT adapter of folder `tuned` on it, not merged.

    The tokenizer is the tuned folder's where it has one, since its chat template is part of how the model behaves.

    Raises:
        InputError: as `load_model`; an adapter with keys that PEFT would drop without a word.
    """
    folder, below = local_folder(tuned), local_folder(base)
    module = _read_weights(below if is_adapter(folder) else folder, dtype, device)
    model = assemble(module, load_tokenizer(folder if has_tokenizer(folder) else below))
    return replace(model, module=_with_adapter(module, folder, below)) if is_adapter(folder) else model


def load_tokenizer(folder: Path, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder, with a padding token.

    Raises:
        InputError: none there, or one without offsets (a "slow" tokenizer).
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except Exception as error:  # the readers of the files raise whatever they like, `Exception` itself among it
        raise InputError(f"{folder}: cannot load a tokenizer: {_cause(error)}") from error
    if not tokenizer.is_fast:
        raise InputError(f"{folder}: expected a fast tokenizer (tokenizer.json), which maps tokens to characters")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def local_folder(source: str | Path) -> Path:
    """The folder itself, or the folder that a Hub id was downloaded to.

    Raises:
        InputError: neither a folder nor a reachable Hub id.
    """
    if Path(source).is_dir():
        return Path(source)
    if Path(source).exists():
        raise InputError(f"{source}: expected a folder in Hugging Face format, found a file")
    try:
        return Path(snapshot_download(str(source), allow_patterns=_HUB_FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            f"{source}: no such folder, and not to be had from the Hub ({type(error).__name__})"
        ) from error


def is_adapter(folder: Path) -> bool:
    """True for a PEFT adapter folder."""
    return (folder / ADAPTER_CONFIG).exists()


def has_tokenizer(folder: Path) -> bool:
    """True where a folder brings a tokenizer of its own."""
    return (folder / "tokenizer.json").exists()


def context_length(model: Model) -> int:
    """The number of positions that the model takes, by its config."""
    found = getattr(model.module.config.get_text_config(), "max_position_embeddings", None)
    return found if isinstance(found, int) else sys.maxsize


def chat_template_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """sha256 of the chat template; of the empty text where there is none."""
    return hashlib.sha256(str(tokenizer.chat_template or "").encode()).hexdigest()


def _read_weights(folder: Path, dtype: torch.dtype, device: str, trust_remote_code: bool = False) -> PreTrainedModel:
    if is_adapter(folder):
        raise InputError(f"{folder}: expected a whole model, found a PEFT adapter; give its base model first")
    check_folder(folder)
    try:
        with quiet():
            make = auto_class(AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code))
            module, info = make.from_pretrained(
                folder,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
            )
        module.to(device)
    except Exception as error:  # a config can break any line of transformers; each is the file's fault
        raise InputError(f"{folder}: cannot load the model: {_cause(error)}") from error
    assert isinstance(module, PreTrainedModel)
    if info["missing_keys"]:  # transformers would draw them at random
        raise InputError(f"{folder}: no tensor {min(info['missing_keys'])} in its files, expected by config.json")
    for name, parameter in module.named_parameters():
        if not torch.isfinite(parameter).all():
            raise InputError(f"{folder}: tensor {name} holds NaN or Inf")
    return module


def _with_adapter(module: PreTrainedModel, folder: Path, base: Path) -> PreTrainedModel:
    """The same module, with PEFT's layers put in the place of those that the adapter changes."""
    from peft import PeftModel

    AdapterFiles(folder).check_against(ModelFolder(base))
    check_patterns(folder, [name for name, _ in module.named_modules()])
    try:
        model = PeftModel.from_pretrained(module, str(folder))
    except Exception as error:  # as for configs
        raise InputError(f"{folder}: PEFT cannot load the adapter: {_cause(error)}") from error
    adapted = model.get_base_model().eval()
    assert isinstance(adapted, PreTrainedModel)
    return adapted


def _cause(error: Exception) -> str:
    """The first line of an error from elsewhere."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bar, which knows no terminal, and its notes, which print hostile names raw."""
    has_bar, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if has_bar:
            logging.enable_progress_bar()


def _named_blocks(module: nn.Module, name: str) -> dict[str, nn.Module]:
    try:
        listed = module.get_submodule(name)
    except AttributeError as error:
        raise InputError(f"{type(module).__name__}: has no module {name!r}") from error
    if not isinstance(listed, nn.ModuleList):
        raise InputError(f"{type(module).__name__}: {name!r} holds no blocks, it is a {type(listed).__name__}")
    return {f"{name}.{child}": block for child, block in listed.named_children()}
