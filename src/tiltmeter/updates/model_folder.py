"""A model's folder: what its config says about structure, beside what its files hold. Weights are read one by one."""

from functools import cached_property
from pathlib import Path

from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightRenaming, rename_source_key

from tiltmeter.errors import InputError
from tiltmeter.layers import find_text_linears, is_transposed, skeleton
from tiltmeter.updates.files import Reading, Tensors


class ModelFolder:
    """A checkpoint on disk under the names of its model's `named_modules()` and `named_parameters()`.

    Files may lack the base model's prefix (`h.0...` for `transformer.h.0...`) or carry it where the model does not, and
    may name modules as the model's authors do (`language_model.model...` for `model.language_model...`): names are
    changed as transformers does when it loads them, and PEFT an adapter's.

    Args:
        folder: config.json and safetensors files.
        io: how the files are read; see `Tensors`.

    Attributes:
        linears: the linear layers that text can reach (without weights) by module name.
        stored: parameter name -> name in the files. Names that are no parameter (fused experts stored one by one) are
            kept, with the prefix brought in line.

    Raises:
        InputError: a folder that `check_folder` refuses, no usable config.json, a linear layer without a weight, a
            tensor whose shape is not the one that config.json promises.
    """

    def __init__(self, folder: Path, io: Reading = "mmap") -> None:
        self.folder = folder
        self.tensors = Tensors(folder, io=io)
        self.model = skeleton(folder)
        self.linears = find_text_linears(self.model)
        self.modules = dict(self.model.named_modules())
        self.parameters = dict(self.model.named_parameters(remove_duplicate=False))
        self.stored = self._stored_names()
        for name, stored in self.stored.items():
            self._check_shape(name, stored)
        missing = [name for name in self.linears if self.source(f"{name}.weight") is None]
        if missing:
            raise InputError(f"{folder}: no tensor {missing[0]}.weight in its files, expected by config.json")

    def module(self, name: str) -> str | None:
        """The model's module of that name, with the base model's prefix added or taken away, or None."""
        return next((spelling for spelling in self._spellings(name) if spelling in self.modules), None)

    def parameter(self, name: str) -> str | None:
        """The model's parameter of that name, with the base model's prefix added or taken away, or None."""
        return next((spelling for spelling in self._spellings(name) if spelling in self.parameters), None)

    def source(self, parameter: str) -> str | None:
        """The name in the files that holds a parameter: its own, or that of the parameter it is tied to."""
        if parameter in self.stored:
            return self.stored[parameter]
        tied = (self.stored[twin] for twin in self.twins(parameter) if twin in self.stored)
        return next(tied, None)

    def twins(self, parameter: str) -> list[str]:
        """The other names of the same parameter in memory."""
        mine = self.parameters.get(parameter)
        return [name for name, other in self.parameters.items() if other is mine and name != parameter]

    def read(self, parameter: str) -> Tensor:
        """A parameter as stored, in float32 or float64.

        Raises:
            InputError: not in the files, quantised, NaN or Inf.
        """
        source = self.source(parameter)
        if source is None:
            raise InputError(f"{self.folder}: no tensor {parameter} in its files")
        return self.tensors.read(source)

    def weight(self, module: str) -> Float[Tensor, "o i"]:
        """The weight of a linear layer as [o, i], or of an embedding as [h, vocabulary]."""
        return self.oriented(module, self.read(f"{module}.weight"))

    def oriented(self, module: str, weight: Tensor) -> Float[Tensor, "o i"]:
        """A weight as the module stores it, brought to [o, i]; an embedding maps a one-hot token [i] to its row [o]."""
        layer = self.modules[module]
        return weight.T if is_transposed(layer) or isinstance(layer, nn.Embedding) else weight

    def shape(self, module: str) -> tuple[int, int]:
        """(o, i) of `weight(module)`, without reading it."""
        o, i = self.oriented(module, self.parameters[f"{module}.weight"]).shape
        return o, i

    @cached_property
    def _prefix(self) -> str:
        return f"{getattr(self.model, 'base_model_prefix', '') or 'model'}."

    @cached_property
    def _renamings(self) -> list[WeightRenaming]:
        assert isinstance(self.model, PreTrainedModel)
        return [step for step in get_model_conversion_mapping(self.model) if isinstance(step, WeightRenaming)]

    def _spellings(self, name: str) -> tuple[str, str, str]:
        renamed, _ = rename_source_key(name, self._renamings, [])
        return renamed, self._prefix + renamed, renamed.removeprefix(self._prefix)

    def _stored_names(self) -> dict[str, str]:
        """Parameter name -> name in the files; unknown names are spelled the way that most known ones are."""
        known = {name: self.parameter(name) for name in self.tensors}
        if not any(known.values()):
            raise InputError(f"{self.folder}: no tensor in its files is a parameter of {type(self.model).__name__}")
        shifts = [self._spellings(name).index(parameter) for name, parameter in known.items() if parameter]
        usual = max(set(shifts), key=shifts.count)
        return {parameter or self._spellings(name)[usual]: name for name, parameter in known.items()}

    def _check_shape(self, name: str, source: str) -> None:
        stored = self.tensors[source]
        if name in self.parameters and stored.shape != tuple(self.parameters[name].shape):
            raise InputError(
                f"{stored.file}: tensor {source} is {list(stored.shape)} of {stored.dtype}, expected "
                f"{list(self.parameters[name].shape)} by config.json"
            )
