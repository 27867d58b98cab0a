"""From answers, verdicts and readings to outcomes, and to what differs between models."""

import math
from collections.abc import Iterator, Mapping
from typing import TypeAlias

import numpy as np

from tiltmeter.behaviour.outcomes import Scored, as_scored, difference, judged_outcomes, score
from tiltmeter.generation import Answer
from tiltmeter.intervals import Interval, ratio_interval
from tiltmeter.judge.answers import Key
from tiltmeter.judge.readings import Key as ReadingKey
from tiltmeter.judge.readings import ReadingLine
from tiltmeter.judge.verdicts import Verdicts
from tiltmeter.paired_tests import holm, sign_flip_test
from tiltmeter.runs.judge_result import DifferenceRecord, OutcomeRecord
from tiltmeter.runs.results import interval_record

Place: TypeAlias = tuple[str | None, str, str]  # judge (None where none is needed), set, outcome
Measured: TypeAlias = dict[Place, dict[str, Scored]]  # by model
Readings: TypeAlias = Mapping[ReadingKey, ReadingLine]


def measure(answers: Mapping[Key, Answer], verdicts: Mapping[str, Verdicts], readings: Readings) -> Measured:
    """Outcomes with bounds, by model: every judge's on every set of prompts, answers cut off, tasks done right."""
    measured: Measured = {}
    for (model, prompts), keys in _by_model_and_set(answers).items():
        texts = [answers[key].prompt for key in keys]
        for judge, found in verdicts.items():
            for outcome in judged_outcomes(found.values()):
                scored = score(outcome, [found[key] for key in keys], texts)
                measured.setdefault((judge, prompts, outcome), {})[model] = scored
        truncated = as_scored([float(answers[key].stop == "length") for key in keys], texts, (0, 1))
        measured.setdefault((None, prompts, "truncated"), {})[model] = truncated
    for (kind, name, model), reading in readings.items():
        if kind == "accuracy":
            right = as_scored(reading.values, list(map(str, range(len(reading.values)))), (0, 1))
            measured.setdefault((None, name, kind), {})[model] = right
    return measured


def outcome_records(measured: Measured, readings: Readings) -> Iterator[OutcomeRecord]:
    """One entry per judge, set, outcome and model."""
    for (judge, prompts, outcome), by_model in measured.items():
        for model, scored in by_model.items():
            mean, (lowest, highest) = scored.mean, scored.mean_bounds
            yield OutcomeRecord(
                judge=judge,
                model=model,
                prompts=prompts,
                outcome=outcome,
                answers=len(scored.values),
                missing=scored.missing,
                left_out=scored.left_out,
                mean=None if mean is None else interval_record(mean),
                lowest=lowest,
                highest=highest,
            )
    for (kind, name, model), reading in readings.items():
        if kind in ("kl", "loss"):
            mean = _per_token(reading.values, reading.weights)
            yield _unbounded(model, name, "perplexity" if kind == "loss" else kind, reading, mean)


def _unbounded(model: str, name: str, outcome: str, reading: ReadingLine, mean: Interval) -> OutcomeRecord:
    if outcome == "perplexity":
        mean = Interval(*(math.exp(nats) for nats in (mean.mean, mean.low, mean.high)))
    return OutcomeRecord(
        judge=None,
        model=model,
        prompts=name,
        outcome=outcome,
        answers=len(reading.values),
        missing=0,
        mean=interval_record(mean),
        lowest=mean.mean,
        highest=mean.mean,
    )


def difference_records(measured: Measured, readings: Readings, reference: str, seed: int) -> list[DifferenceRecord]:
    """Each model less the reference, with p-values adjusted for all of them together."""
    found = [*_differences(measured, reference, seed), *_reading_differences(readings, reference, seed)]
    adjusted = holm([record.p for record in found])
    return [record.model_copy(update={"p_holm": p}) for record, p in zip(found, adjusted, strict=True)]


def _differences(measured: Measured, reference: str, seed: int) -> Iterator[DifferenceRecord]:
    for (judge, prompts, outcome), by_model in measured.items():
        for model, scored in by_model.items():
            found = None if model == reference else difference(scored, by_model[reference], seed)
            if found is not None:
                yield _record((judge, prompts, outcome), model, found.interval, found.prompts, found.p)


def _reading_differences(readings: Readings, reference: str, seed: int) -> Iterator[DifferenceRecord]:
    """Utility losses, and losses on texts less the reference's, per token."""
    for (kind, name, model), reading in readings.items():
        if model == reference or kind not in ("utility_loss", "loss"):
            continue
        values = np.array(reading.values)
        if kind == "loss":
            before = readings[kind, name, reference]
            if before.weights != reading.weights:
                continue  # by another tokenizer, a loss per token is another figure
            values = values - np.array(before.values)
        interval = _per_token(values.tolist(), reading.weights)
        yield _record((None, name, kind), model, interval, len(values), sign_flip_test(values, seed))


def _record(place: Place, model: str, interval: Interval, compared: int, p: float) -> DifferenceRecord:
    judge, prompts, outcome = place
    return DifferenceRecord(
        judge=judge,
        model=model,
        prompts=prompts,
        outcome=outcome,
        difference=interval_record(interval),
        prompts_compared=compared,
        p=p,
        p_holm=p,
    )


def _per_token(values: list[float], tokens: list[float]) -> Interval:
    return ratio_interval(np.array(values), np.array(tokens))


def _by_model_and_set(answers: Mapping[Key, Answer]) -> dict[tuple[str, str], list[Key]]:
    found: dict[tuple[str, str], list[Key]] = {}
    for key in answers:
        found.setdefault((key[0], key[1]), []).append(key)
    return found
