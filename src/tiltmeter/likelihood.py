"""Log-likelihoods of completions, one number an example."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tiltmeter.models import Model
from tiltmeter.tokens import Batch, Encoded, batches


def batch_log_likelihoods(module: nn.Module, batch: Batch) -> Float[Tensor, " B"]:
    """`log pi(y_n | x_n)`, summed over the completion's tokens, in at least float32; differentiable.

    Logits are asked for only where some example of the batch has a completion token to predict.
    """
    predicts = batch.is_completion[:, 1:]
    places = predicts.any(0).nonzero()[:, 0]
    logits = logits_at(module, batch, places)
    targets = batch.ids[:, 1:][:, places]
    nll = cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)
    return -(nll * predicts[:, places]).sum(1)


def log_likelihoods(model: Model, encoded: Sequence[Encoded], batch_size: int = 16) -> Float[Tensor, " N"]:
    """`log pi(y_n | x_n)` of each example, summed over its completion's tokens, in float64."""
    result = torch.empty(len(encoded), dtype=torch.float64)
    with torch.no_grad():
        for batch in batches(encoded, batch_size, model.tokenizer, model.device):
            result[batch.rows] = batch_log_likelihoods(model.module, batch).double().cpu()
    return result


def completion_lengths(encoded: Sequence[Encoded]) -> Float[Tensor, " N"]:
    """Completion tokens of each example."""
    return torch.tensor([sum(example.is_completion) for example in encoded], dtype=torch.float64)


def token_kl(base: Float[Tensor, "T V"], other: Float[Tensor, "T V"]) -> Float[Tensor, " T"]:
    """`KL(base || other) = sum_v p_base(v) [log p_base(v) - log p_other(v)]` of each token, from log-probabilities."""
    return (base.exp() * (base - other)).sum(-1)


def completion_logits(module: nn.Module, batch: Batch) -> Float[Tensor, "T V"]:
    """The logits from which each of the batch's T completion tokens is predicted, example by example."""
    predicts = batch.is_completion[:, 1:]
    places = predicts.any(0).nonzero()[:, 0]
    logits: Tensor = logits_at(module, batch, places)[predicts[:, places]]
    return logits


def logits_at(module: nn.Module, batch: Batch, places: Int[Tensor, " S"]) -> Float[Tensor, "B S V"]:
    """The logits at some positions of a batch, in at least float32."""
    inputs: dict[str, Any] = {"input_ids": batch.ids, "attention_mask": batch.attention_mask, "use_cache": False}
    accepted = inspect.signature(module.forward).parameters
    if "position_ids" in accepted or "kwargs" in accepted:
        inputs["position_ids"] = batch.position_ids
    logits: Tensor
    if "logits_to_keep" in accepted:
        logits = module(**inputs, logits_to_keep=places).logits
    else:
        logits = module(**inputs).logits[:, places]
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
