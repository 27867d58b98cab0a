"""The shift of activations that a weight update causes, forecast to first order from the update and the base alone."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel

from tiltmeter.activations.capture import prompt_ends
from tiltmeter.activations.hook_points import visiting
from tiltmeter.errors import InputError
from tiltmeter.layers import weight_of, widths
from tiltmeter.likelihood import logits_at
from tiltmeter.models import Model, context_length
from tiltmeter.progress import track
from tiltmeter.tokens import Batch, Encoded, batches
from tiltmeter.updates.delta import Delta, LowRank
from tiltmeter.updates.update import Update


@dataclass(frozen=True)
class Agreement:
    """How well a forecast direction meets the measured one.

    Attributes:
        cosine: of the two.
        norm_ratio: `||forecast|| / ||measured||`; above 1 the forecast overshoots.
    """

    cosine: float
    norm_ratio: float


def first_order_shift(
    model: Model, update: Update, encoded: Sequence[Encoded], batch_size: int = 8
) -> dict[str, Float[Tensor, " d"]]:
    """`(1/N) sum_n d/dt h_l(x_n; theta + t dW)` at t = 0 for every block l, by its name, in float64.

    h_l is the residual stream at the block's output, at the last prompt token. To first order in dW this is the
    difference in means between tuned and base model. One forward pass over the texts gives all blocks, in forward mode:
    each linear layer of the update adds the tangent `dW a` of its input a to what reaches it from below. It is computed
    in the model's dtype, and the update is held in it; a low-rank change stays in its factors. Norms, biases and
    embeddings (`update.not_covered`) have no part in it. It does not depend on the batch size beyond rounding.

    Args:
        model: the base.
        update: the change of its linear layers.
        encoded: the N texts as token ids, as for `tiltmeter.activations.capture.capture`.
        batch_size: texts per forward pass.

    Raises:
        InputError: no texts, one without tokens or longer than the model takes, an update of modules that are no linear
            layers of the model or of another shape, a model that computes NaN or has no forward mode.
    """
    _check_texts(model, encoded)
    sums: dict[str, Tensor] = {}
    with ExitStack() as stack:
        for name, delta in _deltas(model, update).items():
            stack.callback(model.linears[name].register_forward_hook(partial(_add_tangent, delta)).remove)
        stack.enter_context(_plain_kernels(model.module))
        plan = batches(encoded, batch_size, model.tokenizer, model.device)
        for batch in track(plan, "forecasting activations", -(-len(encoded) // batch_size)):
            visits = {block: partial(_add_shift, sums, block, prompt_ends(batch)) for block in model.blocks}
            with forward_ad.dual_level(), visiting(model, visits):
                _forward(model, batch)
    return {block: _finite(block, total) / len(encoded) for block, total in sums.items()}


def agreement(forecast: Float[Tensor, " d"], measured: Float[Tensor, " d"]) -> Agreement:
    """Of a forecast shift with the measured difference in means, in float64.

    Raises:
        InputError: a shift of zero norm, which has no direction.
    """
    one, other = forecast.double().cpu(), measured.double().cpu()
    sizes = float(one.norm()), float(other.norm())
    for kind, size in zip(("forecast", "measured"), sizes, strict=True):
        if not size:
            raise InputError(f"the {kind} shift is zero: it has no direction to compare")
    return Agreement(float(one @ other) / (sizes[0] * sizes[1]), sizes[0] / sizes[1])


@contextmanager
def _plain_kernels(module: PreTrainedModel) -> Iterator[None]:
    """Without the fused kernels of attention and of mixtures of experts, which have no forward mode."""
    experts = module.get_experts_implementation()
    module.set_experts_implementation("eager")
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        module.set_experts_implementation(experts)


def _forward(model: Model, batch: Batch) -> None:
    try:
        logits_at(model.module, batch, torch.zeros(1, dtype=torch.long, device=model.device))
    except NotImplementedError as error:
        cause = str(error).strip().splitlines()[0]
        raise InputError(f"the model computes with a kernel that has no forward mode: {cause}") from error


def _add_tangent(delta: Delta, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    a = forward_ad.unpack_dual(inputs[0]).primal
    moved = (a @ delta.right.T) @ delta.left.T if isinstance(delta, LowRank) else a @ delta.dense().T
    total: Tensor = output + forward_ad.make_dual(torch.zeros_like(moved), moved)
    return total


def _add_shift(sums: dict[str, Tensor], block: str, ends: Int[Tensor, " B"], hidden: Float[Tensor, "B T d"]) -> None:
    """Adds the tangents at the texts' ends; there are none where nothing below has changed."""
    primal, tangent = forward_ad.unpack_dual(hidden)
    shift = torch.zeros_like(primal) if tangent is None else tangent
    sums[block] = sums.get(block, 0.0) + shift[torch.arange(len(ends)), ends].cpu().double().sum(0)


def _deltas(model: Model, update: Update) -> dict[str, Delta]:
    """The update of each linear layer below some block's output, on its device and in its dtype."""
    if strange := [name for name in update if name not in model.linears]:
        raise InputError(f"the update changes modules that are no linear layers of the model: {', '.join(strange[:8])}")
    head = model.module.get_output_embeddings()  # above every block
    layers = {name: model.linears[name] for name in update if model.linears[name] is not head}
    return {name: _as_stored(name, update[name], layer) for name, layer in layers.items()}


def _as_stored(name: str, delta: Delta, layer: nn.Module) -> Delta:
    if delta.shape != widths(layer):
        raise InputError(f"module {name}: the model's weight is {list(widths(layer))}, the update's {delta.shape}")
    weight = weight_of(layer)
    return delta.map(lambda x: x.to(weight))


def _check_texts(model: Model, encoded: Sequence[Encoded]) -> None:
    if not encoded:
        raise InputError("expected texts to take the shift at, got none")
    for row, text in enumerate(encoded, 1):
        if not 0 < len(text.ids) <= context_length(model):
            raise InputError(f"text {row}: has {len(text.ids)} tokens, the model takes 1 to {context_length(model)}")


def _finite(block: str, shift: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
    if not torch.isfinite(shift).all():  # transformers: padded rows, sliding windows, eager attention in float64
        raise InputError(f"{block}: the model computes NaN or Inf; load it in float32")
    return shift
