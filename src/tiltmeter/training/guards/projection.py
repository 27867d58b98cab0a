"""The collapse study's projection, and the same with a subspace that follows the weights."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from tiltmeter.skills import Skill
from tiltmeter.training.guards.guard import Guard
from tiltmeter.training.guards.subspace import outside, skill_subspaces


class Projection(Guard):
    """Removes the skills' subspace from every step: `dtheta <- (1 - V V^T) dtheta`, per weight matrix.

    V holds the `dims` top eigenvectors of each skill's Fisher information with respect to what trains (the weights, or
    A and B of an adapter). Taken at the start only, it is the first-step projection of the collapse study (arXiv
    2602.15799), which curvature defeats: the update stays outside of a subspace that has turned away. With `every`,
    V is taken anew at the present weights every so many steps, and when a run is resumed.

    Memory: `dims` times what trains, for each skill; N times while V is found. Time: N backward passes each time.

    Args:
        skills: what is to be kept.
        dims: directions per weight matrix and skill.
        every: steps from one V to the next; None for the first one only.
        tokenizer: as for every guard.
    """

    def __init__(
        self,
        skills: Sequence[Skill],
        dims: int = 16,
        every: int | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> None:
        super().__init__(skills, tokenizer)
        self.dims, self.every = dims, every
        self._bases: list[Tensor] = []

    def prepare(self) -> None:
        """Takes the first V: at the start, or where a tracked run goes on."""
        if self.every is None:
            self.check_start()
        with self.trained.at(self.trained.start if self.every is None else self.trained.read()):
            self._bases = skill_subspaces(self.kept, self.dims)

    def follow(self) -> None:
        """Takes V anew where it is due, at the weights before the step."""
        if self.every and self.step % self.every == 0:
            self._bases = skill_subspaces(self.kept, self.dims)

    def corrected(self, before: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
        """The step without what lies in V."""
        return before + outside(self.trained.read() - before, self._bases)
