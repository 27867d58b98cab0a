"""A judge against the labels that people gave."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from tiltmeter.behaviour.agreement import Agreement, agreement
from tiltmeter.behaviour.judges import Verdict
from tiltmeter.behaviour.labels import SCALES, given_outcomes, label, labelled_answer, labelled_rows, value_of
from tiltmeter.bounded_intervals import paired_difference
from tiltmeter.errors import InputError
from tiltmeter.generation import Answer
from tiltmeter.intervals import Interval

_BANDS = 5


@dataclass(frozen=True)
class Labelled:
    """An answer, and the score that people gave to each outcome that they judged."""

    answer: Answer
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Calibration:
    """One outcome: a judge against people.

    Attributes:
        agreement: quadratic-weighted kappa, and how many answers have both scores.
        bias: mean of the judge's score less the people's, over the answers with both; None where there is none.
        bands: names of the rows and columns of `confusion`: the scores, or five equal parts of a long scale.
        confusion: answers by the people's band (rows) and the judge's (columns).
        failures: answers with a label on which the judge failed.
    """

    agreement: Agreement
    bias: Interval | None
    bands: tuple[str, ...]
    confusion: Int[np.ndarray, "B B"]
    failures: int


def load_labelled(path: str | Path) -> list[Labelled]:
    """Labels from a JSONL, CSV or Parquet file with the columns prompt, answer, and `score` or one named after each
    outcome (harm, refused, alignment, coherence, coherent, code); `score` is harm, from 1 to 5.

    Raises:
        InputError: a row without prompt, answer or score, or a score off its scale; it names file and row.
    """
    return [Labelled(labelled_answer(row, where), _scores(row, where)) for where, row in labelled_rows(path)]


def calibrate(labelled: Sequence[Labelled], verdicts: Sequence[Verdict], seed: int = 0) -> dict[str, Calibration]:
    """Each outcome of which there are labels and verdicts, or failures.

    Args:
        verdicts: on the labelled answers, in their order.
    """
    judged = [outcome for outcome in SCALES if any(getattr(verdict, outcome) is not None for verdict in verdicts)]
    wanted = [outcome for outcome in judged if any(outcome in each.scores for each in labelled)]
    return {outcome: _calibration(outcome, labelled, verdicts, seed) for outcome in wanted}


def _calibration(outcome: str, labelled: Sequence[Labelled], verdicts: Sequence[Verdict], seed: int) -> Calibration:
    kept = [(each, verdict) for each, verdict in zip(labelled, verdicts, strict=True) if outcome in each.scores]
    people = np.array([each.scores[outcome] for each, _ in kept], float)
    judge = np.array([value if (value := value_of(verdict, outcome)) is not None else np.nan for _, verdict in kept])
    both = ~np.isnan(judge)
    groups = np.unique([each.answer.prompt for each, _ in kept], return_inverse=True)[1]
    return Calibration(
        agreement(people, judge, groups, seed),
        paired_difference(judge[both], people[both], SCALES[outcome]) if both.any() else None,
        _band_names(outcome),
        _confusion(people[both], judge[both], outcome),
        sum(verdict.failure is not None for _, verdict in kept),
    )


def _scores(row: Mapping[str, Any], where: str) -> dict[str, float]:
    given = given_outcomes(row)
    if not given and row.get("score") not in (None, ""):
        given = {"harm": row["score"]}
    if not given:
        raise InputError(f"{where}: expected a column score or {', '.join(SCALES)}, found the columns {list(row)}")
    return {outcome: label(value, outcome, where) for outcome, value in given.items()}


def _edges(outcome: str) -> Float[np.ndarray, " E"]:
    """The lowest score of each band but the first."""
    low, high = SCALES[outcome]
    if high - low > _BANDS:
        return np.linspace(low, high, _BANDS + 1)[1:-1]
    return np.arange(low, high) + 0.5


def _band_names(outcome: str) -> tuple[str, ...]:
    low, high = SCALES[outcome]
    if high - low <= _BANDS:
        return tuple(f"{score:g}" for score in np.arange(low, high + 1))
    ends = [low, *_edges(outcome), high]
    return tuple(f"{start:g} to {end:g}" for start, end in pairwise(ends))


def _confusion(people: NDArray[Any], judge: NDArray[Any], outcome: str) -> Int[np.ndarray, "B B"]:
    edges = _edges(outcome)
    table = np.zeros((len(edges) + 1, len(edges) + 1), int)
    np.add.at(table, (np.searchsorted(edges, people, "right"), np.searchsorted(edges, judge, "right")), 1)
    return table
