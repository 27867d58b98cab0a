"""The schema of a spectrum's `result.json`."""

from typing import Literal

from pydantic import Field

from tiltmeter.runs.results import Interval, Record, Result


class Shape(Record):
    """The spectrum of one text's Fisher matrix F over all modules.

    The intervals of the skill and of sampled completions are 95 % jackknife intervals over examples; those of random
    texts are mean, least and largest over the draws.

    Attributes:
        trace, lambda_1, lambda_d, tail: of F; `tail` is the sum behind lambda_d. Means over the draws.
        top_share: what the d largest eigenvalues hold of the trace.
        participation_ratio: (sum lambda)^2 / sum lambda^2, at most N.
        equalised_top_share, equalised_participation_ratio: the same once all gradients have equal length.
    """

    trace: float
    lambda_1: float
    lambda_d: float
    tail: float
    top_share: Interval
    participation_ratio: Interval
    equalised_top_share: Interval
    equalised_participation_ratio: Interval


class SizeRow(Record):
    """Sub-samples of `size` examples of a text: mean, 5th and 95th percentile over draws."""

    text: str
    size: int
    participation_ratio: Interval
    top_share: Interval


class Split(Record):
    """Two random halves of the skill's examples, `examples` each: what sampling alone turns. Mean, least, largest."""

    examples: int
    sine: Interval
    overlap: Interval


class Turned(Record):
    """Another Fisher matrix F_t against the skill's F_0: subspaces of the d largest eigenvalues over all modules.

    Attributes:
        angles: principal angles in degrees, descending.
        sine: ||P_0 - P_t||, the sine of the largest.
        overlap: mean squared cosine of the angles; 1 for one subspace.
        trace_ratio: tr F_t / tr F_0.
        distance: ||F_t - F_0||.
        gap: lambda_d - lambda_{d+1} of F_0.
        bound: 2 distance / gap; null where there is no gap. It says something below 1 only.
    """

    angles: list[float]
    sine: float
    overlap: float
    trace_ratio: float
    distance: float
    gap: float
    bound: float | None


class RotationRow(Record):
    """A checkpoint as the user gave it; `turned` is null where fewer than d directions have curvature."""

    checkpoint: str
    turned: Turned | None


class Flat(Record):
    """What a random direction of norm 1 meets.

    Attributes:
        size: n, the measured weights.
        energy: d/n, its expected share in the d largest directions.
        loss: tr(F)/(2n), its expected quadratic utility loss; that of the first eigenvector is lambda_1/2.
    """

    size: int
    energy: float
    loss: float


class RankBound(Record):
    """The bound `rank F <= r i` by module: how many of `modules` it holds below the N of the examples.

    Attributes:
        median_share: median of r/o, the dimensions of 99 % of the output gradients' energy over the output width.
    """

    modules: int
    below_n: int
    median_share: float


class SkillSpectrum(Record):
    """All that was measured of one skill of `examples` examples.

    Attributes:
        nulls: kind of random text -> its spectrum.
        labels: the Fisher of completions drawn from the model against that of the reference completions.
        split: null where half of the examples are fewer than d.
    """

    examples: int
    data: Shape
    sampled: Shape
    nulls: dict[str, Shape]
    sizes: list[SizeRow]
    labels: Turned | None
    split: Split | None
    flat: Flat
    rank_bound: RankBound
    rotations: list[RotationRow] = Field(default_factory=list)


class SpectrumResult(Result):
    """Spectra of skills at one model, and their rotation along checkpoints; `draws` is the number of random texts."""

    verb: Literal["spectrum"] = "spectrum"
    dims: int
    draws: int
    skills: dict[str, SkillSpectrum]
    not_covered: dict[str, str]
