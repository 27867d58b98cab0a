"""The schema of `transfer`'s `result.json`: directions of some models, carried to others, beside controls."""

from typing import Literal

from pydantic import Field

from tiltmeter.runs.judge_result import JudgeRecord, SetRecord
from tiltmeter.runs.results import Interval, Record, Result
from tiltmeter.runs.steer_result import ControlRecord, SteerVerdict


class SubjectRecord(Record):
    """One model.

    Attributes:
        block: the name of the block that is read and edited; `width` of its states.
        norm: of its own direction.
        base, tuned: the outcome without steering; null where no answer has a verdict.
    """

    base: str
    tuned: str
    benign: str | None
    block: str
    width: int
    norm: float
    base_outcome: Interval | None
    tuned_outcome: Interval | None


class MapRecord(Record):
    """One map between the base models' states on the common prompts.

    Attributes:
        r2: held out, over folds of prompts; `r2_shuffled` with the pairs of prompts shuffled, its control. Of "stitch":
            those of the ridge map that its training begins from.
        cosine: of the carried direction with the target's own.
        random_cosine: 95th percentile of |cosine| over carried random directions.
        effective_rank: (sum s_i^2)^2 / sum s_i^4 of the map's singular values.
        norm_ratio: length of the carried direction over that of the target's own.
        penalty_at_edge: the ridge penalty is the smallest or largest of those tried; null for other maps.
        kl: from the target to itself with stitched states, held out, in nats; `kl_ridge` with those of the ridge map
            that training began from; null for other maps.
    """

    source: str
    target: str
    map: str
    r2: float
    r2_shuffled: float
    cosine: float
    random_cosine: float
    effective_rank: float
    norm_ratio: float
    penalty_at_edge: bool | None = None
    kl: float | None = None
    kl_ridge: float | None = None


class RouteRecord(Record):
    """Steering `target` along what `source` gives: its own direction, or one carried by a map.

    Attributes:
        way: "own", a map's name, or "span" and the map's name, several directions at once.
        effect: how far the outcome goes the wanted way; null where no answer has a verdict.
        p_causal, p_specific: see `steer`; of this route alone, one of many.
    """

    source: str
    target: str
    way: str
    effect: Interval | None
    p_causal: float
    p_specific: float
    can_pass: bool
    verdict: SteerVerdict
    sentence: str
    controls: list[ControlRecord]
    coherence_fall: Interval | None
    coherent_on: str | None = None


class Role(Record):
    """What a model gives to the others on average, and what it takes from them."""

    model: str
    way: str
    donor: Interval | None
    receiver: Interval | None


class Asymmetry(Record):
    """`T_ij - T_ji`: what `first` gives to `second` more than the other way round."""

    first: str
    second: str
    way: str
    difference: Interval


class TransferResult(Result):
    """A matrix of transfers.

    Attributes:
        outcome: what is to change, and which way that is wanted.
        span: how many directions are carried at once besides; 0 for none.
        draws: of each random kind; 0 where no route had an effect to compare.
        common: different prompts that maps and directions were made from.
        routes: every ordered pair of models, the diagonal included, in every way.
    """

    verb: Literal["transfer"] = "transfer"
    outcome: str
    wanted: Literal["lower", "higher"]
    dose: float
    where: Literal["last", "prompt", "all"]
    span: int = 0
    draws: int
    common: int
    models: dict[str, SubjectRecord]
    judge: JudgeRecord
    sets: dict[str, SetRecord]
    watched: dict[str, SetRecord] = Field(default_factory=dict)
    sampling: dict[str, float]
    maps: list[MapRecord]
    routes: list[RouteRecord]
    roles: list[Role] = Field(default_factory=list)
    asymmetries: list[Asymmetry] = Field(default_factory=list)
