"""The parameters that train, as one flat vector, and where they started."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.errors import InputError
from tiltmeter.training.displacement import Displacement
from tiltmeter.updates.finite import is_finite


class Trained:
    """The P numbers of a model that take gradients: all weights, or the factors of an adapter.

    A vector [P] takes as much memory as they do, in at least float32.

    Args:
        displacement: of the model that trains, made where it started.

    Attributes:
        names, parameters: those that train.

    Raises:
        InputError: nothing trains.
    """

    def __init__(self, displacement: Displacement) -> None:
        self.displacement, self.model = displacement, displacement.model
        found = displacement.trained()
        if not found:
            raise InputError("the model has no parameter that takes gradients: there is nothing to guard")
        self.names, self.parameters = list(found), list(found.values())
        self._factors = self.read() if displacement.is_adapted else None

    @property
    def start(self) -> Float[Tensor, " P"]:
        """The values at the start."""
        if self._factors is not None:
            return self._factors
        with self.displacement.at_base():
            return self.read()

    def fingerprint(self) -> str:
        """sha256 of the start."""
        return hashlib.sha256(self.start.cpu().numpy().data).hexdigest()

    @property
    def sizes(self) -> list[int]:
        """How many numbers each parameter has."""
        return [parameter.numel() for parameter in self.parameters]

    @property
    def dtype(self) -> torch.dtype:
        """Of vectors."""
        return torch.promote_types(self.parameters[0].dtype, torch.float32)

    def read(self) -> Float[Tensor, " P"]:
        """The present values."""
        return self.join([parameter.detach() for parameter in self.parameters])

    def write(self, values: Float[Tensor, " P"]) -> None:
        """Sets the present values.

        Raises:
            InputError: NaN or Inf; the model keeps what it had.
        """
        if not is_finite(values):
            raise InputError("the guard's correction is not finite: the training has diverged")
        with torch.no_grad():
            for parameter, part in zip(self.parameters, self.split(values), strict=True):
                parameter.copy_(part)

    @contextmanager
    def at(self, values: Float[Tensor, " P"]) -> Iterator[None]:
        """The model at other values; afterwards it is as before, bit for bit."""
        before = self.read()
        self.write(values)
        try:
            yield
        finally:
            self.write(before)

    def zeros(self) -> Float[Tensor, " P"]:
        """No change."""
        return torch.zeros(sum(self.sizes), dtype=self.dtype, device=self.parameters[0].device)

    def join(self, parts: list[Tensor]) -> Float[Tensor, " P"]:
        """One vector of a tensor for each parameter."""
        return torch.cat([part.reshape(-1).to(self.dtype) for part in parts])

    def split(self, values: Float[Tensor, " P"]) -> list[Tensor]:
        """The part of each parameter, in its shape."""
        parts = values.split(self.sizes)
        return [part.view_as(parameter) for part, parameter in zip(parts, self.parameters, strict=True)]

    def gradient(self, value: Float[Tensor, ""]) -> Float[Tensor, " P"]:
        """Of a scalar; parameters that it does not depend on get zeros, and no `.grad` is touched."""
        found = torch.autograd.grad(value, self.parameters, allow_unused=True)
        pairs = zip(found, self.parameters, strict=True)
        return self.join([torch.zeros_like(parameter) if part is None else part for part, parameter in pairs])

    def add_gradient(self, gradient: Float[Tensor, " P"]) -> None:
        """Adds to what the optimizer will see."""
        for parameter, part in zip(self.parameters, self.split(gradient), strict=True):
            if parameter.grad is None:
                parameter.grad = part.to(parameter)
            else:
                parameter.grad.add_(part)
