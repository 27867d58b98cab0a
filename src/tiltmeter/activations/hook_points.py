"""Where hidden states are read and changed: one place for both, found by structure."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, TypeAlias, get_args

from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tiltmeter.errors import InputError
from tiltmeter.models import Model

Place: TypeAlias = Literal["output", "input", "attention", "mlp"]
PLACES: tuple[Place, ...] = get_args(Place)
Visit: TypeAlias = Callable[[Float[Tensor, "B T d"]], Float[Tensor, "B T d"] | None]


@contextmanager
def visiting(model: Model, visits: Mapping[str, Visit], place: Place = "output") -> Iterator[None]:
    """While it lasts, each pass of the model shows `visits` the hidden states of their blocks.

    Args:
        model: its blocks are known by name.
        visits: block -> a function of the hidden states [B, T, d]; what it returns takes their place, None leaves them.
        place: "output" of the block: the residual stream behind it, before any final norm; its "input"; or what its
            "attention" or "mlp" module returns (before a norm that may follow it).

    Several contexts may be open: each sees what those opened before it made of the states. The model is as it was
    afterwards, also when an exception passes.

    Raises:
        InputError: no such block, or a block without such a part.
    """
    parts = [(_part(model, block, place), visit) for block, visit in visits.items()]
    with ExitStack() as stack:
        for part, visit in parts:
            stack.callback(_attach(part, visit, place).remove)
        yield


def chosen_blocks(model: Model, chosen: list[int] | None = None) -> list[str]:
    """Names of blocks by their indices, negative ones from the end; all where none is given.

    Raises:
        InputError: no such index.
    """
    names = list(model.blocks)
    for index in chosen or ():
        if not -len(names) <= index < len(names):
            raise InputError(f"block {index}: the model has blocks 0 to {len(names) - 1}")
    return names if chosen is None else [names[index] for index in chosen]


def _attach(part: nn.Module, visit: Visit, place: Place) -> RemovableHandle:
    if place == "input":
        return part.register_forward_pre_hook(lambda _, args, kwargs: _before(args, kwargs, visit), with_kwargs=True)
    return part.register_forward_hook(lambda _, args, output: _after(output, visit))


def _after(output: Any, visit: Visit) -> Any:
    """Blocks return a tensor, or a tuple that begins with it."""
    hidden = output if isinstance(output, Tensor) else output[0]
    changed = visit(hidden)
    if changed is None:
        return None
    return changed if isinstance(output, Tensor) else (changed, *output[1:])


def _before(args: tuple[Any, ...], kwargs: dict[str, Any], visit: Visit) -> Any:
    changed = visit(args[0] if args else kwargs["hidden_states"])
    if changed is None:
        return None
    return ((changed, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": changed})


def _part(model: Model, block: str, place: Place) -> nn.Module:
    if block not in model.blocks:
        raise InputError(f"no block {block!r}: expected one of {', '.join(model.blocks)}")
    module = model.blocks[block]
    if place in ("output", "input"):
        return module
    found = [child for child in module.children() if _has_matrices(child) and _attends(child) == (place == "attention")]
    if len(found) != 1:
        raise InputError(f"{block}: expected one {place} module with weight matrices, found {len(found)}")
    return found[0]


def _has_matrices(module: nn.Module) -> bool:
    """Unlike a norm; experts that are stored together are matrices, and no linear layers."""
    return any(parameter.ndim > 1 for parameter in module.parameters())


def _attends(module: nn.Module) -> bool:
    return "attention_mask" in inspect.signature(module.forward).parameters
