"""Safe LoRA with a projector that is one, and the shrinkage of the same size."""

from abc import abstractmethod
from pathlib import Path

import torch
from jaxtyping import Float
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from tiltmeter.errors import InputError
from tiltmeter.layers import block_index, is_transposed, weight_of
from tiltmeter.training.adapted import adapters
from tiltmeter.training.guards.guard import Guard
from tiltmeter.updates.model_folder import ModelFolder


def alignment_basis(change: Float[Tensor, "o i"], energy: float) -> Float[Tensor, "o k"]:
    """The fewest left singular vectors U of `V = W_aligned - W_unaligned` that hold a share of `||V||^2`.

    `U U^T` is the orthogonal projector on their span: symmetric, idempotent, of trace k. The study's `V V^T / ||V||` is
    neither of these: its trace is `||V||`, so that it mostly shrinks. All of V would not do: its columns span
    everything once alignment trained the whole matrix.
    """
    left, values, _ = torch.linalg.svd(change.double(), full_matrices=False)
    held = values.square().cumsum(0) / values.square().sum()
    basis: Tensor = left[:, : int((held < energy - 1e-12).sum()) + 1]
    return basis


class _Filter(Guard):
    """Changes the update of those modules that lie least in the alignment's directions, after the last step.

    Args:
        unaligned: the folder of the model before it was aligned.
        threshold: modules of a lower cosine between their update and its projection are changed.
        energy: share of the alignment's squared norm that the directions hold.
        tokenizer: as for every guard.
    """

    needs_skills = False

    def __init__(
        self,
        unaligned: str | Path,
        threshold: float,
        energy: float = 0.9,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> None:
        super().__init__((), tokenizer)
        if not (0 <= threshold <= 1 and 0 < energy <= 1):
            raise InputError(f"threshold and energy are shares from 0 to 1, got {threshold} and {energy}")
        self.threshold, self.energy = threshold, energy
        self._unaligned = ModelFolder(Path(unaligned))
        self.changed: list[str] = []

    def finish(self) -> None:
        displacement = self.trained.displacement
        if not displacement.has_exact_gradients:
            raise InputError(f"{type(self).__name__}: the update of a DoRA adapter cannot be projected by its B")
        layers, update = adapters(self.trained.model.module), displacement.update()
        for name in update:
            delta = update[name].dense()
            if block_index(name, self.trained.model.blocks) is not None and delta.any():
                self._change(name, delta, layers.get(name))

    def _change(self, name: str, delta: Float[Tensor, "o i"], adapter: nn.Module | None) -> None:
        basis = self._basis(name).to(delta)
        similarity = float(torch.linalg.vector_norm(basis.T @ delta) / torch.linalg.vector_norm(delta))
        if similarity >= self.threshold:
            return
        self.changed.append(name)
        with torch.no_grad():
            if isinstance(adapter, LoraLayer):
                for active in adapter.active_adapters:
                    factor = adapter.lora_B[active]
                    factor.weight.copy_(self.replaced(factor.weight.detach().to(delta), basis, similarity))
            else:
                layer = self.trained.model.linears[name]
                change = self.replaced(delta, basis, similarity) - delta
                weight_of(layer).add_((change.T if is_transposed(layer) else change).to(weight_of(layer)))

    def _basis(self, name: str) -> Float[Tensor, "o k"]:
        module = self._unaligned.module(name)
        if module is None:
            raise InputError(f"{self._unaligned.folder}: has no module {name} of the model that trains")
        layer = self.trained.model.linears[name]
        with self.trained.displacement.at_base():
            aligned = weight_of(layer).detach().clone()
        aligned = aligned.T if is_transposed(layer) else aligned
        return alignment_basis(aligned - self._unaligned.weight(module).to(aligned), self.energy)

    @abstractmethod
    def replaced(
        self, left: Float[Tensor, "o r"], basis: Float[Tensor, "o k"], similarity: float
    ) -> Float[Tensor, "o r"]:
        """What stands in the place of the update's left factor."""


class SafeLora(_Filter):
    """Safe LoRA: `dW <- U U^T dW` in modules whose update has a cosine with its projection under the threshold.

    U: directions of the alignment, `W_aligned - W_unaligned`; see `alignment_basis` for the repair of the projector.
    Source: Hsu et al., arXiv 2405.16833.
    """

    def replaced(
        self, left: Float[Tensor, "o r"], basis: Float[Tensor, "o k"], similarity: float
    ) -> Float[Tensor, "o r"]:
        return basis @ (basis.T @ left)


class MatchedShrinkage(_Filter):
    """The control of Safe LoRA: the same modules keep their direction and get the norm that projection leaves them."""

    def replaced(
        self, left: Float[Tensor, "o r"], basis: Float[Tensor, "o k"], similarity: float
    ) -> Float[Tensor, "o r"]:
        return similarity * left
