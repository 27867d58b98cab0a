"""One skill, measured again and again while a model trains."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from jaxtyping import Float
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor

from tiltmeter.behaviour.utility import UtilityLoss
from tiltmeter.curvature.fisher import Fisher, Labels, Reduction
from tiltmeter.curvature.instability import Subspace
from tiltmeter.curvature.joint import joint_gram
from tiltmeter.curvature.rotation import Rotation, rotation
from tiltmeter.curvature.sites import sites
from tiltmeter.curvature.sweep import Observer
from tiltmeter.likelihood import completion_lengths, log_likelihoods
from tiltmeter.models import Model
from tiltmeter.skills import Skill
from tiltmeter.training.displacement import Displacement
from tiltmeter.training.exponent import foreseen, local_exponent
from tiltmeter.training.reading import Moment, Reading

Context = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class Gauging:
    """How a skill is measured during training; see `Fisher`.

    Attributes:
        dims: d, of the subspace that drift and rotation are about.
        labels, reduction, batch_size, max_length: as in `Fisher`; the utility loss has the same reduction.
        memory: bytes for kept gradients or updates.
        rotates: every so many readings has the rotation, which costs twice as much again; 0 for none.
    """

    dims: PositiveInt = 8
    labels: Labels = "data"
    reduction: Reduction = "sum"
    batch_size: PositiveInt = 8
    max_length: PositiveInt | None = None
    memory: PositiveInt = 1 << 30
    rotates: NonNegativeInt = 4


class Gauge:
    """What a skill has at the base, measured once, and its readings.

    Args:
        displacement: of the model that trains.
        skill: prompts with reference completions.
        how: see there.
    """

    def __init__(self, displacement: Displacement, skill: Skill, how: Gauging) -> None:
        self._displacement, self._how, self.name = displacement, how, skill.name
        self._fisher = _FisherInTraining(displacement.at_base, displacement.model, skill, how)
        self._lengths = completion_lengths(self._fisher.encoded)
        self._before = self._likelihoods(displacement.at_base)
        self._gram = self._fisher.gram().sum(0)
        self._subspace = Subspace(self._gram, how.dims)

    @property
    def tokens(self) -> int:
        """In the skill's examples, prompts included."""
        return sum(len(example.ids) for example in self._fisher.encoded)

    def read(self, now: Moment, earlier: Sequence[Reading], with_rotation: bool) -> Reading:
        """Measure `theta - theta_0` as it is now.

        Args:
            now: the step that was done.
            earlier: the readings so far of the same skill, for the local exponent.
            with_rotation: measure the rotation of the subspace too.
        """
        update = self._displacement.update()
        norm = math.hypot(*(update[name].norm() for name in self._fisher.modules if name in update))
        coordinates = self._fisher.coordinates([update])[0].sum(0)
        loss = self._loss()
        losses = loss.by_example if self._how.reduction == "sum" else loss.by_example / self._lengths
        mean = loss.per_completion if self._how.reduction == "sum" else loss.per_example_token
        exponent = local_exponent([*((each.time, each.losses) for each in earlier), (now.time, losses.tolist())])
        turned = self._rotation() if with_rotation else None
        return Reading(
            skill=self.name,
            step=now.step,
            time=now.time,
            coordinates=tuple(coordinates.tolist()),
            losses=tuple(losses.tolist()),
            norm=norm,
            overlap=float(coordinates.square().mean()),
            normalised_overlap=self._normalised(coordinates, norm),
            drift=self._subspace.weighted(coordinates),
            utility_loss=mean,
            utility_loss_per_token=loss.per_token,
            exponent=exponent,
            foreseen_loss=foreseen(mean.mean, exponent, now.time, now.end),
            rotation=None if turned is None else turned.sine,
            subspace_overlap=None if turned is None else turned.overlap,
        )

    def _loss(self) -> UtilityLoss:
        return UtilityLoss(self._before - self._likelihoods(self._displacement.at_present), self._lengths)

    def _normalised(self, coordinates: Float[Tensor, " N"], norm: float) -> float:
        scale = norm**2 * float(self._gram.trace())
        return float(coordinates.square().mean()) / scale if scale else 0.0

    def _likelihoods(self, context: Context) -> Float[Tensor, " N"]:
        with context():
            return log_likelihoods(self._displacement.model, self._fisher.encoded, self._how.batch_size)

    def _rotation(self) -> Rotation | None:
        """Of all modules together; None where d eigenvalues are not resolved, or gradients are not exact."""
        if not self._displacement.has_exact_gradients:
            return None
        present = self._fisher.inside(self._displacement.at_present)
        joint = joint_gram(self._fisher, present).at(sites(self._fisher)[:1])
        return rotation(joint, 0, self._subspace.kept)


class _FisherInTraining(Fisher):
    """A Fisher whose passes run inside a context: the model at its base, or as it is."""

    def __init__(self, context: Context, model: Model, skill: Skill, how: Gauging) -> None:
        self._context = context
        with context():
            super().__init__(
                model,
                skill,
                how.labels,
                how.reduction,
                batch_size=how.batch_size,
                max_length=how.max_length,
                memory=how.memory,
            )

    def watch(self, observers: Mapping[str, Sequence[Observer]]) -> None:
        with self._context():
            super().watch(observers)

    def inside(self, context: Context) -> "_FisherInTraining":
        """The same modules and token ids in another context."""
        other = self.of(self.encoded)
        assert isinstance(other, _FisherInTraining)
        other._context = context
        return other
