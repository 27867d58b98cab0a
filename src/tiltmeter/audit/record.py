"""An audit as it is saved: the figures of `result.json`, its tables and its transcripts."""

from collections.abc import Iterator, Mapping
from typing import Any

from tiltmeter.audit.measure import Figures, Observation
from tiltmeter.behaviour.harmfulness import Judged
from tiltmeter.behaviour.judges import Verdict
from tiltmeter.behaviour.utility import UtilityLoss
from tiltmeter.curvature.fisher import Fisher, Reduction
from tiltmeter.curvature.nulls import Null
from tiltmeter.generation import Answer
from tiltmeter.intervals import Interval
from tiltmeter.runs import results
from tiltmeter.runs.results import interval_record
from tiltmeter.skills import Skill


def skill_record(figures: Figures, loss: UtilityLoss, reduction: Reduction) -> results.Skill:
    """One skill's entry."""
    overlap = figures.overlap
    reduced = loss.per_completion if reduction == "sum" else loss.per_example_token
    return results.Skill(
        examples=len(loss.by_example),
        overlap=results.Overlap(
            exact=overlap.exact,
            normalised=overlap.normalised,
            floor=overlap.floor(figures.k),
            projected=figures.projected,
            k=figures.k,
            normalised_by_top=overlap.normalised_by_top,
        ),
        first_order=figures.first_order,
        top=results.Top(dims=len(figures.top), lambda_top=figures.top.tolist()),
        nulls=results.Nulls(
            dense=_null(figures.dense, overlap.exact), same_rank=_null(figures.same_rank, overlap.exact)
        ),
        utility_loss=results.UtilityLoss(
            mean=reduced.mean,
            low=reduced.low,
            high=reduced.high,
            quadratic=figures.quadratic,
            reduction=reduction,
            per_token=interval_record(loss.per_token),
        ),
    )


def judged_record(judged: Judged) -> results.Judged:
    """One model's rates on one set of prompts."""
    coherent = judged.coherent_rate
    return results.Judged(
        harmfulness=_optional(judged.harmfulness),
        share_of_fives=judged.share_of_fives,
        refusal_rate=_optional(judged.refusal_rate),
        coherent_rate=None if coherent is None else coherent.mean,
        answers=len(judged.answers),
        judge_failures=judged.failures,
        truncated=judged.truncated,
    )


def behaviour_records(before: Observation, after: Observation) -> dict[str, results.Behaviour] | None:
    """Both models' rates by set of prompts; None where nothing was judged."""
    return {
        name: results.Behaviour(base=judged_record(judged), tuned=judged_record(after.judged[name]))
        for name, judged in before.judged.items()
    } or None


def module_rows(name: str, figures: Figures) -> Iterator[dict[str, Any]]:
    """One row per module of `modules.parquet`."""
    overlap = figures.overlap
    columns = zip(
        overlap.modules,
        overlap.blocks,
        overlap.exact_by_module.tolist(),
        overlap.normalised_by_module.tolist(),
        overlap.floor_by_module(figures.k).tolist(),
        overlap.traces.tolist(),
        strict=True,
    )
    keys = ("module", "block", "exact", "normalised", "floor", "trace")
    return ({"skill": name, **dict(zip(keys, row, strict=True))} for row in columns)


def example_rows(name: str, skill: Skill, figures: Figures, loss: UtilityLoss) -> Iterator[dict[str, Any]]:
    """One row per example of `examples.parquet`."""
    columns = zip(
        (example.where for example in skill.examples),
        figures.overlap.coordinates.sum(0).tolist(),
        loss.by_example.tolist(),
        loss.tokens.int().tolist(),
        strict=True,
    )
    keys = ("row", "coordinate", "utility_loss", "tokens")
    return ({"skill": name, **dict(zip(keys, row, strict=True))} for row in columns)


def arrays(fishers: Mapping[str, Fisher], figures: Mapping[str, Figures]) -> dict[str, Any]:
    """Gram and coordinates of each skill: all that later linear algebra needs."""
    grams = {f"{name}.gram": fisher.gram().numpy() for name, fisher in fishers.items()}
    return grams | {f"{name}.coordinates": each.overlap.coordinates.numpy() for name, each in figures.items()}


def transcripts(before: Observation, after: Observation) -> Iterator[results.Transcript]:
    """Every judged answer, base and tuned side by side."""
    for name, base in before.judged.items():
        tuned = after.judged[name]
        for a, v, b, w in zip(base.answers, base.verdicts, tuned.answers, tuned.verdicts, strict=True):
            yield results.Transcript(prompts=name, prompt=a.prompt, base=_answer(a, v), tuned=_answer(b, w))


def _optional(interval: Interval | None) -> results.Interval | None:
    return None if interval is None else interval_record(interval)


def _null(null: Null, observed: float) -> results.Null:
    return results.Null(mean=null.mean, p95=null.p95, ratio=null.ratio(observed), draws=len(null.draws))


def _answer(answer: Answer, verdict: Verdict) -> results.Answer:
    return results.Answer(text=answer.text, stop=answer.stop, **vars(verdict))
