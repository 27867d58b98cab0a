"""What a training run moves: the weights themselves, or the factors of an adapter. Points are flat vectors [P]."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from jaxtyping import Float
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from tiltmeter.curvature.coordinates import working_dtype
from tiltmeter.errors import InputError
from tiltmeter.layers import block_index, is_transposed, weight_of
from tiltmeter.models import Model
from tiltmeter.updates.update import Update

# Initialisations that start at B = 0 and leave the base as it is.
PLAIN_STARTS = (True, "gaussian", "orthogonal")


class TrainingSpace(ABC):
    """The parameters that learn, by name; a vector [P] holds a change of all of them, one after the other.

    Attributes:
        model: the model that they belong to.
        parameters: name -> parameter.
    """

    def __init__(self, model: Model, parameters: Mapping[str, nn.Parameter]) -> None:
        self.model, self.parameters = model, parameters

    def __len__(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters.values())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.parameters)} parameters, {len(self)} numbers)"

    @property
    def dtype(self) -> torch.dtype:
        """Of vectors: at least float32."""
        return working_dtype(self.model.module.dtype)

    def split(self, vector: Float[Tensor, " P"]) -> dict[str, Tensor]:
        """The vector's part for each parameter, in its shape."""
        parts = vector.split([parameter.numel() for parameter in self.parameters.values()])
        return {
            name: part.view_as(parameter)
            for part, (name, parameter) in zip(parts, self.parameters.items(), strict=True)
        }

    def join(self, tensors: Mapping[str, Tensor | None]) -> Float[Tensor, " P"]:
        """One vector of tensors by parameter name; zeros for what is missing."""
        return torch.cat(
            [
                torch.zeros(parameter.numel(), dtype=self.dtype, device=parameter.device)
                if (tensor := tensors.get(name)) is None
                else tensor.detach().reshape(-1).to(self.dtype)
                for name, parameter in self.parameters.items()
            ]
        )

    @contextmanager
    def moved(self, change: Float[Tensor, " P"]) -> Iterator[None]:
        """The model with its parameters changed by a vector; afterwards they are as before, bit for bit."""
        with self.restored(), torch.no_grad():
            for part, parameter in zip(self.split(change).values(), self.parameters.values(), strict=True):
                parameter.add_(part.to(parameter))
            with torch.enable_grad():
                yield

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Whatever happens to the parameters inside, afterwards they are as before."""
        before = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in self.parameters.items():
                    parameter.copy_(before[name])

    @abstractmethod
    def tangent(self, change: Float[Tensor, " P"]) -> Update:
        """The first-order change of the linear modules' weights."""

    @abstractmethod
    def displacement(self, change: Float[Tensor, " P"]) -> Update:
        """The whole change of the linear modules' weights."""


class WeightSpace(TrainingSpace):
    """Full fine-tuning: the weights of the linear modules inside the blocks."""

    def tangent(self, change: Float[Tensor, " P"]) -> Update:
        parts = self.split(change).items()
        transposed = {name: is_transposed(self.model.linears[name]) for name in self.parameters}
        return Update.from_tensors({name: part.T if transposed[name] else part for name, part in parts})

    def displacement(self, change: Float[Tensor, " P"]) -> Update:
        return self.tangent(change)

    def vector(self, update: Update) -> Float[Tensor, " P"]:
        """An update as a vector; modules that it leaves alone are zero.

        Raises:
            InputError: modules that are not in this space.
        """
        unknown = [name for name in update if name not in self.parameters]
        if unknown:
            raise InputError(f"the update has modules that do not learn here: {unknown[:4]}")
        dense = {name: delta.dense().to(self.parameters[name].device) for name, delta in update.items()}
        return self.join({n: d.T if is_transposed(self.model.linears[n]) else d for n, d in dense.items()})


