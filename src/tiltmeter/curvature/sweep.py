"""One forward and backward pass over a skill in which every linear module shows its inputs and output gradients."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tiltmeter.errors import InputError
from tiltmeter.layers import weight_of
from tiltmeter.likelihood import batch_log_likelihoods
from tiltmeter.models import Model
from tiltmeter.tokens import Batch

# What a module shows of a batch: its place in batch order, inputs a [B, T, i] and gradients delta [B, T, o] of outputs.
Observer = Callable[[slice, Tensor, Tensor], None]
Layers = Sequence[nn.Module]


def sweep(
    model: Model,
    batches: Iterable[Batch],
    layers: Mapping[str, Layers],
    observers: Mapping[str, Sequence[Observer]],
    weight: Callable[[Batch], Float[Tensor, " B"]],
) -> None:
    """Shows `(place, a, delta)` of every module in `observers` for every batch.

    `delta` is the gradient of `sum_n weight_n log pi(y_n|x_n)`. All weights are frozen meanwhile, so that backward
    computes gradients of activations only, and only behind the first observed module. A module that is called more
    than once per forward, or stands under two names, shows each call.
    """
    with ExitStack() as stack:
        stack.enter_context(frozen(model.module))
        state = _State()
        for name, watching in observers.items():
            for layer in layers[name]:
                handle = layer.register_forward_hook(partial(_forward_hook, state, name, watching))
                stack.callback(handle.remove)
        for batch in batches:
            state.batch = batch
            with torch.enable_grad():
                values = batch_log_likelihoods(model.module, batch)
                (values * weight(batch).to(values)).sum().backward()


def per_token(x: Tensor, batch: Batch) -> Float[Tensor, "B T w"] | None:
    """Activations as [B, T, width], or None where they are not one row a token (routed subsets, say)."""
    count, length = batch.ids.shape
    if x.numel() != count * length * x.shape[-1]:
        return None
    return x.reshape(count, length, x.shape[-1])


class _State:
    """The batch that is under way."""

    batch: Batch


def _forward_hook(
    state: _State, name: str, watching: Sequence[Observer], _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor
) -> Tensor:
    if not output.requires_grad:  # the first observed module: gradients start here
        output = output.detach().requires_grad_().clone()
    a = per_token(inputs[0].detach(), state.batch)
    if a is None:  # a router may send all tokens of `coverage`'s example to one expert, but not of every other
        raise InputError(f"module {name}: called on a routed subset of the tokens; leave it out (modules=...)")

    def backward_hook(delta: Tensor) -> None:
        spread = per_token(delta, state.batch)
        assert spread is not None
        for observe in watching:
            observe(state.batch.place, a, spread)

    output.register_hook(backward_hook)
    return output


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """No parameter takes a gradient meanwhile."""
    """No parameter takes a gradient meanwhile."""
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


def coverage(
    model: Model, batch: Batch, names: Sequence[str]
) -> tuple[dict[str, list[nn.Module]], dict[str, int], dict[str, str]]:
    """Which of the linear modules can be measured, found by one forward pass.

    Returns:
        Layers by name (several where two modules share one weight, which then counts once, under the first name), their
        calls in a forward pass by the same names, and the reason by name for the modules that cannot be measured.
    """
    calls: dict[str, int] = dict.fromkeys(names, 0)
    routed: set[str] = set()

    def count(name: str, _: nn.Module, inputs: tuple[Tensor, ...], __: Tensor) -> None:
        calls[name] += 1
        if per_token(inputs[0], batch) is None:
            routed.add(name)

    with ExitStack() as stack, torch.no_grad():
        for name in names:
            stack.callback(model.linears[name].register_forward_hook(partial(count, name)).remove)
        batch_log_likelihoods(model.module, batch)
    reasons = {name: "not called in the forward pass" for name in names if not calls[name]}
    reasons |= {name: "called on a routed subset of the tokens" for name in routed}
    reasons |= {name: "its weight is the input embedding's too" for name in names if _is_embedding(model, name)}
    layers: dict[str, list[nn.Module]] = {}
    owners: dict[int, str] = {}
    calls_of: dict[str, int] = {}
    for name in names:
        if name not in reasons:
            owner = owners.setdefault(id(weight_of(model.linears[name])), name)
            layers.setdefault(owner, []).append(model.linears[name])
            calls_of[owner] = calls_of.get(owner, 0) + calls[name]
    if not layers:
        raise InputError(f"no linear module can be measured: {reasons}")
    return layers, calls_of, reasons


def _is_embedding(model: Model, name: str) -> bool:
    return weight_of(model.linears[name]) is weight_of(model.module.get_input_embeddings())
