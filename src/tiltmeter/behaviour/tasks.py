"""Tasks with an answer, and when an answer to one is right."""

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from tiltmeter.errors import InputError
from tiltmeter.rows import file_rows

_PROMPTS = ("prompt", "question")
_KNOWN = (*_PROMPTS, "answer")
_FINAL = "####"  # GSM8K's mark before the final answer
_NUMBER = re.compile(r"(?<![\w.])(-?)[$€£]?(\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)")
_ARTICLES = re.compile(r"\b(a|an|the)\b")


@dataclass(frozen=True)
class Task:
    """A prompt with its right answer; with `options`, one of which is the answer, the most likely one is chosen.

    Attributes:
        where: file and row, for messages to the user.
    """

    prompt: str
    answer: str
    options: tuple[str, ...] = ()
    where: str = "task"


def load_tasks(path: str | Path) -> list[Task]:
    """Tasks of a JSONL, CSV or Parquet file: `prompt` (or `question`), `answer`, and perhaps a list of `options`.

    Raises:
        InputError: a file that cannot be read, a row without prompt or answer, an answer that is none of the options,
            options twice the same; it names file and row.
    """
    tasks = [_task(where, row) for where, row in file_rows(Path(path), _KNOWN)]
    if not tasks:
        raise InputError(f"{path}: expected at least one task, found none")
    return tasks


def is_right(text: str, answer: str) -> bool:
    """Whether an answer in words agrees with the right answer.

    A right answer that is a number, or that ends in `#### NUMBER` (GSM8K), is compared with the number after the text's
    own `####`, else with the last number of the text, by value (1,200 = 1200.0). Any other is compared as a whole,
    without regard to case, punctuation, articles and spaces (SQuAD).
    """
    final = answer.rpartition(_FINAL)[2]
    number = _whole_number(final)
    if number is None:
        return bool(_normalised(final)) and _normalised(text) == _normalised(final)
    return _last_number(text.rpartition(_FINAL)[2]) == number


def _task(where: str, row: Mapping[str, Any]) -> Task:
    prompts = [row[name] for name in _PROMPTS if row.get(name)]
    if not prompts or not isinstance(prompts[0], str) or not prompts[0].strip():
        raise InputError(f"{where}: expected a text in column prompt or question")
    answer, options = row.get("answer"), row.get("options") or []
    if isinstance(answer, bool) or not isinstance(answer, str | int | float) or not str(answer).strip():
        raise InputError(f"{where}: expected a text or a number in column answer")
    if not isinstance(options, list) or not all(isinstance(option, str) and option.strip() for option in options):
        raise InputError(f"{where}: expected a list of texts in column options")
    if options and (options.count(str(answer)) != 1 or len(set(options)) < max(len(options), 2)):
        raise InputError(f"{where}: expected an answer that is one of two or more different options")
    return Task(prompts[0], str(answer), tuple(options), where)


def _normalised(text: str) -> str:
    plain = text.casefold().translate(str.maketrans("", "", string.punctuation))
    return " ".join(_ARTICLES.sub(" ", plain).split())


def _whole_number(text: str) -> Decimal | None:
    found = _NUMBER.fullmatch(_plain_signs(text).strip().rstrip("."))
    return _value(found) if found else None


def _last_number(text: str) -> Decimal | None:
    found = list(_NUMBER.finditer(_plain_signs(text)))
    return _value(found[-1]) if found else None


def _plain_signs(text: str) -> str:
    return text.replace("\u2212", "-")


def _value(found: re.Match[str]) -> Decimal:
    return Decimal(found[1] + found[2].replace(",", ""))
