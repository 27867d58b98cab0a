"""Second derivatives of each example's log-likelihood along an update, exact and for all examples in one pass."""

from contextlib import ExitStack
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tiltmeter.curvature.coordinates import working_dtype
from tiltmeter.curvature.fisher import Fisher
from tiltmeter.curvature.sweep import frozen
from tiltmeter.likelihood import batch_log_likelihoods
from tiltmeter.updates.delta import Delta, LowRank
from tiltmeter.updates.update import Update


def second_derivatives(fisher: Fisher, update: Update) -> Float[Tensor, " N"]:
    """`q_n = d^2/dh^2 log pi(y_n|x_n; theta + h V)` at h = 0, that is `V^T (hess log pi) V`, in float64.

    Each example takes a step of its own, `W a + h_n V a` in every module: its log-likelihood depends on its own h_n
    only, so that two backward passes over the sum give every second derivative.
    """
    dtype = working_dtype(fisher.model.module.dtype)
    found = torch.zeros(len(fisher), dtype=torch.float64)
    with ExitStack() as stack:
        stack.enter_context(frozen(fisher.model.module))
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        step = _Step()
        for name in fisher.modules:
            if name in update:
                delta = update[name].map(lambda x: x.to(fisher.model.device, dtype))
                for layer in fisher.layers[name]:
                    stack.callback(layer.register_forward_hook(partial(_take, step, delta)).remove)
        for batch in fisher.batches():
            step.sizes = torch.zeros(len(batch.rows), dtype=dtype, device=fisher.model.device, requires_grad=True)
            weighted = batch_log_likelihoods(fisher.model.module, batch) * fisher.weight(batch)
            (first,) = torch.autograd.grad(weighted.sum(), step.sizes, create_graph=True)
            (second,) = torch.autograd.grad(first.sum(), step.sizes)
            found[batch.rows] = second.double().cpu()
    return found


class _Step:
    """How far each example of the batch under way goes along the update."""

    sizes: Float[Tensor, " B"]


def _take(step: _Step, delta: Delta, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    a = inputs[0].to(step.sizes.dtype)
    moved = (a @ delta.right.T) @ delta.left.T if isinstance(delta, LowRank) else a @ delta.dense().T
    # Some layers see [B T, i]: each example's step then goes to all of its rows.
    sizes = step.sizes.repeat_interleave(a[..., 0].numel() // len(step.sizes)).view(*a.shape[:-1], 1)
    return output + (sizes * moved).to(output)
