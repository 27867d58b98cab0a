"""Guards that act once, on the finished update: weight averaging toward the base."""

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from tiltmeter.errors import InputError
from tiltmeter.training.guards.guard import Guard


class AverageTowardBase(Guard):
    """`theta <- theta_0 + share (theta - theta_0)` after the last step.

    For LoRA the effective update `s B A` is scaled, by B: averaging both factors would scale it by `share^2` and more.
    Source: Wortsman et al. (WiSE-FT), arXiv 2109.01903.

    Args:
        share: of the update that stays, 0 to 1.
        tokenizer: as for every guard.

    Raises:
        InputError: a share outside of 0 to 1; at the end, an adapter whose update is no multiple of B (DoRA, one that
            did not start at B = 0).
    """

    needs_skills = False

    def __init__(self, share: float, tokenizer: PreTrainedTokenizerBase | None = None) -> None:
        super().__init__((), tokenizer)
        if not 0 <= share <= 1:
            raise InputError(f"the share of the update that stays is from 0 to 1, got {share}")
        self.share = share

    def finish(self) -> None:
        trained = self.trained
        if not trained.displacement.has_exact_gradients:
            raise InputError("averaging toward the base: the update of a DoRA adapter is no multiple of its B")
        present, start = trained.split(trained.read()), trained.split(trained.start)
        mixed = [self._mixed(*each) for each in zip(trained.names, present, start, strict=True)]
        trained.write(trained.join(mixed))

    def _mixed(self, name: str, present: Tensor, start: Tensor) -> Tensor:
        if ".lora_A." in name:
            return present
        if ".lora_B." in name and start.any():
            raise InputError(f"averaging toward the base: {name} did not start at zero, as it does in plain LoRA")
        return start + self.share * (present - start)
