"""What an update does to skills, and what the tuned model does, beside the base."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor

from tiltmeter.behaviour.harmfulness import Judged, judge_answers
from tiltmeter.behaviour.judges import Judge
from tiltmeter.behaviour.utility import UtilityLoss
from tiltmeter.curvature.fisher import Fisher
from tiltmeter.curvature.nulls import Null, dense_nulls, same_rank_nulls
from tiltmeter.curvature.overlap import Overlap, overlap_scores
from tiltmeter.curvature.projection import projected_scores
from tiltmeter.generation import Sampling
from tiltmeter.likelihood import completion_lengths, log_likelihoods
from tiltmeter.models import Model, chat_template_hash
from tiltmeter.tokens import Encoded
from tiltmeter.updates.update import Update

STUDY_K = 4096  # the projection dimension of the collapse study, for the floor when no projection is asked for


@dataclass(frozen=True)
class Settings:
    """What is measured of an update.

    Attributes:
        dims: number of largest eigenvalues of the Fisher to report.
        projected: dimension of the study's random projection; None leaves it out.
        draws: random updates of the observed rank and spectrum that are measured.
        seed: of the nulls and the projection.
    """

    dims: PositiveInt = 8
    projected: PositiveInt | None = None
    draws: Annotated[int, Field(ge=2)] = 20
    seed: int = 0


@dataclass(frozen=True)
class Figures:
    """The curvature of one skill along one update, with its nulls.

    Attributes:
        top: the largest eigenvalues of the Fisher over all modules, descending.
        projected: the study's score, None when not asked for; `k` is the dimension of its noise floor.
    """

    overlap: Overlap
    dense: Null
    same_rank: Null
    top: Float[Tensor, " d"]
    projected: float | None
    k: int

    @property
    def first_order(self) -> float:
        """The first-order prediction of the utility loss: `-mean_n c_n(dW)`, positive for harm."""
        return -float(self.overlap.coordinates.sum(0).mean())

    @property
    def quadratic(self) -> float:
        """The second-order prediction of the utility loss, `OS / 2`."""
        return self.overlap.exact / 2


@dataclass(frozen=True)
class Observation:
    """What one model does.

    Attributes:
        likelihoods: skill -> log-likelihood of each reference completion, summed over its tokens.
        judged: prompt set -> judged answers.
        chat_template: sha256 of the chat template.
    """

    likelihoods: Mapping[str, Float[Tensor, " N"]]
    judged: Mapping[str, Judged]
    chat_template: str


def measure(fisher: Fisher, updates: Sequence[Update], settings: Settings) -> list[Figures]:
    """The curvature of a skill along several updates; coordinates, Gram, nulls and projection are shared passes."""
    overlaps = overlap_scores(fisher, updates)
    top = torch.linalg.eigvalsh(fisher.gram().sum(0)).flip(0)[: settings.dims]
    dense = dense_nulls(fisher, overlaps, seed=settings.seed)
    same_rank = same_rank_nulls(fisher, updates, settings.draws, settings.seed)
    projected: list[float] | list[None] = [None] * len(updates)
    if settings.projected:
        projected = projected_scores(fisher, updates, settings.projected, settings.seed).total.tolist()
    k = settings.projected or STUDY_K
    return [
        Figures(overlap, null, rotated, top, score, k)
        for overlap, null, rotated, score in zip(overlaps, dense, same_rank, projected, strict=True)
    ]


def observe(
    model: Model,
    skills: Mapping[str, Sequence[Encoded]],
    prompts: Mapping[str, Sequence[str]],
    judge: Judge | None,
    sampling: Sampling,
) -> Observation:
    """Log-likelihoods on the skills and judged answers to the prompts."""
    judged = (
        {} if judge is None else {name: judge_answers(model, texts, judge, sampling) for name, texts in prompts.items()}
    )
    likelihoods = {name: log_likelihoods(model, encoded) for name, encoded in skills.items()}
    return Observation(likelihoods, judged, chat_template_hash(model.tokenizer))


def utility_losses(
    skills: Mapping[str, Sequence[Encoded]], before: Observation, after: Observation
) -> dict[str, UtilityLoss]:
    """The utility loss of each skill, from what both models found of the same tokens."""
    return {
        name: UtilityLoss(before.likelihoods[name] - after.likelihoods[name], completion_lengths(encoded))
        for name, encoded in skills.items()
    }
