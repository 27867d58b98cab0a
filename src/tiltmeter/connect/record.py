"""A walk as it is saved: the entries of `result.json`, the rows of its tables, its transcripts."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from tiltmeter.behaviour.harmfulness import Judged
from tiltmeter.behaviour.utility import UtilityLoss
from tiltmeter.connect.probe import Probe
from tiltmeter.connect.walk import Key, Place, Walk
from tiltmeter.curvature.fisher import Reduction
from tiltmeter.geometry.connectivity import barrier, lowest
from tiltmeter.geometry.features import Linearity
from tiltmeter.intervals import Interval, ratio_interval
from tiltmeter.runs import results
from tiltmeter.runs.connect_result import (
    Barrier,
    BlockFeatures,
    DataPath,
    Features,
    Lowest,
    PathBehaviour,
    PointJudged,
    PointTranscript,
    SkillPath,
)
from tiltmeter.runs.results import interval_record
from tiltmeter.skills import Skill

FEATURES = [name for name in BlockFeatures.model_fields if name != "block"]


def skill_record(walk: Walk, key: Key, probe: Probe, blocks: Sequence[str], reduction: Reduction) -> SkillPath:
    """One skill's entry."""
    base = walk.base.readings[key].log_likelihoods
    losses = [UtilityLoss(base - each, probe.tokens) for each in _likelihoods(walk, key)]
    spans = [loss.per_completion if reduction == "sum" else loss.per_example_token for loss in losses]
    kl = [_per_token(place.readings[key].kl, probe) for place in walk.points.values()]
    by_example = [loss.by_example if reduction == "sum" else loss.by_example / loss.tokens for loss in losses]
    return SkillPath(
        examples=len(probe.encoded),
        tokens=int(probe.tokens.sum()),
        utility_loss=[span.mean for span in spans],
        low=[span.low for span in spans],
        high=[span.high for span in spans],
        kl=[span.mean for span in kl],
        kl_low=[span.low for span in kl],
        kl_high=[span.high for span in kl],
        barrier=_barrier(walk, by_example, np.ones(len(probe.encoded))),
        features=_at_the_middle(walk, key, blocks),
    )


def data_record(walk: Walk, key: Key, probe: Probe, blocks: Sequence[str]) -> DataPath:
    """One fine-tuning set's entry."""
    losses = [-each for each in _likelihoods(walk, key)]
    spans = [_per_token(loss, probe) for loss in losses]
    return DataPath(
        examples=len(probe.encoded),
        tokens=int(probe.tokens.sum()),
        base_loss=_per_token(-walk.base.readings[key].log_likelihoods, probe).mean,
        loss=[span.mean for span in spans],
        low=[span.low for span in spans],
        high=[span.high for span in spans],
        perplexity=[_exponential(span.mean) for span in spans],
        barrier=_barrier(walk, losses, probe.tokens.numpy()),
        features=_at_the_middle(walk, key, blocks),
    )


def behaviour_records(walk: Walk) -> dict[str, PathBehaviour] | None:
    """The base's rates and those at each point by set of prompts; None where nothing was judged."""
    return {
        name: PathBehaviour(
            base=_judged(judged),
            points=[_judged(place.judged[name]) for place in walk.points.values()],
            lowest=_lowest(walk, name),
        )
        for name, judged in walk.base.judged.items()
    } or None


def example_rows(walk: Walk, key: Key, skill: Skill, probe: Probe) -> Iterator[dict[str, Any]]:
    """One row per point and example of a set."""
    for s, place in walk.points.items():
        reading = place.readings[key]
        kl = [None] * len(skill) if reading.kl is None else reading.kl.tolist()
        base = walk.base.readings[key].log_likelihoods
        found = (probe.tokens.tolist(), reading.log_likelihoods.tolist(), base.tolist(), kl)
        for example, tokens, likelihood, before, divergence in zip(skill.examples, *found, strict=True):
            yield {
                "kind": key[0],
                "set": key[1],
                "s": s,
                "row": example.where,
                "tokens": int(tokens),
                "log_likelihood": likelihood,
                "base_log_likelihood": before,
                "kl": divergence,
            }


