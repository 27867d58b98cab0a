"""The schema of `direction`'s `result.json`: what separates a tuned model's activations from its base's, by block."""

from typing import Literal

from pydantic import Field

from tiltmeter.runs.results import Interval, Record, Result


class Separated(Record):
    """Base against tuned along one direction; see `tiltmeter.activations.separation.separability.Separation`.

    Attributes:
        in_sample: balanced accuracy on the prompts that the direction was found on; proves nothing.
        held_out: the same, cross-fitted; `auroc` and `d_prime` too.
        d_prime: null where it is infinite: no projection varies.
    """

    in_sample: float
    held_out: Interval
    auroc: Interval
    d_prime: float | None


class MeansSeparated(Separated):
    """Along the difference in means v.

    Attributes:
        norm: ||v||.
        p: of the AUROC under swaps within pairs.
    """

    norm: float
    p: float


class Halves(Record):
    """Cosine between the directions of two random halves of the prompts: mean, lowest and highest over the draws."""

    mean: float
    lowest: float
    highest: float


class Beside(Record):
    """Another fine-tune of the same base on the same prompts, and the cosine of its direction with the tuned one's."""

    separated: MeansSeparated
    cosine: float


class Written(Record):
    """Of what one layer's change writes into the residual stream, the share along v; see `WrittenShare`.

    Attributes:
        share: of the change's energy; by chance 1/d, below `chance_high` in 95 % of random orientations.
        span_cosine: of v with the span of the first `components` left singular vectors, by chance `span_cosine_high`.
    """

    layer: str
    share: float
    chance: float
    chance_high: float
    span_cosine: float
    span_cosine_high: float
    components: int


class Forecast(Record):
    """The shift of mean activations that the update makes to first order, beside the measured v."""

    cosine: float
    norm_ratio: float


class BlockRecord(Record):
    """One block.

    Attributes:
        tuned: along the difference in means; `logistic` and `principal` along two other directions, for comparison.
        beside: other fine-tunes by name.
        written, forecast: what the update's weights say of v; null where they were not read, or nothing below changes.
    """

    block: str
    tuned: MeansSeparated
    logistic: Separated
    principal: Separated
    halves: Halves
    beside: dict[str, Beside] = Field(default_factory=dict)
    written: list[Written] | None = None
    forecast: Forecast | None = None


class DirectionResult(Result):
    """One direction from base to tuned.

    Attributes:
        prompts: different prompts; `repeated` more were left out.
        folds, permutations, draws: of cross-fitting, of the null of swaps, of halves.
        best_p: of the largest AUROC over blocks, against the largest under the same swaps in every block.
        place, tokens: where activations were read.
        not_covered: parameters that changed but that the weights' forecast does not see: name -> norm.
        files: the direction, relative to the run folder.
    """

    verb: Literal["direction"] = "direction"
    prompts: int
    repeated: int
    folds: int
    permutations: int
    draws: int
    best_p: float
    place: Literal["output", "input", "attention", "mlp"]
    tokens: Literal["last", "prompt", "answer"]
    beside: dict[str, str]
    blocks: list[BlockRecord]
    not_covered: dict[str, float] = Field(default_factory=dict)
    files: list[str]
