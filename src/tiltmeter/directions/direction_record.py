"""What was measured of a direction, as it is saved."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from tiltmeter.activations.capture import Activations
from tiltmeter.activations.direction import Direction
from tiltmeter.activations.first_order import agreement
from tiltmeter.activations.separation.probes import logistic_probe, principal_component
from tiltmeter.activations.separation.separability import Separability, Separation, separability, separation
from tiltmeter.activations.separation.stability import cosine, stability
from tiltmeter.activations.writing import WrittenShare
from tiltmeter.directions.direction_request import Tests
from tiltmeter.runs.direction_result import Beside, BlockRecord, Forecast, Halves, MeansSeparated, Separated, Written
from tiltmeter.runs.results import interval_record

TUNED = ""  # the fine-tune that the run is about, among those beside it


@dataclass(frozen=True)
class Weights:
    """What the update's weights say: shares by block and layer, the forecast shift by block, what is not in it."""

    written: Mapping[str, Mapping[str, WrittenShare]]
    forecast: Mapping[str, Float[Tensor, " d"]]
    not_covered: Mapping[str, float]


def block_record(
    block: str,
    before: Activations,
    after: Mapping[str, Activations],
    made: Mapping[str, Direction],
    tests: Tests,
    weights: Weights | None,
    found: Separability,
) -> BlockRecord:
    """One block's figures, for the tuned model, which are found already, and for each beside it."""
    base, tuned = before.per_prompt(block), after[TUNED].per_prompt(block)
    probed = [
        _separated(separation(base, tuned, probe, tests.folds, tests.seed, block))
        for probe in (logistic_probe, principal_component)
    ]
    halves = stability(base, tuned, tests.draws, tests.seed, block)
    return BlockRecord(
        block=block,
        tuned=_means(found),
        logistic=probed[0],
        principal=probed[1],
        halves=Halves(mean=halves.mean, lowest=halves.lowest, highest=halves.highest),
        beside={
            name: Beside(
                separated=_means(separate(base, states.per_prompt(block), tests, f"{name}, {block}")),
                cosine=cosine(made[name][block], made[TUNED][block]),
            )
            for name, states in after.items()
            if name != TUNED
        },
        written=None if weights is None else _written(weights.written.get(block, {})),
        forecast=None if weights is None else _forecast(weights.forecast[block], made[TUNED][block]),
    )


def separate(base: Tensor, tuned: Tensor, tests: Tests, name: str) -> Separability:
    """How well the difference in means separates them, tested as was asked."""
    return separability(base, tuned, tests.folds, tests.permutations, tests.seed, name)


def _means(found: Separability) -> MeansSeparated:
    return MeansSeparated(**_separated(found).model_dump(), norm=found.norm, p=found.p)


def _separated(found: Separation) -> Separated:
    return Separated(
        in_sample=found.in_sample,
        held_out=interval_record(found.held_out),
        auroc=interval_record(found.auroc),
        d_prime=found.d_prime if math.isfinite(found.d_prime) else None,
    )


def _written(shares: Mapping[str, WrittenShare]) -> list[Written]:
    return [
        Written(
            layer=layer,
            share=share.share,
            chance=share.chance,
            chance_high=share.chance_high,
            span_cosine=share.span_cosine,
            span_cosine_high=share.span_cosine_high,
            components=share.components,
        )
        for layer, share in shares.items()
    ]


def _forecast(forecast: Tensor, measured: Tensor) -> Forecast | None:
    if not forecast.any():
        return None
    found = agreement(forecast, measured)
    return Forecast(cosine=found.cosine, norm_ratio=found.norm_ratio)