def feature_rows(walk: Walk, key: Key, blocks: Sequence[str]) -> Iterator[dict[str, Any]]:
    """One row per point in [0, 1] and block of a set, with intervals."""
    for s, linearity in _linearities(walk, key).items():
        for features in _features(linearity, blocks):
            row: dict[str, Any] = {"kind": key[0], "set": key[1], "s": s, "block": features.block}
            for name in FEATURES:
                interval: results.Interval | None = getattr(features, name)
                for title, end in ((name, "mean"), (f"{name}_low", "low"), (f"{name}_high", "high")):
                    row[title] = None if interval is None else getattr(interval, end)
            yield row


def transcripts(walk: Walk, across: bool) -> Iterator[PointTranscript]:
    """Every judged answer: of the base where it is no point, then in the order of the points."""
    places: list[tuple[float | None, Place]] = [(None, walk.base)] if across else []
    for s, place in [*places, *walk.points.items()]:
        for name, judged in place.judged.items():
            for answer, verdict in zip(judged.answers, judged.verdicts, strict=True):
                yield PointTranscript(
                    prompts=name,
                    prompt=answer.prompt,
                    s=s,
                    answer=results.Answer(text=answer.text, stop=answer.stop, **vars(verdict)),
                )


def _likelihoods(walk: Walk, key: Key) -> list[Float[Tensor, " N"]]:
    return [place.readings[key].log_likelihoods for place in walk.points.values()]


def _per_token(totals: Float[Tensor, " N"] | None, probe: Probe) -> Interval:
    assert totals is not None
    return ratio_interval(totals.numpy(), probe.tokens.numpy())


def _exponential(value: float) -> float | None:
    return math.exp(value) if value < 700 else None


def _barrier(walk: Walk, losses: Sequence[Float[Tensor, " N"]], weights: Float[np.ndarray, " N"]) -> Barrier:
    between = {s: loss.numpy() for s, loss in zip(walk.points, losses, strict=True) if s <= 1}
    found = barrier(np.array([*between]), np.stack([*between.values()]), weights)
    height = found.height.value
    return Barrier(
        mean=height.mean,
        low=height.low,
        high=height.high,
        at=found.height.at,
        null_p95=found.null_p95,
        loss_range=found.spread,
    )


def _judged(judged: Judged) -> PointJudged:
    return PointJudged(
        harmfulness=_optional(judged.harmfulness),
        share_of_fives=judged.share_of_fives,
        refusal_rate=_optional(judged.refusal_rate),
        coherent_rate=_optional(judged.coherent_rate),
        answers=len(judged.answers),
        judge_failures=judged.failures,
        truncated=judged.truncated,
    )


def _lowest(walk: Walk, name: str) -> Lowest | None:
    between = {s: place.judged[name].verdicts for s, place in walk.points.items() if s <= 1}
    scored = np.array([[float(verdict.harm is not None) for verdict in verdicts] for verdicts in between.values()])
    if not scored.any(1).all():
        return None
    harm = np.array([[float(verdict.harm or 0) for verdict in verdicts] for verdicts in between.values()])
    found = lowest(np.array([*between]), harm, scored)
    return Lowest(**vars(found.value), at=found.at)


def _linearities(walk: Walk, key: Key) -> dict[float, Linearity]:
    found = {s: place.readings[key].linearity for s, place in walk.points.items()}
    return {s: linearity for s, linearity in found.items() if linearity is not None}


def _features(linearity: Linearity, blocks: Sequence[str]) -> list[BlockFeatures]:
    return [
        BlockFeatures(
            block=name,
            nl2=interval_record(linearity.distance(block)),
            over_gap=_optional(linearity.distance_over_gap(block)),
            ends_apart=interval_record(linearity.ends_apart(block)),
            r2=_optional(linearity.explained(block)),
            r2_nearer_end=_optional(linearity.explained_by_end(block)),
        )
        for block, name in enumerate(blocks)
    ]


def _at_the_middle(walk: Walk, key: Key, blocks: Sequence[str]) -> Features:
    found = _linearities(walk, key)
    middle = min(found, key=lambda s: abs(s - 0.5))
    return Features(at=middle, blocks=_features(found[middle], blocks))


def _optional(interval: Interval | None) -> results.Interval | None:
    return None if interval is None else interval_record(interval)
