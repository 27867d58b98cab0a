"""The stitching map: affine, and trained so that the target answers as with its own states, not on squared error."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.activations.hook_points import Place
from tiltmeter.activations.maps.centred import same_prompts, usable
from tiltmeter.activations.maps.linear_map import LinearMap
from tiltmeter.activations.maps.ridge import RidgeSource
from tiltmeter.activations.maps.seam import Seam
from tiltmeter.curvature.sweep import frozen
from tiltmeter.errors import InputError
from tiltmeter.models import Model
from tiltmeter.progress import track
from tiltmeter.tokens import Encoded

FEWEST = 10  # prompts: two of them are held out
HELD_OUT = 0.2
CHECKS = 10  # how often losses are taken
_FAR = 0.3  # of the spread over prompts: other prompts' states are further, the same ones in another precision nearer


@dataclass(frozen=True)
class StitchLosses:
    """Mean KL of the next token over prompts, in nats: before training, which is the ridge map's, and after.

    Held-out prompts also chose when to stop, which makes `held_out_after` low: `Seam.kl` takes prompts of neither kind.
    """

    train_before: float
    train_after: float
    held_out_before: float
    held_out_after: float


@dataclass(frozen=True, eq=False)
class StitchFit:
    """What training gave.

    Attributes:
        map: named "stitch"; its `target_mean` is the trained offset.
        start: the ridge map that training began from, fitted to the training prompts alone.
        losses: of both.
        steps: of training that the map has had; 0 where none made it better, and the map is the ridge map.
        held_out: rows of the prompts that were not trained on.
    """

    map: LinearMap
    start: LinearMap
    losses: StitchLosses
    steps: int
    held_out: tuple[int, ...]

    @property
    def kl(self) -> float:
        """The held-out loss after training."""
        return self.losses.held_out_after


def fit_stitch(
    target: Model,
    encoded: Sequence[Encoded],
    block: str,
    source_states: Float[Tensor, "N s"],
    target_states: Float[Tensor, "n t"],
    steps: int = 200,
    learning_rate: float = 0.01,
    batch_size: int = 16,
    seed: int = 0,
    place: Place = "output",
) -> StitchFit:
    """The affine map `y = A h + b` under which the target predicts the next token best from the source's states.

    Minimises the mean over prompts of `KL(p || q)`: p the target's own next-token distribution behind the prompt, q
    that with y in the place of its state at the last prompt token of the block. Only this one token is compared;
    completions are left out. The target's weights are frozen, and are as they were afterwards.

    A fifth of the prompts, drawn by the seed, is held out. Adam starts from the ridge map of the others,
    `y = y_ridge(h) + sd * (M z(h) + c)` with M and c zero; z are the source's principal coordinates over the training
    prompts, divided by their mean 1-norm, and sd is the target's standard deviation by coordinate. So A stays zero
    where the source does not vary, as in the ridge map; it turns with the source's basis, whose scale plays no part;
    and a step moves a state by about `learning_rate` standard deviations in each coordinate. The losses are taken ten
    times, and of the maps seen, the ridge map included, the one with the lowest held-out loss is kept, among those
    whose training loss is not above the ridge map's. All is in float64 but the target itself.

    For a null, give `source_states` in another order: then no more than the best constant can be learnt. Its held-out
    loss may well fall below that of its own ridge map, whose constant is the mean.

    Source: stitching as in Lenc and Vedaldi (2015) and Bansal et al. (2021); affine maps between residual streams in
    Chen et al. (2025, arXiv 2506.06609).

    Args:
        target: in eval mode.
        encoded: the N prompts for the target.
        block, place: where its state is replaced.
        source_states: of the source model on the same prompts, at their last token, in any of its blocks.
        target_states: the target's own at this hook point, as capture gives them.
        steps: of Adam, one batch each.
        learning_rate: see above; constant.
        batch_size: prompts per pass.
        seed: of the held-out prompts and the batches.

    Raises:
        InputError: different numbers of rows, fewer than ten, a value that is not finite, rows that are all equal;
            `target_states` that are not the target's on these prompts; no such block or part; a loss that is not
            finite; steps, batch size or learning rate of zero or less.
    """
    if steps < 1 or batch_size < 1 or not learning_rate > 0:
        given = f"{steps}, {batch_size}, {learning_rate:g}"
        raise InputError(f"steps, batch_size, learning_rate: expected all above 0, got {given}")
    source, own = _checked(encoded, source_states, target_states)
    seam = Seam(target, encoded, block, place, batch_size)
    _check_states(own, seam.states, block)
    rng = np.random.default_rng(seed)
    order, border = rng.permutation(len(source)).tolist(), round(HELD_OUT * len(source))
    held_out, train = sorted(order[:border]), sorted(order[border:])
    affine = _Affine(source, own, train)
    first = _seen(seam, affine, train, held_out, 0)
    if not np.isfinite([first.train, first.held_out]).all():
        raise InputError(f"{block}: the target computes NaN or Inf with the ridge map's states; load it in float32")
    kept, optimizer = first, torch.optim.Adam([affine.M, affine.c], learning_rate)
    with torch.enable_grad(), frozen(target.module):
        for step, rows in enumerate(track(_draws(train, batch_size, steps, rng), "training a stitching map", steps), 1):
            optimizer.zero_grad()
            seam.kl(affine.states(rows), rows).mean().backward()
            optimizer.step()
            if step % -(-steps // CHECKS) == 0 or step == steps:
                found = _seen(seam, affine, train, held_out, step)
                if found.train <= first.train and found.held_out < kept.held_out:
                    kept = found
    losses = StitchLosses(first.train, kept.train, first.held_out, kept.held_out)
    return StitchFit(kept.map, affine.start, losses, kept.step, tuple(held_out))


class _Seen(NamedTuple):
    """A map on the way, and its losses."""

    step: int
    map: LinearMap
    train: float
    held_out: float


def _seen(seam: Seam, affine: "_Affine", train: list[int], held_out: list[int], step: int) -> _Seen:
    with torch.no_grad():
        losses = [float(seam.kl(affine.states(rows), rows).mean()) for rows in (train, held_out)]
    return _Seen(step, affine.map(), *losses)


class _Affine:
    """`y = y_ridge + sd * (M z + c)`, see `fit_stitch`, with all prompts' z and y_ridge at hand."""

    def __init__(self, source: Float[Tensor, "N s"], own: Float[Tensor, "N t"], train: list[int]) -> None:
        ridge = RidgeSource(source[train])
        self.start = ridge.fit(own[train]).map
        z = (source - ridge.factors.mean) @ ridge.factors.right.T
        size = z[train].abs().sum(1).mean()
        self._z, self._inputs = z / size, ridge.factors.right / size
        self._begin, self._sd = self.start(source), own[train].std(0)
        self.M = torch.zeros(own.shape[1], z.shape[1], dtype=torch.float64, requires_grad=True)
        self.c = torch.zeros(own.shape[1], dtype=torch.float64, requires_grad=True)

    def states(self, rows: list[int]) -> Float[Tensor, "R t"]:
        """What goes in the place of the target's."""
        return self._begin[rows] + self._sd * (self._z[rows] @ self.M.T + self.c)

    def map(self) -> LinearMap:
        """The same for any state of the source."""
        W = self.start.matrix + self._sd[:, None] * self.M.detach() @ self._inputs
        return LinearMap(W, self.start.source_mean, self.start.target_mean + self._sd * self.c.detach(), "stitch")


def _draws(rows: list[int], size: int, steps: int, rng: np.random.Generator) -> Iterator[list[int]]:
    """So many batches: all rows in a new order, again and again."""
    passes = (rng.permutation(rows).tolist() for _ in count())
    return islice((order[at : at + size] for order in passes for at in range(0, len(order), size)), steps)


def _checked(encoded: Sequence[Encoded], source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both sides in float64 on the CPU."""
    same_prompts(source, target)
    if len(encoded) != len(source):
        raise InputError(f"expected states of each of the {len(encoded)} prompts, got {len(source)} rows")
    if len(source) < FEWEST:
        raise InputError(f"expected at least {FEWEST} prompts, of which a fifth is held out, got {len(source)}")
    return usable(source, "source").cpu(), usable(target, "target").cpu()


def _check_states(given: Float[Tensor, "N t"], own: Float[Tensor, "N d"], block: str) -> None:
    """Given in another order they would be paired with the wrong prompts."""
    if given.shape != own.shape or (given - own).norm() > _FAR * (own - own.mean(0)).norm():
        raise InputError(f"target_states are not the target's own at {block}, at the last tokens of these prompts")
