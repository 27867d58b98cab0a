"""The mean of a skill's gradients, and other weighted sums of them, in one pass and without storing any."""

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.curvature.coordinates import working_dtype
from tiltmeter.curvature.fisher import Fisher
from tiltmeter.curvature.sweep import sweep
from tiltmeter.layers import widths
from tiltmeter.tokens import Batch
from tiltmeter.updates.update import Update


def mean_gradient(fisher: Fisher) -> Update:
    """`gbar = (1/N) sum_n g_n`, the gradient of the skill's utility `u = mean_n log pi(y_n|x_n)`, [o, i] per module.

    In nats per unit of weight, in the Fisher's reduction. Takes the memory of one update, on the model's device.
    """
    return weighted_gradient(fisher, torch.full((len(fisher),), 1 / len(fisher), dtype=torch.float64))


def weighted_gradient(fisher: Fisher, weights: Float[Tensor, " N"]) -> Update:
    """`sum_n w_n g_n`, [o, i] per module; the weights in the order of the skill's examples."""
    dtype, device = working_dtype(fisher.model.module.dtype), fisher.model.device
    sums = {name: torch.zeros(widths(layers[0]), dtype=dtype, device=device) for name, layers in fisher.layers.items()}

    def weight(batch: Batch) -> Tensor:
        own = fisher.weight(batch)
        return own * weights[batch.rows].to(own)

    observers = {name: [partial(_add, total)] for name, total in sums.items()}
    sweep(fisher.model, fisher.batches(), fisher.layers, observers, weight)
    return Update.from_tensors(dict(sums))


def _add(total: Float[Tensor, "o i"], _: slice, a: Float[Tensor, "B T i"], delta: Float[Tensor, "B T o"]) -> None:
    total.addmm_(delta.flatten(0, 1).to(total.dtype).T, a.flatten(0, 1).to(total.dtype))
