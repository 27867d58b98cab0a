"""The end of a path, read from a checkpoint or an adapter beside the base that is in memory."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tiltmeter.errors import InputError
from tiltmeter.geometry.path import End
from tiltmeter.models import Model, is_adapter, load_model
from tiltmeter.updates.adapters import check_patterns
from tiltmeter.updates.update import Update


def read_end(base: Model, folder: Path, tuned: Path) -> End:
    """The change from a base to a tuned model.

    Linear modules are read from the files when they are asked for. Where other parameters changed too, the tuned model
    is built once, by transformers and PEFT's merge, and their difference is kept.

    Args:
        base: the base in memory.
        folder: the base's folder.
        tuned: a checkpoint or a PEFT adapter.

    Raises:
        InputError: what `Update.from_adapter` and `Update.between` refuse, or an adapter that PEFT cannot merge.
    """
    update = Update.from_adapter(tuned, folder) if is_adapter(tuned) else Update.between(folder, tuned)
    if not update.not_covered:
        return End(update)
    made = _merged(base, folder, tuned) if is_adapter(tuned) else _loaded(base, tuned)
    covered = {f"{module}.weight" for module in update}
    return End(update, {name: change for name, change in _differences(base.module, made) if name not in covered})


def _loaded(base: Model, folder: Path) -> nn.Module:
    return load_model(folder, base.module.dtype, str(base.device)).module


def _merged(base: Model, folder: Path, adapter: Path) -> nn.Module:
    """A fresh base with the adapter merged, each tied parameter a copy of its own: PEFT merges into what it adapts."""
    from peft import PeftModel

    module = _loaded(base, folder)
    _untie(module)
    check_patterns(adapter, [name for name, _ in module.named_modules()])
    try:
        merged: Any = PeftModel.from_pretrained(module, str(adapter))
        found = merged.merge_and_unload()
    except Exception as error:  # as for every file of somebody else's
        raise InputError(f"{adapter}: PEFT cannot merge the adapter: {error}") from error
    assert isinstance(found, nn.Module)
    return found


def _untie(module: nn.Module) -> None:
    seen: set[int] = set()
    for name, parameter in list(module.named_parameters(remove_duplicate=False)):
        if id(parameter) in seen:
            owner, _, own = name.rpartition(".")
            setattr(module.get_submodule(owner), own, nn.Parameter(parameter.detach().clone()))
        seen.add(id(parameter))


def _differences(before: nn.Module, after: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameter and change by every name, one tensor where both sides tie or the changes are equal."""
    new = dict(after.named_parameters(remove_duplicate=False))
    made: dict[int, Tensor] = {}
    for name, parameter in before.named_parameters(remove_duplicate=False):
        change = _difference(parameter, new[name])
        if change is None:
            continue
        first = made.setdefault(id(parameter), change)
        yield name, first if torch.equal(first, change) else change


def _difference(before: Tensor, after: Tensor) -> Tensor | None:
    if torch.equal(before, after):
        return None
    wide = torch.promote_types(before.dtype, torch.float32)
    return after.detach().to(wide) - before.detach().to(wide)
