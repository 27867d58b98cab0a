"""A direction: one vector per block, from base to tuned."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.activations.capture import Activations, Tokens, capture, prompts_only
from tiltmeter.activations.direction_files import Contents, read_direction, write_direction
from tiltmeter.activations.hook_points import Place
from tiltmeter.activations.steering import Where, shift, steered
from tiltmeter.errors import InputError
from tiltmeter.models import Model


@dataclass(frozen=True)
class Direction(Contents):
    """`v_l = mean_x h_l(x; tuned) - mean_x h_l(x; base)` over the same texts x, raw, by block; [d] each, float32.

    Subtracting v from the tuned model's hidden states at the same hook point moves their mean to the base's.

    Attributes:
        vectors: block -> v.
        place, tokens: the hook point, and the tokens whose states were averaged.
        about: what it was made from, for people and files: "base", "tuned", "prompts", ...

    Source: the directions study; difference in means as in Arditi et al. (2024), adding to activations as in Turner et
    al. (2023).
    """

    @classmethod
    def between(
        cls, base: Activations, tuned: Activations, place: Place = "output", tokens: Tokens = "last"
    ) -> "Direction":
        """From activations of both models on the same texts; each text weighs the same, means are in float64.

        Raises:
            InputError: other blocks or texts, or no difference at all in a block: the fine-tune did nothing there.
        """
        check_paired(base, tuned)
        vectors = {block: _difference(base, tuned, block) for block in base.states}
        return cls(vectors, place, tokens)

    @classmethod
    def from_models(
        cls, base: Model, tuned: Model, prompts: Sequence[str], blocks: Sequence[str] | None = None
    ) -> "Direction":
        """From two models in memory, at the last token of prompts put by the base's chat template.

        Raises:
            InputError: a block that is not there, or as `between`.
        """
        texts = prompts_only(base, prompts)
        chosen = list(base.blocks if blocks is None else blocks)
        return cls.between(capture(base, texts, chosen), capture(tuned, texts, chosen))

    @contextmanager
    def subtracted(
        self, model: Model, dose: float = 1.0, blocks: Sequence[str] | None = None, where: Where = "last"
    ) -> Iterator[None]:
        """`h <- h - dose v` in a model while it lasts; a negative dose adds. See `steered`.

        Args:
            blocks: all of the direction's if not given; each is edited, so that their changes add up.
            where: the "last" prompt token, the whole "prompt", or "all" tokens.
        """
        chosen = self.vectors if blocks is None else blocks
        with steered(model, {block: shift(self[block], -dose) for block in chosen}, where, self.place):
            yield

    def norm(self, block: str) -> float:
        """Length of v at a block."""
        return float(self[block].double().norm())

    def __getitem__(self, block: str) -> Float[Tensor, " d"]:
        if block not in self.vectors:
            raise InputError(f"the direction has no block {block!r}: expected one of {', '.join(self.vectors)}")
        return self.vectors[block]

    def save(self, path: str | Path) -> None:
        """Write a safetensors file with metadata, or a GGUF control vector where the name ends so."""
        write_direction(self, Path(path))

    @classmethod
    def load(cls, path: str | Path, blocks: Sequence[str] | None = None) -> "Direction":
        """Read what `save` wrote, or another tool's control vector, which does not know the names of `blocks`.

        Raises:
            InputError: as `tiltmeter.activations.direction_files.read_direction`.
        """
        return cls(**vars(read_direction(Path(path), blocks)))


def check_paired(base: Activations, tuned: Activations) -> None:
    """Both models on the same texts.

    Raises:
        InputError: they differ in blocks or in texts.
    """
    if list(base.states) != list(tuned.states):
        raise InputError(f"base has blocks {', '.join(base.states)}; tuned has {', '.join(tuned.states)}")
    if not torch.equal(base.rows.unique(), tuned.rows.unique()):
        raise InputError(f"base read {len(base.rows.unique())} texts, tuned {len(tuned.rows.unique())}, or others")


def _difference(base: Activations, tuned: Activations, block: str) -> Tensor:
    vector = tuned.per_prompt(block).mean(0) - base.per_prompt(block).mean(0)
    if not vector.any():
        raise InputError(f"{block}: base and tuned have the same mean activation: the fine-tune did nothing there")
    return vector.float()
