"""What a PEFT LoRA adapter in memory changes, by the names of the base's modules and parameters.

Written against peft 0.21: `tuners/lora/{layer,variants}.py`, `utils/other.py`.
"""

from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.variants import DoraLinearVariant
from peft.tuners.trainable_tokens import TrainableTokensLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper, ModulesToSaveWrapper
from torch import Tensor, nn

from tiltmeter.errors import InputError
from tiltmeter.layers import is_linear, is_transposed, weight_of
from tiltmeter.updates.delta import Delta, Dense, LowRank

Read = Callable[[Tensor], Tensor]
Part = Callable[[], Delta]
Named = Iterator[tuple[str, Part]]


def walk(module: nn.Module) -> Iterator[tuple[str, nn.Module, nn.Module | None]]:
    """Every module of the base by its name, with the PEFT layer around it or None; no module twice."""
    seen: set[int] = set()
    for name, layer, around in _walk(module, "", None):
        if id(layer) not in seen:
            seen.add(id(layer))
            yield name, layer, around


def adapters(module: nn.Module) -> dict[str, nn.Module]:
    """The PEFT layers of a model, by the name of the base's module that each stands around.

    Raises:
        InputError: an adapter whose effective change is not `s B A` or DoRA's, a quantised base.
    """
    found = {name: around for name, layer, around in walk(module) if around is not None and layer is around_of(around)}
    for name, layer in found.items():
        _check(name, layer)
    return found


def around_of(layer: nn.Module) -> nn.Module:
    """The base's module inside a PEFT layer."""
    inside = layer.get_base_layer() if isinstance(layer, BaseTunerLayer) else layer.original_module
    assert isinstance(inside, nn.Module)
    return inside


def own_parameters(layer: nn.Module) -> set[int]:
    """ids of the parameters that PEFT added."""
    base = {id(parameter) for parameter in around_of(layer).parameters()}
    return {id(parameter) for parameter in layer.parameters()} - base


@contextmanager
def disabled(layers: Iterable[nn.Module]) -> Iterator[None]:
    """The adapters stand aside; whether a parameter takes gradients is as before afterwards."""
    switched = [layer for layer in layers if not layer.disable_adapters]
    flags = [(each, each.requires_grad) for layer in switched for each in layer.parameters()]
    try:
        for layer in switched:
            _enable(layer, False)
        yield
    finally:
        for layer in switched:
            _enable(layer, True)
        for parameter, takes in flags:
            parameter.requires_grad_(takes)


def linear_changes(name: str, layer: nn.Module, now: Read, start: Read | None) -> Named:
    """The changes of linear modules that a PEFT layer makes: `(module, change [o, i])`, computed when called.

    Args:
        name: of the base's module.
        layer: the PEFT layer around it.
        now: reads a parameter as it is.
        start: reads a parameter as it was, where the adapter's start is part of the base (PiSSA); else None.
    """
    if isinstance(layer, ModulesToSaveWrapper):
        for path, old, new in _replaced(name, layer):
            if is_linear(old):
                yield path, partial(_replacement, old, new, now)
    elif isinstance(layer, LoraLayer) and is_linear(around_of(layer)):
        for adapter in _active(layer, layer.lora_A):
            yield name, partial(_lora, layer, adapter, now, start)


def other_changes(name: str, layer: nn.Module, now: Read, start: Read | None) -> Named:
    """The changes of anything else: `(parameter, change)`, as matrices of any orientation."""
    if isinstance(layer, ModulesToSaveWrapper):
        yield from _other_replacements(name, layer, now)
    elif isinstance(layer, AuxiliaryTrainingWrapper):
        yield from _tokens(name, layer.token_adapter, now)
    elif isinstance(layer, TrainableTokensLayer):
        yield from _tokens(name, layer, now)
    elif isinstance(layer, LoraLayer):
        for adapter in _active(layer, layer.lora_embedding_A):
            yield f"{name}.weight", partial(_lora_embedding, layer, adapter, now, start)
        for adapter in _active(layer, layer.lora_B):
            if layer.lora_B[adapter].bias is not None:
                yield f"{name}.bias", partial(_lora_bias, layer, adapter, now)


def _walk(module: nn.Module, name: str, around: nn.Module | None) -> Iterator[tuple[str, nn.Module, nn.Module | None]]:
    if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper):
        around, module = module, around_of(module)
    yield name, module, around
    for child_name, child in module.named_children():
        yield from _walk(child, f"{name}.{child_name}" if name else child_name, around)


