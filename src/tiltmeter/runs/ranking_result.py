"""The schema of a ranking of candidate examples: per skill, each data set's figures and the worst examples."""

from typing import Literal

from pydantic import Field

from tiltmeter.runs.results import Interval, Record, Result

Score = Literal["harm", "cosine"]


class CosineNull(Record):
    """The cosine of a random direction among `weights` numbers: normal, mean 0, this deviation and 95th percentile."""

    weights: int
    deviation: float
    p95: float


class Percentiles(Record):
    """Of the cosine over a data set's examples."""

    p5: float
    p50: float
    p95: float
    largest: float


class MatchingRisk(Record):
    """He et al.'s score, with its interval; `null_p95` is the 95th percentile of a random direction's."""

    mean: Interval
    null_p95: float


class SetRisk(Record):
    """One data set's risk for one skill; intervals are over its examples, the skill is taken as it is.

    Attributes:
        harm: mean of `harm(z) = <gbar, grad l(z)>`; positive where a step lowers the skill's likelihood.
        harm_null_p95: the 95th percentile of the mean harm where a random direction of gbar's length stands in its
            place, at most: that of a set whose gradients all point one way.
        positive: share of examples with positive harm (a random direction: one half).
        beyond_null: share whose cosine is above the null's 95th percentile (a random direction: 5 %).
    """

    examples: int
    harm: Interval
    harm_null_p95: float
    positive: float
    beyond_null: float
    cosine: Percentiles
    matching: MatchingRisk | None = None


class RiskyExample(Record):
    """A candidate that ranks high; the text is as it was read."""

    data: str
    row: str
    harm: float
    cosine: float
    matching: float | None
    prompt: str
    completion: str


class SkillRisk(Record):
    """All candidates' risk for one skill of `examples` examples, whose mean gradient has the norm `gradient_norm`."""

    examples: int
    gradient_norm: float
    sets: dict[str, SetRisk]
    worst: list[RiskyExample]


class RankingResult(Result):
    """Candidate examples ranked by what a step on them does to each skill.

    Attributes:
        by: the score that ranks them.
        harmful: the file of harmful anchors of He et al.'s score, whose safe anchors are the skill; null without one.
        not_covered: what is not measured: name -> reason.
    """

    verb: Literal["rank-examples"] = "rank-examples"
    by: Score
    harmful: str | None
    null: CosineNull
    skills: dict[str, SkillRisk]
    not_covered: dict[str, str] = Field(default_factory=dict)
