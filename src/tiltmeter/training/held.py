"""Weights kept in host memory, to compare with, to compute with for a while, and to go back to."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class HeldWeights:
    """Copies of parameters as they are now, in host memory and in their own dtype.

    Attributes:
        parameters: the parameters that were copied, by name.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self.parameters = dict(parameters)
        self._copies = {id(each): each.detach().to("cpu", copy=True) for each in self.parameters.values()}
        self._is_exchanged = False

    def __contains__(self, parameter: Tensor) -> bool:
        return id(parameter) in self._copies

    def held(self, parameter: Tensor) -> Tensor:
        """The value that was copied, on the parameter's device."""
        return parameter.detach() if self._is_exchanged else self._copies[id(parameter)].to(parameter.device)

    def present(self, parameter: Tensor) -> Tensor:
        """The value that the parameter has outside `exchanged`, on its device; also of parameters not copied."""
        stands_aside = self._is_exchanged and parameter in self
        return self._copies[id(parameter)].to(parameter.device) if stands_aside else parameter.detach()

    def put(self, parameter: Tensor, value: Tensor) -> None:
        """Hold another value of a parameter."""
        self._copies[id(parameter)].copy_(value)

    def take(self) -> None:
        """Copy the present values in the place of those held."""
        for parameter in self.parameters.values():
            self._copies[id(parameter)].copy_(parameter.detach())

    def restore(self) -> None:
        """Set every parameter to its copy, bit for bit."""
        for parameter in self.parameters.values():
            parameter.data.copy_(self._copies[id(parameter)])

    @contextmanager
    def exchanged(self) -> Iterator[None]:
        """The parameters have the values held, and the other way round; afterwards each is back, bit for bit.

        In place, one tensor at a time, so that no second copy is needed anywhere.
        """
        if self._is_exchanged:
            yield
            return
        swapped: list[nn.Parameter] = []
        try:
            for parameter in self.parameters.values():
                self._exchange(parameter)
                swapped.append(parameter)
            self._is_exchanged = True
            yield
        finally:
            self._is_exchanged = False
            for parameter in swapped:
                self._exchange(parameter)

    def fingerprint(self) -> str:
        """sha256 of the names and values held."""
        digest = hashlib.sha256()
        for name, parameter in sorted(self.parameters.items()):
            digest.update(name.encode())
            digest.update(self._copies[id(parameter)].contiguous().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def _exchange(self, parameter: Tensor) -> None:
        copy = self._copies[id(parameter)]
        aside = parameter.detach().to("cpu", copy=True)
        parameter.data.copy_(copy)
        copy.copy_(aside)
