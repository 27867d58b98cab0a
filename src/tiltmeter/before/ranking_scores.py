"""All scores of candidate examples: harm and cosine for each skill, and He et al.'s where there are harmful anchors."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from jaxtyping import Float
from scipy import stats
from torch import Tensor

from tiltmeter.curvature.example_risk import ExampleRisk, cosine_null, example_risk, weight_count
from tiltmeter.curvature.fisher import Fisher
from tiltmeter.curvature.gradient_matching import contrast_scores, first_tokens, mean_direction
from tiltmeter.curvature.mean_gradient import mean_gradient
from tiltmeter.models import Model
from tiltmeter.progress import track
from tiltmeter.requests import Passes
from tiltmeter.skills import Skill
from tiltmeter.updates.update import Update


@dataclass(frozen=True)
class Matching:
    """He et al.'s score of each candidate, and the norm of the contrast that it is the inner product with."""

    scores: Float[Tensor, " N"]
    norm: float


@dataclass(frozen=True)
class SkillScores:
    """All candidates' scores for one skill of `examples` examples with mean gradient `gradient`."""

    examples: int
    gradient: Update
    risk: ExampleRisk
    matching: Matching | None


@dataclass(frozen=True)
class Scored:
    """All data sets as one set of candidates, the rows of each in it, and the scores for each skill."""

    pooled: Skill
    rows: Mapping[str, slice]
    candidates: Fisher
    skills: Mapping[str, SkillScores]

    @cached_property
    def weights(self) -> int:
        """The number of measured weights."""
        return weight_count(self.candidates)

    @cached_property
    def deviation(self) -> float:
        """Of the cosine of a random direction."""
        return cosine_null(self.candidates)

    @property
    def p95(self) -> float:
        """95th percentile of the cosine of a random direction."""
        return self.deviation * float(stats.norm.ppf(0.95))


def score(
    base: Model, passes: Passes, skills: Mapping[str, Skill], data: Mapping[str, Skill], harmful: Skill | None = None
) -> Scored:
    """One pass over each skill and one over all candidates; the anchors take two each, and the candidates another.

    Completions are always those of the data: gradients of completions that the model draws itself have mean zero.
    """
    as_written = replace(passes, labels="data")
    pooled = Skill("data", tuple(example for each in data.values() for example in each.examples))
    candidates = as_written.fisher(base, pooled)
    gradients = [mean_gradient(as_written.fisher(base, skill)) for skill in track(skills.values(), "mean gradients")]
    risks = example_risk(candidates, gradients)
    matchings: list[Matching] | list[None] = [None] * len(skills)
    if harmful is not None:
        anchors = [first_tokens(as_written.fisher(base, each)) for each in (harmful, *skills.values())]
        matchings = _matchings(first_tokens(candidates), anchors)
    per_skill = zip(skills.items(), gradients, risks, matchings, strict=True)
    figures = {
        name: SkillScores(len(skill), gradient, risk, matching) for (name, skill), gradient, risk, matching in per_skill
    }
    return Scored(pooled, dict(_rows(data)), candidates, figures)


def _matchings(candidates: Fisher, anchors: list[Fisher]) -> list[Matching]:
    """`anchors`: harmful ones first, then each skill's."""
    harmful, *safe = [mean_direction(anchor) for anchor in track(anchors, "anchors")]
    contrasts = [(harmful - direction).loaded() for direction in safe]
    scores = contrast_scores(candidates, contrasts)
    return [Matching(values, contrast.norm()) for values, contrast in zip(scores, contrasts, strict=True)]


def _rows(data: Mapping[str, Skill]) -> Iterator[tuple[str, slice]]:
    start = 0
    for name, each in data.items():
        yield name, slice(start, start + len(each))
        start += len(each)
