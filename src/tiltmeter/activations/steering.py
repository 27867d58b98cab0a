"""Change hidden states while a model runs: along a direction, against it, or without it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tiltmeter.activations.capture import last_places
from tiltmeter.activations.hook_points import Place, visiting
from tiltmeter.errors import InputError
from tiltmeter.models import Model

Where: TypeAlias = Literal["last", "prompt", "all"]
Edit: TypeAlias = Callable[[Float[Tensor, "R d"]], Float[Tensor, "R d"]]


def shift(vector: Float[Tensor, " d"], alpha: float) -> Edit:
    """`h + alpha v`: add with alpha above zero, subtract below."""

    @cache  # a copy to the device at each token would make it wait
    def change(dtype: torch.dtype, device: torch.device) -> Tensor:
        return alpha * vector.to(device, dtype)

    def edit(hidden: Tensor) -> Tensor:
        _check_width(hidden, vector)
        return hidden + change(hidden.dtype, hidden.device)

    return edit


def ablation(span: Float[Tensor, "k d"], onto: Float[Tensor, "k d"] | None = None, alpha: float = 1.0) -> Edit:
    """`h - alpha sum_i (h . q_i) q_i`, with q the rows of `span` made orthonormal: h without what lies in the span.

    With `onto`, the same coordinates are taken from other directions, `h - alpha sum_i (h . q_i) c_i` with c the rows
    of `onto` made orthonormal: a control whose change has the same norm at every token.
    """
    q = _orthonormal(span)
    c = q if onto is None else _orthonormal(onto)

    @cache
    def placed(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
        return q.T.to(device, dtype), c.to(device, dtype)

    def edit(hidden: Tensor) -> Tensor:
        _check_width(hidden, q)
        read, written = placed(hidden.dtype, hidden.device)
        return hidden.sub((hidden @ read) @ written, alpha=alpha)

    return edit


@contextmanager
def steered(
    model: Model,
    edits: Mapping[str, Edit],
    where: Where = "last",
    place: Place = "output",
    prompt_ends: Int[Tensor, " B"] | None = None,
) -> Iterator[None]:
    """While it lasts, the model runs with the hidden states of some blocks edited.

    Args:
        model: changed by hooks only; bit-identical afterwards, also when an exception passes.
        edits: block -> what becomes of the hidden states of the tokens that are meant.
        where: the "last" prompt token (at the last block this reaches the first generated token only), the whole
            "prompt", or "all" tokens, generated ones too.
        place: the hook point, the same as for capture; see `visiting`.
        prompt_ends: place of the last prompt token in each row of the batch, for passes over prompts with completions;
            without it the prompt is what a pass without cached tokens sees, as in generation.

    Raises:
        InputError: no such block or part; a direction of another width, named when the model runs.
    """
    passing = _Pass(where, prompt_ends)
    handle = model.module.register_forward_pre_hook(passing.begin, with_kwargs=True)
    try:
        with visiting(model, {block: passing.visit(edit) for block, edit in edits.items()}, place):
            yield
    finally:
        handle.remove()


class _Pass:
    """Which tokens of the pass that is under way are edited: those of a mask, all where there is none, or no token."""

    def __init__(self, where: Where, prompt_ends: Int[Tensor, " B"] | None) -> None:
        self._where, self._ends = where, prompt_ends
        self._mask: Bool[Tensor, "B T"] | None = None
        self._idle = False

    def begin(self, module: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._mask, self._idle = None, self._where != "all" and _cached(kwargs) > 0
        if self._where == "all" or self._idle:
            return
        ids = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        mask = kwargs.get("attention_mask")
        mask = mask if isinstance(mask, Tensor) and mask.shape == ids.shape else torch.ones_like(ids)
        ends = (last_places(mask) if self._ends is None else self._ends.to(ids.device))[:, None]
        places = torch.arange(ids.shape[1], device=ids.device)[None]
        self._mask = places == ends if self._where == "last" else places <= ends

    def visit(self, edit: Edit) -> Callable[[Tensor], Tensor | None]:
        def visit(hidden: Tensor) -> Tensor | None:
            if self._idle:
                return None
            if self._mask is None:
                return edit(hidden)
            mask = self._mask.to(hidden.device)
            return hidden.masked_scatter(mask[..., None], edit(hidden[mask]))

        return visit


def _cached(kwargs: Mapping[str, Any]) -> int:
    cache = kwargs.get("past_key_values")
    return 0 if cache is None else int(cache.get_seq_length())


def _check_width(hidden: Tensor, vectors: Tensor) -> None:
    if hidden.shape[-1] != vectors.shape[-1]:
        raise InputError(f"a direction of width {vectors.shape[-1]} does not fit hidden states of {hidden.shape[-1]}")


def _orthonormal(rows: Float[Tensor, "k d"]) -> Float[Tensor, "k d"]:
    """The nearest orthonormal rows: of one row its unit vector, with its sign."""
    left, values, right = torch.linalg.svd(rows.double(), full_matrices=False)
    if not values.min() > 1e-12 * values.max():
        raise InputError("a direction of zero norm, or one that the others span, cannot be ablated")
    basis: Tensor = left @ right
    return basis
