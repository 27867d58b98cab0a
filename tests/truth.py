"""Dense references in float64, by the plainest means."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tiltmeter.layers import is_transposed, weight_of
from tiltmeter.models import Model
from tiltmeter.tokens import Encoded


class _KeepFloat64(TorchFunctionMode):
    """Undoes the float32 casts inside transformers (norms, softmax), which limit float64 models to 6e-7."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.float and args[0].dtype == torch.float64:
            return args[0]
        if func is torch.Tensor.to and args[0].dtype == torch.float64:
            args = tuple(torch.float64 if arg is torch.float32 else arg for arg in args)
        if kwargs.get("dtype") is torch.float32 and args and isinstance(args[0], Tensor):
            kwargs["dtype"] = args[0].dtype
        return func(*args, **kwargs)


@contextmanager
def float64_throughout() -> Iterator[None]:
    with _KeepFloat64():
        yield


def example_gradients(model: Model, encoded: Sequence[Encoded], mean: bool = False) -> list[dict[str, Tensor]]:
    """`grad log pi(y_n|x_n)` of every linear weight, [o, i], one example at a time, without padding."""
    weights = {name: weight_of(layer) for name, layer in model.linears.items()}
    result = []
    for example in encoded:
        ids = torch.tensor([example.ids])
        log_probabilities = model.module(input_ids=ids, use_cache=False).logits[0, :-1].log_softmax(-1)
        places = [t for t in range(1, len(example.ids)) if example.is_completion[t]]
        total = sum(log_probabilities[t - 1, example.ids[t]] for t in places) / (len(places) if mean else 1)
        gradients = torch.autograd.grad(total, list(weights.values()), allow_unused=True)
        result.append(
            {
                name: (torch.zeros_like(weights[name]) if g is None else g).T.contiguous()
                if is_transposed(model.linears[name])
                else (torch.zeros_like(weights[name]) if g is None else g)
                for name, g in zip(weights, gradients, strict=True)
            }
        )
    return result
