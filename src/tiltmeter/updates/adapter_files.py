"""The tensors of a PEFT LoRA adapter sorted by module, with everything that can be wrong about them checked."""

from pathlib import Path

from jaxtyping import Float
from torch import Tensor, float32, nn, promote_types

from tiltmeter.errors import InputError
from tiltmeter.layers import is_linear
from tiltmeter.updates.adapter_config import WAY_OUT, read_config, scales
from tiltmeter.updates.files import Reading, Tensors
from tiltmeter.updates.model_folder import ModelFolder

PREFIX = "base_model.model."
KINDS = (
    "lora_A.weight",
    "lora_B.weight",
    "lora_embedding_A",
    "lora_embedding_B",
    "lora_B.bias",
    "lora_magnitude_vector",
    "token_adapter.trainable_tokens_delta",
)


class AdapterFiles:
    """An adapter folder. Every tensor is read once in the beginning, so that a broken adapter is refused there.

    Args:
        folder: adapter_config.json and adapter_model.safetensors.
        io: how the files are read; see `Tensors`.

    Attributes:
        factors: modules with two factors -> the names of their two kinds.
        biases, tokens: modules with a bias of `lora_B`, with trained token rows.
        whole: key -> parameter, for what is saved as it is after training (`modules_to_save`, biases, embeddings).

    Raises:
        InputError: a folder that `check_folder` refuses, an unsupported configuration, keys of no known kind, a factor
            alone, factors that do not fit each other or the configured rank, NaN or Inf.
    """

    def __init__(self, folder: Path, io: Reading = "mmap") -> None:
        self.config = read_config(folder)
        self.tensors = Tensors(folder, "adapter_model", io)
        if not self.tensors:
            raise InputError(f"{folder}: the adapter holds no tensors")
        self.file = next(iter(self.tensors.values())).file
        self._keys: dict[str, dict[str, str]] = {}
        self.whole: dict[str, str] = {}
        self._sort_keys()
        self.factors = {module: pair for module, kinds in self._keys.items() if (pair := self._pair(module, kinds))}
        self.biases = self._modules_with("lora_B.bias")
        self.tokens = self._modules_with("token_adapter.trainable_tokens_delta")
        self._scales = scales(folder, self.config, list(self.factors))
        for module in self.factors:
            self._check_factors(module)
        for key in self.tensors:
            self.tensors.floats(key)

    def read(self, module: str, kind: str) -> Tensor:
        """One of a module's tensors, in float32 or float64."""
        return self.tensors.read(self._keys[module][kind])

    def scale(self, module: str) -> float:
        """The factor s of `s B A`."""
        return self._scales[module][1]

    def is_embedding(self, module: str) -> bool:
        """Does the module map token numbers instead of vectors?"""
        return self.factors[module][0] == "lora_embedding_A"

    def shape(self, module: str) -> tuple[int, int]:
        """(o, i) of the change of a module, from the headers; (h, vocabulary) of an embedding."""
        right, left = (self.tensors[self._keys[module][kind]].shape for kind in self.factors[module])
        return left[0], right[1]

    def scaled_factors(self, module: str) -> tuple[Float[Tensor, "o r"], Float[Tensor, "r i"]]:
        """(s B, A)."""
        right, left = (self.tensors.raw(self._keys[module][kind]) for kind in self.factors[module])
        wide = promote_types(promote_types(left.dtype, right.dtype), float32)
        return left.to(wide) * self.scale(module), right.to(wide)

    def check_against(self, base: ModelFolder) -> None:
        """Every key belongs to a module of the base, and every change has its shape.

        Raises:
            InputError: it names the keys that match nothing, or the first shape that does not fit.
        """
        lost = [key for module in self._keys if base.module(module) is None for key in self._keys[module].values()]
        lost += [key for key, parameter in self.whole.items() if base.parameter(parameter) is None]
        if lost:
            raise self._unmatched(lost, f"no module of {base.folder}")
        for module in self.factors:
            self._check_module(module, base)
        for key, parameter in self.whole.items():
            self._check_whole(key, base.parameters[base.parameter(parameter) or parameter].shape, base.folder)

    def _sort_keys(self) -> None:
        strange = []
        for key in self.tensors:
            name = key.removeprefix(PREFIX)
            kind = next((kind for kind in KINDS if name.endswith("." + kind)), None)
            if not key.startswith(PREFIX) or (kind is None and "lora_" in name):
                strange.append(key)
            elif kind is None:
                self.whole[key] = name.replace(".base_layer.", ".")
            else:
                self._keys.setdefault(name.removesuffix("." + kind), {})[kind] = key
        if strange:
            raise self._unmatched(strange, "nothing that PEFT would load")

    def _modules_with(self, kind: str) -> list[str]:
        return [module for module, kinds in self._keys.items() if kind in kinds]

    def _pair(self, module: str, kinds: dict[str, str]) -> tuple[str, str] | None:
        for right, left in (("lora_A.weight", "lora_B.weight"), ("lora_embedding_A", "lora_embedding_B")):
            if (right in kinds) != (left in kinds):
                there, lost = (right, left) if right in kinds else (left, right)
                raise InputError(f"{self.file}: module {module} has {there} but no {lost}")
            if right in kinds:
                return right, left
        if "token_adapter.trainable_tokens_delta" not in kinds:
            raise InputError(f"{self.file}: module {module} has {next(iter(kinds))} but no lora_A.weight")
        return None

    def _check_factors(self, module: str) -> None:
        right, left = (self.tensors[self._keys[module][kind]].shape for kind in self.factors[module])
        if len(right) != 2 or len(left) != 2:
            raise InputError(
                f"{self.file}: module {module} has factors {list(left)} and {list(right)}; only matrices are "
                f"supported, not convolutions: {WAY_OUT}"
            )
        rank = self._scales[module][0]
        if right[0] != rank or left[1] != rank:
            raise InputError(
                f"{self.file}: module {module} has factors {list(left)} and {list(right)}, expected rank {rank} by "
                "adapter_config.json"
            )
        magnitude = self._keys[module].get("lora_magnitude_vector")
        if (magnitude is not None) != self.config.use_dora:
            raise InputError(
                f"{self.file}: module {module} has {'a' if magnitude else 'no'} lora_magnitude_vector, but use_dora is "
                f"{self.config.use_dora}"
            )
        self._check_vector(module, "lora_magnitude_vector")
        self._check_vector(module, "lora_B.bias")

    def _check_vector(self, module: str, kind: str) -> None:
        key, o = self._keys[module].get(kind), self.shape(module)[0]
        if key is not None and self.tensors[key].shape != (o,):
            raise InputError(f"{self.file}: {key} is {list(self.tensors[key].shape)}, expected [{o}]")

    def _check_module(self, module: str, base: ModelFolder) -> None:
        name = base.module(module) or module
        layer = base.modules[name]
        if not (isinstance(layer, nn.Embedding) if self.is_embedding(module) else is_linear(layer)):
            raise InputError(
                f"{self.file}: module {module} is a {type(layer).__name__} in {base.folder}, expected "
                f"{'an embedding' if self.is_embedding(module) else 'a linear layer'}: {WAY_OUT}"
            )
        if self.shape(module) != base.shape(name):
            raise InputError(
                f"{self.file}: module {module} changes {list(self.shape(module))}, expected {list(base.shape(name))} "
                f"as in {base.folder}"
            )

    def _check_whole(self, key: str, expected: tuple[int, ...], folder: Path) -> None:
        stored = self.tensors[key]
        if stored.shape != tuple(expected):
            raise InputError(f"{stored.file}: {key} is {list(stored.shape)}, expected {list(expected)} as in {folder}")

    def _unmatched(self, keys: list[str], what: str) -> InputError:
        more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
        return InputError(f"{self.file}: keys that match {what}: {', '.join(keys[:3])}{more}")
