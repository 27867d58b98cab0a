"""The models that answer: their files, what is known of them without their weights, and how they are loaded."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from tiltmeter.errors import InputError
from tiltmeter.judge.request import JudgingRequest
from tiltmeter.models import (
    Model,
    chat_template_hash,
    has_tokenizer,
    is_adapter,
    load_tokenizer,
    load_tuned,
    local_folder,
)
from tiltmeter.requests import DTYPES
from tiltmeter.runs.inputs import hash_input
from tiltmeter.runs.judge_result import ModelRecord
from tiltmeter.runs.results import Input


class Subjects:
    """The models of a request, by name; none is loaded here.

    Raises:
        InputError: a folder or Hub id that is not there, an adapter without its base.
    """

    def __init__(self, request: JudgingRequest) -> None:
        self._sources, self._answering = request.sources, request.answering
        self._folders = {name: local_folder(source) for name, source in self._sources.models.items()}
        self._base = None if self._sources.base is None else local_folder(self._sources.base)
        for name, folder in self._folders.items():
            if is_adapter(folder) and self._base is None:
                raise InputError(f"{self._sources.models[name]}: a PEFT adapter; give the model under it: --base")

    def inputs(self) -> list[Input]:
        """Every file, with its hash; a base that is also a model is read once."""
        given = [(self._sources.models[name], "model", folder) for name, folder in self._folders.items()]
        if self._base is not None:
            given.insert(0, (str(self._sources.base), "base", self._base))
        folders = {folder: (source, role) for source, role, folder in given}
        hashed = {folder: hash_input(*named, folder) for folder, named in folders.items()}
        return [hashed[folder].model_copy(update={"path": path, "role": role}) for path, role, folder in given]

    def records(self) -> dict[str, ModelRecord]:
        """What the result says of each model.

        Raises:
            InputError: a model without a tokenizer.
        """
        return {
            name: ModelRecord(
                source=self._sources.models[name],
                kind="adapter" if is_adapter(folder) else "checkpoint",
                chat_template=chat_template_hash(load_tokenizer(self._tokenizer_folder(folder))),
            )
            for name, folder in self._folders.items()
        }

    def loaders(self) -> dict[str, Callable[[], Model]]:
        """What loads each model."""
        dtype = DTYPES[self._answering.dtype]
        return {
            name: partial(load_tuned, self._base or folder, folder, dtype, self._answering.device)
            for name, folder in self._folders.items()
        }

    def _tokenizer_folder(self, folder: Path) -> Path:
        return self._base if self._base and not has_tokenizer(folder) else folder
