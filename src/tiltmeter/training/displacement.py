"""What a model in training has moved since the start, and the model as it was."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial, reduce
from pathlib import Path

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tiltmeter.errors import InputError
from tiltmeter.layers import find_blocks, is_linear, is_transposed, weight_of
from tiltmeter.models import Model
from tiltmeter.training import adapted
from tiltmeter.training.adapted import wide
from tiltmeter.training.held import HeldWeights
from tiltmeter.updates.adapter_config import CHANGES_THE_BASE
from tiltmeter.updates.delta import Delta, Dense, add
from tiltmeter.updates.model_folder import ModelFolder
from tiltmeter.updates.update import Update

KIND = "displacement"


class Displacement:
    """`theta - theta_0` of a model in training.

    Full fine-tuning: theta_0 is the model at the time of this call; the weights that train are copied to host memory.
    LoRA: theta_0 is the base under the adapter, of which nothing is copied. Where the adapter's initialisation changed
    the base (PiSSA, OLoRA, CorDA, LoRA-GA, LoftQ), theta_0 is base and adapter together at the time of this call.

    Args:
        module: a transformers model, plain or with a PEFT LoRA adapter, also wrapped by DistributedDataParallel or
            torch.compile.
        tokenizer: its tokenizer.
        base: a model's folder; in full fine-tuning its weights are theta_0, in the place of the model's own.

    Attributes:
        model: the model under its base's names: `linears` are the layers that hold the weights, under the adapters.
        is_adapted: an adapter trains.
        has_exact_gradients: at the present weights, the output gradients of `model.linears` are those of the merged
            weights; not so under DoRA, which scales what the layer puts out.

    Raises:
        InputError: an adapter that is no LoRA or DoRA, a quantised or sharded model, a base that does not fit.
    """

    def __init__(self, module: nn.Module, tokenizer: PreTrainedTokenizerBase, base: Path | None = None) -> None:
        whole = unwrapped(module)
        inside = whole.get_base_model() if isinstance(whole, PeftModel) else whole
        if not isinstance(inside, PreTrainedModel):
            raise InputError(f"expected a transformers model, got {type(inside).__name__}")
        _check_whole(inside)
        layers = [(name, layer) for name, layer, _ in adapted.walk(inside)]
        linears = {name: layer for name, layer in layers if is_linear(layer)}
        self.model = Model(inside, tokenizer, find_blocks(inside), linears)
        self._adapters = adapted.adapters(inside)
        self._starts_changed = bool(self._adapters) and _changes_the_base(whole)
        if self._starts_changed and not self.has_exact_gradients:
            raise InputError("DoRA together with an initialisation that changes the base is not supported")
        self._own = {each for layer in self._adapters.values() for each in adapted.own_parameters(layer)}
        self._held = HeldWeights({name: parameter for name, parameter in self._moving()})
        if base is not None:
            _load(self._held, ModelFolder(base))

    @property
    def is_adapted(self) -> bool:
        return bool(self._adapters)

    @property
    def has_exact_gradients(self) -> bool:
        return not any(getattr(layer, "lora_magnitude_vector", None) for layer in self._adapters.values())

    def concerns(self, module: nn.Module) -> bool:
        """Is it about this model, wrapped or not?"""
        whole = unwrapped(module)
        return (whole.get_base_model() if isinstance(whole, PeftModel) else whole) is self.model.module

    @property
    def is_kept(self) -> bool:
        """Are there weights of theta_0 in host memory, so that it matters when they were taken?"""
        return bool(self._held.parameters)

    def fingerprint(self) -> str:
        """sha256 of what is kept of theta_0 in host memory."""
        return self._held.fingerprint()

    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that take gradients, by name."""
        return {name: each for name, each in self.model.module.named_parameters() if each.requires_grad}

    def update(self) -> Update:
        """The effective change of every linear module, [o, i] in float32 or float64, by the base's module names.

        In factors for LoRA, scale included; dense for DoRA, `modules_to_save` and full fine-tuning. What else changed
        is in `not_covered` by parameter name, a weight tied to the embedding too; of layers that share one weight, the
        first is listed. A module's change is computed when it is asked for, from the weights of that moment: call
        `loaded()` to keep it.
        """
        parts = dict[str, list[Callable[[], Delta]]]()
        for name, part in self._linear_changes():
            parts.setdefault(name, []).append(part)
        others = dict[str, list[float]]()
        for name, part in self._other_changes():
            others.setdefault(name, []).append(part().norm())
        norms = {name: math.hypot(*found) for name, found in others.items() if any(found)}
        return Update({name: partial(_total, each) for name, each in parts.items()}, KIND, norms)

    @contextmanager
    def at_base(self) -> Iterator[None]:
        """The model computes as theta_0 in eval mode; afterwards everything is as before, bit for bit."""
        with ExitStack() as stack:
            stack.enter_context(self.at_present())
            if not self._starts_changed:
                stack.enter_context(adapted.disabled(self._adapters.values()))
            stack.enter_context(self._held.exchanged())
            yield

    @contextmanager
    def at_present(self) -> Iterator[None]:
        """The model computes as it is, in eval mode, in its own precision and without what wraps its forward pass.

        Afterwards each module's mode and the random numbers to come are as before.
        """
        module = self.model.module
        modes = [(each, each.training) for each in module.modules()]
        devices = [module.device] if module.device.type == "cuda" else []
        with ExitStack() as stack:
            stack.enter_context(torch.random.fork_rng(devices=devices))
            stack.callback(_set_modes, modes)
            stack.enter_context(_bare_forward(module))
            module.eval()
            yield

    def _moving(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What is kept of theta_0: all that trains, but for adapters that can be switched off."""
        for name, parameter in self.trained().items():
            if self._starts_changed or id(parameter) not in self._own:
                yield name, parameter

    def _linear_changes(self) -> Iterator[tuple[str, Callable[[], Delta]]]:
        start = self._held.held if self._starts_changed else None
        for name, layer in self._adapters.items():
            yield from adapted.linear_changes(name, layer, self._held.present, start)
        for name, layer in self._moving_linears().items():
            yield name, partial(self._dense, layer)

    def _other_changes(self) -> Iterator[tuple[str, Callable[[], Delta]]]:
        start = self._held.held if self._starts_changed else None
        for name, layer in self._adapters.items():
            yield from adapted.other_changes(name, layer, self._held.present, start)
        covered = {id(weight_of(layer)) for layer in self._moving_linears().values()}
        for name, parameter in self._held.parameters.items():
            if id(parameter) not in covered | self._own:
                yield _base_name(name), partial(self._flat, parameter)

    def _moving_linears(self) -> dict[str, nn.Module]:
        embedding = self.model.module.get_input_embeddings()
        taken = {id(parameter) for parameter in embedding.parameters()}
        found = {}
        for name, layer in self.model.linears.items():
            weight = weight_of(layer)
            if weight in self._held and id(weight) not in taken:
                taken.add(id(weight))
                found[name] = layer
        return found

    def _dense(self, layer: nn.Module) -> Delta:
        change = self._change(weight_of(layer))
        return Dense(change.T if is_transposed(layer) else change)

    def _flat(self, parameter: nn.Parameter) -> Delta:
        return Dense(self._change(parameter).reshape(1, -1))

    def _change(self, parameter: Tensor) -> Tensor:
        return wide(self._held.present(parameter)) - wide(self._held.held(parameter))


def unwrapped(module: nn.Module) -> nn.Module:
    """The model inside DistributedDataParallel and torch.compile.

    Raises:
        InputError: a model whose weights are spread over processes.
    """
    if type(module).__name__ in ("FullyShardedDataParallel", "DeepSpeedEngine"):
        raise InputError(f"the model's weights are spread over processes ({type(module).__name__}): use plain DDP")
    for attribute in ("module", "_orig_mod"):
        inside = getattr(module, attribute, None)
        if isinstance(inside, nn.Module) and not isinstance(module, PreTrainedModel):
            return unwrapped(inside)
    return module


def _check_whole(module: nn.Module) -> None:
    for name, parameter in module.named_parameters():
        if hasattr(parameter, "ds_id") or hasattr(parameter, "device_mesh"):
            raise InputError(f"parameter {name}: its values are spread over processes (FSDP, ZeRO-3): use plain DDP")


def _changes_the_base(module: nn.Module) -> bool:
    configs: Iterable[object] = getattr(module, "peft_config", {}).values()
    kinds = [str(getattr(config, "init_lora_weights", "")).lower() for config in configs]
    return any(kind.startswith(CHANGES_THE_BASE) for kind in kinds)


def _load(held: HeldWeights, base: ModelFolder) -> None:
    """Put a folder's weights in the place of those held."""
    for name, parameter in held.parameters.items():
        spelled = base.parameter(_base_name(name))
        if spelled is None:
            raise InputError(f"{base.folder}: has no parameter {name} of the model that trains")
        value = base.read(spelled)
        if value.shape != parameter.shape:
            raise InputError(
                f"{base.folder}: parameter {name} is {list(value.shape)}, expected {list(parameter.shape)}"
            )
        held.put(parameter, value)


def _base_name(parameter: str) -> str:
    return parameter.replace(".base_layer.", ".").replace(".original_module.", ".")


def _total(parts: list[Callable[[], Delta]]) -> Delta:
    return reduce(add, (part() for part in parts))


def _set_modes(modes: list[tuple[nn.Module, bool]]) -> None:
    for module, mode in modes:
        module.training = mode


@contextmanager
def _bare_forward(module: nn.Module) -> Iterator[None]:
    """Without a forward of the instance's own: autocast by accelerate, a fused head. Placement by accelerate stays."""
    own = None if "_hf_hook" in module.__dict__ else module.__dict__.pop("forward", None)
    try:
        yield
    finally:
        if own is not None:
            module.__dict__["forward"] = own
