"""One comparison from folders to a run folder."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from tiltmeter.compare import record
from tiltmeter.compare.request import CompareRequest
from tiltmeter.errors import InputError, NothingMeasuredError
from tiltmeter.geometry.comparison import compare
from tiltmeter.layers import block_index, find_blocks
from tiltmeter.models import is_adapter, local_folder
from tiltmeter.runs.compare_result import CompareResult
from tiltmeter.runs.folder import RunFolder
from tiltmeter.runs.inputs import hash_input
from tiltmeter.runs.results import Input
from tiltmeter.updates.adapter_config import read_config
from tiltmeter.updates.delta import Dense
from tiltmeter.updates.model_folder import ModelFolder
from tiltmeter.updates.update import Update

BASE = "base weights"


def run_compare(request: CompareRequest, out: Path) -> CompareResult:
    """Compares all updates and writes the run folder `out`.

    Raises:
        InputError: any input that cannot be used, names that are not of an update, or `out` is no place for a run.
        NothingMeasuredError: no two updates change the same module of a block.
    """
    _check_names(request)
    folder = ModelFolder(local_folder(request.base), request.io)
    folders = {name: local_folder(source) for name, source in request.updates.items()}
    updates = {name: _read(request, folder, name, found) for name, found in folders.items()}
    if request.against_base:
        updates[BASE] = _weights(folder, updates)
    blocks = find_blocks(folder.model)
    places = {module: block_index(module, blocks) for update in updates.values() for module in update}
    with RunFolder(out) as run:
        inputs = _hashes(request, folder.folder, folders)
        found = compare(updates, places, request.dims, request.draws, request.accuracy, request.seed)
        if not any(pair.blocks for pair in found.pairs.values()):
            raise NothingMeasuredError(f"no two of {', '.join(updates)} change the same module of a block")
        result = record.result(request, inputs, updates, folders, found)
        run.write_record(request.record(inputs))
        run.write_result(result)
        run.write_table("changes", list(record.change_rows(found)))
        run.write_table("modules", list(record.module_rows(found, places)))
        run.write_table("blocks", list(record.block_rows(found)))
    return result


def _check_names(request: CompareRequest) -> None:
    if BASE in request.updates:
        raise InputError(f"{request.updates[BASE]}: the name {BASE!r} is taken; give it another: NAME=FOLDER")
    for option, names in {
        "--initial": request.initial,
        **{f"--group {k}": v for k, v in request.groups.items()},
    }.items():
        for name in names:
            if name not in request.updates:
                raise InputError(f"{option}: no update is named {name!r}; they are {', '.join(request.updates)}")


def _read(request: CompareRequest, base: ModelFolder, name: str, folder: Path) -> Update:
    initial = request.initial.get(name)
    if is_adapter(folder):
        return Update.from_adapter(folder, base.folder, initial and local_folder(initial), request.io)
    if initial is not None:
        raise InputError(f"--initial {name}={initial}: {folder} is no adapter")
    return Update.between(base.folder, folder, request.io)


def _weights(base: ModelFolder, updates: Mapping[str, Update]) -> Update:
    """The base's own weights in the modules that some update changes."""
    modules = dict.fromkeys(module for update in updates.values() for module in update)
    return Update({module: partial(_weight, base, module) for module in modules}, "weights")


def _weight(base: ModelFolder, module: str) -> Dense:
    return Dense(base.weight(module))


def _hashes(request: CompareRequest, base: Path, folders: Mapping[str, Path]) -> list[Input]:
    """Every file that was read; of a base whose weights do not enter, only its configuration."""
    reads_base = request.against_base or not all(_needs_no_base(folder) for folder in folders.values())
    inputs = [hash_input(request.base, "base", base if reads_base else base / "config.json")]
    inputs += [hash_input(request.updates[name], f"update {name}", folder) for name, folder in folders.items()]
    initial = {name: local_folder(source) for name, source in request.initial.items()}
    return inputs + [hash_input(request.initial[name], f"initial {name}", found) for name, found in initial.items()]


def _needs_no_base(folder: Path) -> bool:
    return is_adapter(folder) and not read_config(folder).use_dora and not read_config(folder).modules_to_save