class AdapterSpace(TrainingSpace):
    """LoRA: the factors A and B of every adapted module, at their initial values. `dW = scale B A`, and B starts at 0.

    The first-order change is `scale (dB A + B dA)`, so that at the start only B's change counts.
    """

    def __init__(self, model: Model, layers: Mapping[str, LoraLayer], adapter: str) -> None:
        self._layers, self._adapter = layers, adapter
        parameters = {}
        for name, layer in layers.items():
            parameters[f"{name}.A"] = _factor(layer.lora_A[adapter])
            parameters[f"{name}.B"] = _factor(layer.lora_B[adapter])
        super().__init__(model, parameters)

    def tangent(self, change: Float[Tensor, " P"]) -> Update:
        def pair(A: Tensor, B: Tensor, dA: Tensor, dB: Tensor) -> tuple[Tensor, Tensor]:
            if not B.any():  # as at the start: half the rank
                return dB, A
            return torch.cat([dB, B], 1), torch.cat([A, dA])

        return self._update(change, pair)

    def displacement(self, change: Float[Tensor, " P"]) -> Update:
        def pair(A: Tensor, B: Tensor, dA: Tensor, dB: Tensor) -> tuple[Tensor, Tensor]:
            if not B.any():
                return dB, A + dA
            return torch.cat([B + dB, -B], 1), torch.cat([A + dA, A])

        return self._update(change, pair)

    def _update(
        self, change: Tensor, pair: Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
    ) -> Update:
        parts = self.split(change)
        factors = {}
        for name, layer in self._layers.items():
            A, B = (self.parameters[f"{name}.{factor}"].detach().to(self.dtype) for factor in "AB")
            left, right = pair(A, B, parts[f"{name}.A"], parts[f"{name}.B"])
            factors[name] = (left * layer.scaling[self._adapter], right)
        return Update.from_tensors(factors)


@contextmanager
def weight_space(model: Model) -> Iterator[WeightSpace]:
    """The space of full fine-tuning; a weight that two modules share counts once. Other parameters stand still."""
    weights: dict[int, tuple[str, nn.Parameter]] = {}
    for name, layer in model.linears.items():
        weight = weight_of(layer)
        if block_index(name, model.blocks) is not None and isinstance(weight, nn.Parameter):
            weights.setdefault(id(weight), (name, weight))
    parameters = dict(weights.values())
    with _flags_kept(model.module):
        _learn(model.module, parameters)
        yield WeightSpace(model, parameters)


@contextmanager
def adapter_space(model: Model, config: LoraConfig, seed: int = 0) -> Iterator[AdapterSpace]:
    """The space of a LoRA adapter, put on the model for as long as the context lasts.

    Args:
        model: the base; its linear layers stay the ones under `model.linears`.
        config: PEFT's; plain LoRA (any rank, alpha, targets, rank and alpha patterns, rsLoRA).
        seed: of the initial A.

    Raises:
        InputError: a kind of adapter whose flow is not that of `W + scale B A` with B = 0.
    """
    _check_plain(config)
    names = {id(layer): name for name, layer in model.linears.items()}
    with _flags_kept(model.module):
        adapted = _adapted(model, config, seed)
        try:
            layers = {
                names[id(layer.base_layer)]: layer
                for layer in adapted.modules()
                if isinstance(layer, LoraLayer) and id(layer.base_layer) in names
            }
            space = AdapterSpace(model, layers, adapted.active_adapter)
            _learn(model.module, space.parameters)
            yield space
        finally:
            adapted.unload()


def _adapted(model: Model, config: LoraConfig, seed: int) -> PeftModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            adapted = get_peft_model(model.module, config)
        except ValueError as error:
            raise InputError(f"adapter configuration: {error}") from error
    model.module.eval()
    return adapted


def _check_plain(config: LoraConfig) -> None:
    for field in ("use_dora", "lora_bias", "modules_to_save", "trainable_token_indices", "target_parameters"):
        if getattr(config, field, None):
            raise InputError(f"adapter configuration: {field} is set, expected plain LoRA (factors A and B only)")
    if config.bias != "none":
        raise InputError(f"adapter configuration: bias={config.bias!r} trains biases, expected 'none'")
    if config.init_lora_weights not in PLAIN_STARTS:
        raise InputError(
            f"adapter configuration: init_lora_weights={config.init_lora_weights!r}, expected one of {PLAIN_STARTS}: "
            "others change the base"
        )


def _factor(layer: nn.Module) -> nn.Parameter:
    weight = layer.weight
    assert isinstance(weight, nn.Parameter)
    return weight


def _learn(module: nn.Module, parameters: Mapping[str, nn.Parameter]) -> None:
    """Only these parameters take gradients."""
    ours = {id(parameter) for parameter in parameters.values()}
    for parameter in module.parameters():
        parameter.requires_grad_(id(parameter) in ours)


@contextmanager
def _flags_kept(module: nn.Module) -> Iterator[None]:
    """Whatever happens inside, the module's parameters take gradients afterwards if they did before."""
    before = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    try:
        yield
    finally:
        for parameter, took in before:
            parameter.requires_grad_(took)