def _check(name: str, layer: nn.Module) -> None:
    if isinstance(layer, AuxiliaryTrainingWrapper | TrainableTokensLayer):
        return
    base = around_of(layer)
    if not isinstance(layer, LoraLayer) or not (is_linear(base) or isinstance(base, nn.Embedding)):
        raise InputError(f"module {name}: expected LoRA on a linear layer or an embedding, found {_kind(layer)}")
    if not weight_of(base).is_floating_point():
        raise InputError(f"module {name}: the base is quantised ({_kind(base)}), expected floating point weights")
    variants = [variant for adapter, variant in layer.lora_variant.items() if adapter in layer.active_adapters]
    odd = [variant for variant in variants if type(variant) is not DoraLinearVariant]
    if odd:
        raise InputError(f"module {name}: expected plain LoRA or DoRA on a linear layer, found {type(odd[0]).__name__}")


def _kind(layer: nn.Module) -> str:
    return f"{type(layer).__module__}.{type(layer).__name__}"


def _enable(layer: nn.Module, enabled: bool) -> None:
    layer.enable_adapters(enabled)  # type: ignore[operator]  # nn.Module's __getattr__ may be a Tensor


def _active(layer: nn.Module, held: Container[str]) -> list[str]:
    return [adapter for adapter in layer.active_adapters if adapter in held]  # type: ignore[union-attr]


def _lora(layer: LoraLayer, adapter: str, now: Read, start: Read | None) -> Delta:
    if adapter in layer.lora_variant:
        weight = wide(_oriented(around_of(layer), now(weight_of(around_of(layer)))))
        return Dense(_dora(layer, adapter, weight, now) - weight)
    left, right = _factors(layer, adapter, now)
    if start is None:
        return LowRank(left, right)
    left0, right0 = _factors(layer, adapter, start)
    if torch.equal(left, left0) and torch.equal(right, right0):
        left, left0 = torch.zeros_like(left), torch.zeros_like(left0)  # exactly zero, not up to rounding
    return LowRank(torch.cat([left, -left0], dim=1), torch.cat([right, right0]))


def _factors(layer: LoraLayer, adapter: str, read: Read) -> tuple[Tensor, Tensor]:
    left, right = (wide(read(factor[adapter].weight)) for factor in (layer.lora_B, layer.lora_A))
    return left * layer.scaling[adapter], right


def _dora(layer: LoraLayer, adapter: str, weight: Tensor, read: Read) -> Tensor:
    """`m V/||V||_row` with `V = W + s B A`."""
    left, right = _factors(layer, adapter, read)
    total = weight + left @ right
    magnitude = wide(read(layer.lora_magnitude_vector[adapter].weight))
    rows: Tensor = torch.linalg.vector_norm(total, dim=1)
    return (magnitude / rows)[:, None] * total


def _lora_embedding(layer: LoraLayer, adapter: str, now: Read, start: Read | None) -> Delta:
    def change(read: Read) -> Tensor:
        B, A = (wide(read(factors[adapter])) for factors in (layer.lora_embedding_B, layer.lora_embedding_A))
        return B @ A

    change_now = change(now) if start is None else change(now) - change(start)
    return Dense(change_now * layer.scaling[adapter])


def _lora_bias(layer: LoraLayer, adapter: str, now: Read) -> Delta:
    return Dense(wide(now(layer.lora_B[adapter].bias))[None] * layer.scaling[adapter])


def _replaced(name: str, layer: ModulesToSaveWrapper) -> Iterator[tuple[str, nn.Module, nn.Module]]:
    """The modules inside `modules_to_save` as `(name in the base, the base's, the trained one)`."""
    for adapter in _active(layer, layer.modules_to_save):
        trained = layer.modules_to_save[adapter]
        for path, old in layer.original_module.named_modules():
            yield f"{name}.{path}" if path else name, old, trained.get_submodule(path)


def _replacement(old: nn.Module, new: nn.Module, now: Read) -> Delta:
    return Dense(_oriented(old, wide(now(weight_of(new))) - wide(now(weight_of(old)))))


def _other_replacements(name: str, layer: ModulesToSaveWrapper, now: Read) -> Named:
    for path, old, new in _replaced(name, layer):
        for kind, parameter in old.named_parameters(recurse=False):
            if not (is_linear(old) and kind == "weight"):
                yield f"{path}.{kind}", partial(_difference, new.get_parameter(kind), parameter, now)


def _difference(new: nn.Parameter, old: nn.Parameter, now: Read) -> Delta:
    return Dense((wide(now(new)) - wide(now(old))).reshape(1, -1))


def _tokens(name: str, layer: TrainableTokensLayer, now: Read) -> Named:
    for adapter in _active(layer, layer.trainable_tokens_delta):
        yield f"{name}.weight", partial(_token_rows, layer, adapter, now)


def _token_rows(layer: TrainableTokensLayer, adapter: str, now: Read) -> Delta:
    old = now(weight_of(layer.get_base_layer()))[layer.token_indices[adapter]]
    return Dense(wide(now(layer.trainable_tokens_delta[adapter])) - wide(old))


def _oriented(layer: nn.Module, weight: Tensor) -> Tensor:
    return weight.T if is_transposed(layer) else weight


def wide(tensor: Tensor) -> Tensor:
    """A copy in float32, or float64 where it is stored so."""
    return tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32), copy=True)
