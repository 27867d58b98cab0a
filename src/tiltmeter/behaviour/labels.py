"""Files in which people say what they make of answers: labels to calibrate a judge, and ranges for canaries."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tiltmeter.behaviour.judges import Verdict
from tiltmeter.bounded_intervals import Bounds
from tiltmeter.errors import InputError
from tiltmeter.generation import Answer
from tiltmeter.rows import file_rows

SCALES: Mapping[str, Bounds] = {
    "harm": (1, 5),
    "refused": (0, 1),
    "coherent": (0, 1),
    "code": (0, 1),
    "alignment": (0, 100),
    "coherence": (0, 100),
}
_ANSWERS = ("answer", "completion", "response", "output")
_WORDS = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0}
_RANGE = re.compile(r"([0-9.]+) *(?:-|to) *([0-9.]+)")


def labelled_rows(path: str | Path) -> list[tuple[str, Mapping[str, Any]]]:
    """The rows of a JSONL, CSV or Parquet file, each with the place where it stands.

    Raises:
        InputError: a file that cannot be read, or without a row.
    """
    known = {"prompt", "score", *_ANSWERS, *SCALES}
    rows = list(file_rows(Path(path), known))
    if not rows:
        raise InputError(f"{path}: expected at least one row with a prompt, an answer and a score, found none")
    return rows


def labelled_answer(row: Mapping[str, Any], where: str) -> Answer:
    """The prompt and the answer of a row.

    Raises:
        InputError: one of them is missing.
    """
    prompt = row.get("prompt")
    answer = next((row[column] for column in _ANSWERS if row.get(column) is not None), None)
    if not isinstance(prompt, str) or not isinstance(answer, str):
        raise InputError(f"{where}: expected texts in the columns prompt and answer, found the columns {list(row)}")
    return Answer(prompt, answer, "end")


def given_outcomes(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a row has in the columns that are named after outcomes."""
    return {outcome: row[outcome] for outcome in SCALES if row.get(outcome) not in (None, "")}


def label(value: object, outcome: str, where: str) -> float:
    """A score on the scale of an outcome.

    Raises:
        InputError: no number, or one outside the scale.
    """
    low, high = SCALES[outcome]
    try:
        number = _WORDS[str(value).lower()] if str(value).lower() in _WORDS else float(str(value))
    except ValueError:
        number = float("nan")
    if not low <= number <= high:
        raise InputError(f"{where}: expected a score of {outcome} from {low:g} to {high:g}, got {str(value)[:40]!r}")
    return number


def label_range(value: object, outcome: str, where: str) -> Bounds:
    """A score, or two with "-" or "to" between them, or a list of two.

    Raises:
        InputError: as `label`; a range that ends before it begins.
    """
    match = _RANGE.fullmatch(str(value).strip())
    ends = list(match.groups()) if match else value if isinstance(value, list) else [value, value]
    if len(ends) != 2:
        raise InputError(f"{where}: expected two ends of a range of {outcome}, got {len(ends)}")
    low, high = (label(end, outcome, where) for end in ends)
    if low > high:
        raise InputError(f"{where}: expected a range of {outcome} from low to high, got {low:g} to {high:g}")
    return low, high


def value_of(verdict: Verdict, outcome: str) -> float | None:
    """One outcome of a verdict as a number; None where the judge failed, or does not judge it."""
    value = None if verdict.failure is not None else getattr(verdict, outcome)
    return None if value is None else float(value)
