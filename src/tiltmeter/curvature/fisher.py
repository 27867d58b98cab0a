"""The Fisher information of a skill, through the coordinates of updates and the Gram matrix of its gradients."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from functools import cached_property
from typing import Literal, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tiltmeter.curvature.coordinates import ModuleCoordinates, working_dtype
from tiltmeter.curvature.gradients import SCRATCH, ExampleGradients, Seen, Unit, scratch_bytes, units, workspace
from tiltmeter.curvature.sweep import Observer, coverage, sweep
from tiltmeter.errors import InputError, NothingMeasuredError
from tiltmeter.layers import block_index, weight_of, widths
from tiltmeter.likelihood import completion_lengths
from tiltmeter.models import Model
from tiltmeter.skills import Skill
from tiltmeter.tokens import Batch, Encoded, batches, encode_within
from tiltmeter.updates.update import Update

Labels = Literal["data", "sampled"]
Reduction = Literal["sum", "mean"]
_Item = TypeVar("_Item")


class Fisher:
    """`F = (1/N) sum_n g_n g_n^T` with `g_n = grad log pi(y_n|x_n)` at the model, used only through small matrices.

    Coordinates `c_n(V) = <g_n, V>` and the Gram matrix `<g_n, g_m>/N` per module carry all of it: the nonzero
    eigenvalues of F are those of the Gram, and `V^T F V = (1/N) sum_n c_n(V)^2`. Exact, without random projection.
    Source: collapse (arXiv 2602.15799), methods; the Gram form is standard.

    Args:
        model: the base model.
        skill: prompts with reference completions.
        labels: "data" takes the reference completions, "sampled" draws completions from the model itself.
        reduction: the log-likelihood of a completion is the "sum" or the "mean" over its tokens.
        modules: names of the linear modules; all linear modules inside the blocks if not given.
        batch_size: examples per forward pass; results do not depend on it.
        max_length: tokens kept of each example; all if not given.
        memory: bytes for kept gradients or updates; more passes are made where they do not fit.

    Attributes:
        modules: the M names that are measured.
        blocks: the block index of each, or None outside the blocks.
        layers: the layers of each: several where modules share one weight.
        calls: how often each is called in a forward pass, by name.
        encoded: the N examples as token ids.
        not_covered: linear modules and other weight matrices inside the blocks that are not measured: name -> reason.

    Raises:
        InputError: unknown module names, a float16 model, completions that are empty after the cut.
    """

    def __init__(
        self,
        model: Model,
        skill: Skill,
        labels: Labels = "data",
        reduction: Reduction = "sum",
        modules: Sequence[str] | None = None,
        batch_size: int = 8,
        max_length: int | None = None,
        memory: int = 4 << 30,
    ) -> None:
        if model.module.dtype == torch.float16:
            raise InputError("float16 gradients under- and overflow: load the model in float32 or bfloat16")
        self.model, self.skill, self.labels, self.reduction = model, skill, labels, reduction
        self.max_length, self._batch_size, self.memory = max_length, batch_size, memory
        self.encoded = _labelled(model, skill, labels, max_length)
        self._asked = list(modules) if modules is not None else _inside_blocks(model)
        self.layers, self.calls, self.not_covered = self._coverage()
        self.modules = list(self.layers)
        self.blocks = [block_index(name, model.blocks) for name in self.modules]

    def __len__(self) -> int:
        return len(self.encoded)

    def coordinates(self, updates: Sequence[Update]) -> Float[Tensor, "K M N"]:
        """`c_n(V_k) = <g_n, V_k>` per module, in float64; K updates in one pass if they fit in memory.

        Raises:
            InputError: an update that shares no module with this Fisher, or whose shapes differ from the model's.
        """
        for update in updates:
            self._check(update)
        values = torch.zeros(len(updates), len(self.modules), len(self), dtype=torch.float64)
        group: list[tuple[str, ModuleCoordinates]] = []
        for name, share in self._shares(updates):
            observer = self._observer(name, share)
            if group and sum(each.nbytes for _, each in group) + observer.nbytes > self.memory * 3 // 4:
                self._measure(group, values)
                group = []
            group.append((name, observer))
        self._measure(group, values)
        return values[:, :, self.batch_order]

    def gram(self) -> Float[Tensor, "M N N"]:
        """`Gram[n, m] = <g_n, g_m>/N` per module, in float64. Computed once."""
        return self._gram

    @cached_property
    def _gram(self) -> Tensor:
        gram = torch.zeros(len(self.modules), len(self), len(self), dtype=torch.float64)

        def add(name: str, _: slice, chunk: Tensor) -> None:
            gram[self.modules.index(name)] += (chunk @ chunk.T).double().cpu()

        self.each_gradient(add)
        return gram[:, self.batch_order][:, :, self.batch_order] / len(self)

    def each_gradient(self, use: Callable[[str, slice, Tensor], None]) -> None:
        """Calls `use(module, output rows, gradients [N, rows * i])` for ranges of rows that cover every module.

        Examples stand in batch order, which is the same in each call.
        """
        each_gradient_of([self], lambda name, rows, chunks: use(name, rows, chunks[0]))

    def _shares(self, updates: Sequence[Update]) -> Iterator[tuple[str, list[Update | None]]]:
        """Module by module, as many updates as an eighth of the memory holds: reading them takes that much twice."""
        itemsize = working_dtype(self.model.module.dtype).itemsize
        for name in self.modules:
            o, i = widths(self.layers[name][0])
            step = max(1, self.memory // 8 // (o * i * itemsize))
            for start in range(0, len(updates), step):
                yield name, [update if start <= k < start + step else None for k, update in enumerate(updates)]

    def _observer(self, name: str, updates: Sequence[Update | None]) -> ModuleCoordinates:
        deltas = [None if update is None else update.get(name) for update in updates]
        expected = widths(self.layers[name][0])
        for delta in deltas:
            if delta is not None and delta.shape != expected:
                raise InputError(f"module {name}: the model's weight is {list(expected)}, the update's {delta.shape}")
        return ModuleCoordinates(deltas, len(self), working_dtype(self.model.module.dtype), self.model.device)

    def _measure(self, group: Sequence[tuple[str, ModuleCoordinates]], values: Tensor) -> None:
        watching: dict[str, list[Observer]] = {}
        for name, observer in group:
            watching.setdefault(name, []).append(observer)
        self.watch(watching)
        for name, observer in group:
            values[:, self.modules.index(name)] += observer.values.cpu()

    def weight(self, batch: Batch) -> Float[Tensor, " B"]:
        """What each example's log-likelihood is multiplied by: 1, or one over its completion tokens."""
        lengths = batch.is_completion.sum(1).double()
        return 1 / lengths if self.reduction == "mean" else torch.ones_like(lengths)

    @property
    def weights(self) -> Float[Tensor, " N"]:
        """`weight` of every example, in their order."""
        lengths = completion_lengths(self.encoded)
        return 1 / lengths if self.reduction == "mean" else torch.ones_like(lengths)

    def of(self, encoded: Sequence[Encoded]) -> "Fisher":
        """The same of other examples: model, modules and settings are kept, `skill` still names the first ones."""
        other = copy(self)
        for cached in ("batch_order", "_gram"):
            other.__dict__.pop(cached, None)
        other.encoded = list(encoded)
        return other

    def at(self, model: Model) -> "Fisher":
        """The same modules and token ids at another model of the same architecture.

        Raises:
            InputError: a module that the other model lacks, that is not called there or has another shape.
        """
        other = self.of(self.encoded)
        other.model = model
        other.layers, other.calls, other.not_covered = other._coverage()
        for name in self.modules:
            self._check_same(name, other)
        return other

    def watch(self, observers: Mapping[str, Sequence[Observer]]) -> None:
        """One pass over the examples, in which modules show their inputs and output gradients to observers by name."""
        sweep(self.model, self.batches(), self.layers, observers, self.weight)

    def batches(self) -> Iterator[Batch]:
        """The examples as padded batches; `Batch.rows` says which they are."""
        return batches(self.encoded, self._batch_size, self.model.tokenizer, self.model.device)

    def _coverage(self) -> tuple[dict[str, list[nn.Module]], dict[str, int], dict[str, str]]:
        linears = self.model.linears
        unknown = [name for name in self._asked if name not in linears]
        if unknown:
            raise InputError(f"no linear modules of the model: {unknown}; it has {list(linears)[:8]}, ...")
        layers, calls, reasons = coverage(self.model, self._probe(), self._asked)
        return layers, calls, reasons | _other_matrices(self.model, self._asked)

    def _check_same(self, name: str, other: "Fisher") -> None:
        if name not in other.layers or len(other.layers[name]) != len(self.layers[name]):
            reason = other.not_covered.get(name, "it shares its weight with other modules than in the base")
            raise InputError(f"module {name}: measured in the base, but not in the other model: {reason}")
        here, there = (widths(fisher.layers[name][0]) for fisher in (self, other))
        if here != there:
            raise InputError(f"module {name}: expected a weight of {list(here)} as in the base, got {list(there)}")

    def _probe(self) -> Batch:
        """The shortest example alone: enough to see which modules are called, and how."""
        shortest = min(self.encoded, key=lambda example: len(example.ids))
        return next(batches([shortest], 1, self.model.tokenizer, self.model.device))

    @cached_property
    def batch_order(self) -> Tensor:
        """The place in batch order of each example."""
        rows = torch.tensor([row for batch in self.batches() for row in batch.rows])
        return rows.argsort()

    def _check(self, update: Update) -> None:
        common = [name for name in self.modules if name in update]
        if not common:
            raise InputError(f"the update shares no module with the skill's Fisher: {list(update)[:4]}, ...")


