"""From answers and verdicts to outcomes, and to what differs between models."""

from collections.abc import Iterator, Mapping
from typing import TypeAlias

from tiltmeter.behaviour.outcomes import Scored, as_scored, difference, judged_outcomes, score
from tiltmeter.generation import Answer
from tiltmeter.judge.answers import Key
from tiltmeter.judge.verdicts import Verdicts
from tiltmeter.paired_tests import holm
from tiltmeter.runs.judge_result import DifferenceRecord, OutcomeRecord
from tiltmeter.runs.results import interval_record

Place: TypeAlias = tuple[str | None, str, str]  # judge (None where none is needed), set of prompts, outcome
Measured: TypeAlias = dict[Place, dict[str, Scored]]  # by model


def measure(answers: Mapping[Key, Answer], verdicts: Mapping[str, Verdicts]) -> Measured:
    """Every outcome of every judge on every set of prompts, by model; and how many answers were cut off."""
    measured: Measured = {}
    for (model, prompts), keys in _by_model_and_set(answers).items():
        texts = [answers[key].prompt for key in keys]
        for judge, found in verdicts.items():
            for outcome in judged_outcomes(found.values()):
                scored = score(outcome, [found[key] for key in keys], texts)
                measured.setdefault((judge, prompts, outcome), {})[model] = scored
        truncated = as_scored([float(answers[key].stop == "length") for key in keys], texts, (0, 1))
        measured.setdefault((None, prompts, "truncated"), {})[model] = truncated
    return measured


def outcome_records(measured: Measured) -> Iterator[OutcomeRecord]:
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
                mean=None if mean is None else interval_record(mean),
                lowest=lowest,
                highest=highest,
            )


def difference_records(measured: Measured, reference: str, seed: int) -> list[DifferenceRecord]:
    """Each model less the reference, with p-values adjusted for all of them together."""
    found = list(_differences(measured, reference, seed))
    adjusted = holm([record.p for record in found])
    return [record.model_copy(update={"p_holm": p}) for record, p in zip(found, adjusted, strict=True)]


def _differences(measured: Measured, reference: str, seed: int) -> Iterator[DifferenceRecord]:
    for (judge, prompts, outcome), by_model in measured.items():
        for model, scored in by_model.items():
            found = None if model == reference else difference(scored, by_model[reference], seed)
            if found is not None:
                yield DifferenceRecord(
                    judge=judge,
                    model=model,
                    prompts=prompts,
                    outcome=outcome,
                    difference=interval_record(found.interval),
                    prompts_compared=found.prompts,
                    p=found.p,
                    p_holm=found.p,
                )


def _by_model_and_set(answers: Mapping[Key, Answer]) -> dict[tuple[str, str], list[Key]]:
    found: dict[tuple[str, str], list[Key]] = {}
    for key in answers:
        found.setdefault((key[0], key[1]), []).append(key)
    return found
