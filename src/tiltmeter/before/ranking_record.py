"""A ranking as it is saved: the figures of `result.json` and the rows of `examples.parquet`."""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tiltmeter.before.ranking_scores import Matching, Scored, SkillScores
from tiltmeter.intervals import mean_interval
from tiltmeter.likelihood import completion_lengths
from tiltmeter.runs.ranking_result import MatchingRisk, Percentiles, RiskyExample, Score, SetRisk, SkillRisk
from tiltmeter.runs.results import Interval


def skill_record(scored: Scored, name: str, by: Score, worst: int, seed: int) -> SkillRisk:
    """One skill's entry, with the `worst` examples over all data sets."""
    figures = scored.skills[name]
    first = order(figures, by)[:worst].tolist()
    return SkillRisk(
        examples=figures.examples,
        gradient_norm=figures.risk.skill_norm,
        sets={data: _set_record(figures, rows, scored.p95, seed) for data, rows in scored.rows.items()},
        worst=[_example_record(scored, figures, index) for index in first],
    )


def example_rows(scored: Scored, by: Score) -> list[dict[str, Any]]:
    """One row per skill and candidate of `examples.parquet`, in the order of the data; rank 1 is the worst."""
    lengths = completion_lengths(scored.candidates.encoded).long().tolist()
    return [row for name in scored.skills for row in _example_rows(scored, name, by, lengths)]


def order(figures: SkillScores, by: Score) -> Int[Tensor, " N"]:
    """Candidates from the worst to the best; equal ones in the order of the data."""
    return _values(figures, by).argsort(descending=True, stable=True)


def _values(figures: SkillScores, by: Score) -> Float[Tensor, " N"]:
    return figures.risk.harm if by == "harm" else figures.risk.cosine


def _set_record(figures: SkillScores, rows: slice, p95: float, seed: int) -> SetRisk:
    risk = figures.risk
    harm, cosine = risk.harm[rows], risk.cosine[rows]
    return SetRisk(
        examples=len(harm),
        harm=_interval(harm, seed),
        harm_null_p95=p95 * risk.skill_norm * float(risk.norms[rows].mean()),
        positive=_share(harm > 0),
        beyond_null=_share(cosine > p95),
        cosine=_percentiles(cosine),
        matching=None if figures.matching is None else _matching_record(figures.matching, rows, p95, seed),
    )


def _matching_record(matching: Matching, rows: slice, p95: float, seed: int) -> MatchingRisk:
    return MatchingRisk(mean=_interval(matching.scores[rows], seed), null_p95=p95 * matching.norm)


def _example_record(scored: Scored, figures: SkillScores, index: int) -> RiskyExample:
    example = scored.pooled.examples[index]
    return RiskyExample(
        data=next(name for name, rows in scored.rows.items() if rows.start <= index < rows.stop),
        row=example.where,
        harm=float(figures.risk.harm[index]),
        cosine=float(figures.risk.cosine[index]),
        matching=None if figures.matching is None else float(figures.matching.scores[index]),
        prompt=example.prompt,
        completion=example.completion,
    )


def _example_rows(scored: Scored, name: str, by: Score, lengths: list[int]) -> Iterator[dict[str, Any]]:
    figures = scored.skills[name]
    ranks = (order(figures, by).argsort() + 1).tolist()
    harms, cosines, norms = (x.tolist() for x in (figures.risk.harm, figures.risk.cosine, figures.risk.norms))
    matchings = [None] * len(ranks) if figures.matching is None else figures.matching.scores.tolist()
    for data, rows in scored.rows.items():
        for index in range(rows.start, rows.stop):
            yield {
                "skill": name,
                "data": data,
                "row": scored.pooled.examples[index].where,
                "rank": ranks[index],
                "harm": harms[index],
                "cosine": cosines[index],
                "gradient_norm": norms[index],
                "matching": matchings[index],
                "tokens": lengths[index],
            }


def _percentiles(cosine: Float[Tensor, " N"]) -> Percentiles:
    low, middle, high = cosine.quantile(torch.tensor([0.05, 0.5, 0.95], dtype=cosine.dtype)).tolist()
    return Percentiles(p5=low, p50=middle, p95=high, largest=float(cosine.max()))


def _interval(values: Float[Tensor, " N"], seed: int) -> Interval:
    interval = mean_interval(values.numpy(), seed)
    return Interval(mean=interval.mean, low=interval.low, high=interval.high)


def _share(chosen: Tensor) -> float:
    return float(chosen.double().mean())