def each_gradient_of(fishers: Sequence[Fisher], use: Callable[[str, slice, list[Tensor]], None]) -> None:
    """Calls `use(module, output rows, [gradients [N, rows * i] of each Fisher])` for ranges that cover every module.

    The Fishers have the same modules, dtype and number of examples, each in its own batch order, and share the first
    one's memory budget. One pass of each for every group of modules.
    """
    first, count = fishers[0], len(fishers)
    dtype = working_dtype(first.model.module.dtype)
    row = len(first) * max(widths(layers[0])[1] for layers in first.layers.values()) * dtype.itemsize
    scratch = max(scratch_bytes(SCRATCH, first.model.device), row)  # one row of the widest module at least
    for group in groups(_units(fishers, dtype), lambda unit: unit.nbytes, first.memory // count):
        sizes = [scratch, *(unit.nbytes for unit in group)]
        with workspace(count * sum(sizes), first.model.device) as memory:
            held = [
                _collect(fisher, group, part.split(sizes), dtype)
                for fisher, part in zip(fishers, memory.view(count, -1), strict=True)
            ]
            for unit, *stores in zip(group, *held, strict=True):
                for pieces in zip(*(store.chunks() for store in stores), strict=True):
                    use(unit.module, pieces[0][0], [chunk for _, chunk in pieces])


def _units(fishers: Sequence[Fisher], dtype: torch.dtype) -> Iterator[Unit]:
    """The same for all of them, with room for the longest: row ranges have to agree."""
    first = fishers[0]
    tokens = [sum(batch.ids.numel() for batch in fisher.batches()) for fisher in fishers]
    for name in first.modules:
        seen = max(count * fisher.calls[name] for count, fisher in zip(tokens, fishers, strict=True))
        shown = Seen(*widths(first.layers[name][0]), len(first), seen)
        yield from units(name, shown, first.model.module.dtype, dtype, first.memory // len(fishers))


def _collect(
    fisher: Fisher, group: Sequence[Unit], places: Sequence[Tensor], dtype: torch.dtype
) -> list[ExampleGradients]:
    formed, *rest = places
    stores = [unit.make(place, formed.view(dtype)) for unit, place in zip(group, rest, strict=True)]
    watching: dict[str, list[Observer]] = {}
    for unit, store in zip(group, stores, strict=True):
        watching.setdefault(unit.module, []).append(store)
    fisher.watch(watching)
    return stores


def _labelled(model: Model, skill: Skill, labels: Labels, max_length: int | None) -> list[Encoded]:
    encoded = encode_within(model, skill, max_length)
    if not encoded:
        raise NothingMeasuredError(f"skill {skill.name}: no examples")
    if labels == "sampled":
        from tiltmeter.generation import resample

        return resample(model, encoded)
    return encoded


def _inside_blocks(model: Model) -> list[str]:
    return [name for name in model.linears if block_index(name, model.blocks) is not None]


def _other_matrices(model: Model, names: Sequence[str]) -> dict[str, str]:
    """Weight matrices inside the blocks that belong to no linear layer: fused experts, routers."""
    weights = {id(weight_of(model.linears[name])) for name in names}
    return {
        f"{block_name}.{name}": "no linear layer: a fused or routed weight"
        for block_name, block in model.blocks.items()
        for name, parameter in block.named_parameters()
        if parameter.ndim >= 2 and id(parameter) not in weights
    }


def groups(items: Iterable[_Item], nbytes: Callable[[_Item], int], memory: int) -> Iterator[list[_Item]]:
    """Splits items, in order, into groups that stay within the budget; a single larger one stands alone."""
    group: list[_Item] = []
    held = 0
    for item in items:
        size = nbytes(item)
        if group and held + size > memory:
            yield group
            group, held = [], 0
        group.append(item)
        held += size
    if group:
        yield group
