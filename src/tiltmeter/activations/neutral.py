"""How far steering moves a model on neutral text, and controls that move it as far."""

from collections.abc import Callable, Mapping, Sequence

import torch
from scipy.optimize import brentq

from tiltmeter.activations.capture import prompt_ends
from tiltmeter.activations.hook_points import Place
from tiltmeter.activations.steering import Edit, Where, steered
from tiltmeter.likelihood import completion_logits, token_kl
from tiltmeter.models import Model
from tiltmeter.tokens import Encoded, batches

WIDEST = 64.0  # how far a control's scale may be from the direction's, either way
_CLOSE = 1e-3  # of the logarithm of the scale


def steering_kl(
    model: Model,
    encoded: Sequence[Encoded],
    edits: Mapping[str, Edit],
    where: Where = "last",
    place: Place = "output",
    batch_size: int = 16,
) -> float:
    """`KL(model || steered model)` at each completion token, after the same given tokens; their mean, in nats.

    Args:
        model: steered here, and as it was afterwards.
        encoded: neutral prompts with completions.
        edits, where, place: as for `steered`.
        batch_size: texts per pass.
    """
    total, tokens = 0.0, 0
    with torch.no_grad():
        for batch in batches(encoded, batch_size, model.tokenizer, model.device):
            plain = completion_logits(model.module, batch)
            with steered(model, edits, where, place, prompt_ends(batch)):
                moved = completion_logits(model.module, batch)
            total += float(token_kl(*(each.double().log_softmax(-1) for each in (plain, moved))).sum())
            tokens += len(plain)
    return total / tokens


def matching_scale(kl: Callable[[float], float], target: float) -> float:
    """The scale between 1/64 and 64 at which a control's KL is the target; the nearer end where none is.

    Args:
        kl: KL as a function of the scale, rising.
        target: above zero.

    Source: Brent's method, on the logarithm of the scale.
    """

    def missing(exponent: float) -> float:
        return kl(2.0**exponent) - target

    end = torch.tensor(WIDEST).log2().item()
    if missing(-end) > 0:
        return 1 / WIDEST
    if missing(end) < 0:
        return WIDEST
    return float(2.0 ** brentq(missing, -end, end, xtol=_CLOSE))
