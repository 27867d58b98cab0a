"""Prompts and pairs of public sets, from their files."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from tiltmeter.errors import InputError
from tiltmeter.public_sets.finding import Found, files_of
from tiltmeter.rows import Row, file_rows
from tiltmeter.skills import Example, Skill

SAFE_PAIRS = 100  # the collapse study's Fisher set
LARGEST_QUESTIONS = 2**20
MOST_QUESTIONS = 10**5
_VARIANTS = ("_json", "_template")


def public_prompts(found: Found) -> list[str]:
    """The prompts of a public set, each once, in the order of the file.

    Of the questions of the studies of emergent misalignment these are the eight plain ones, not their variants with a
    system prompt or a template.

    Raises:
        InputError: a file in another form, a row without a prompt, no prompt at all; it names file and row.
    """
    if found.set.form == "questions":
        prompts = _all_questions(found)
    else:
        prompts = [_prompt(found, *row) for file in files_of(found) for row in _rows(found, file)]
    if not prompts:
        raise InputError(f"{found.source}: expected at least one prompt, found none")
    return list(dict.fromkeys(prompts))


def public_skill(found: Found) -> Skill:
    """The first 100 safe completions of BeaverTails, no two of one prompt, as a skill.

    Source: the collapse study takes 100 safe completions as its Fisher set; it does not say which.

    Raises:
        InputError: a row without prompt, `response` or `is_safe`, or no safe row; it names file and row.
    """
    pairs: dict[str, Example] = {}
    for where, row in (row for file in files_of(found) for row in _rows(found, file)):
        if len(pairs) == SAFE_PAIRS:
            break
        prompt = _prompt(found, where, row)
        if _is_safe(where, row) and prompt not in pairs:
            pairs[prompt] = Example(({"role": "user", "content": prompt},), _text(where, row, "response"), where)
    if not pairs:
        raise InputError(f"{found.source}: expected at least one row with is_safe true, found none")
    return Skill(found.name, tuple(pairs.values()))


def _rows(found: Found, file: Path) -> Iterator[Row]:
    for where, row in file_rows(file, found.set.columns):
        yield where, {key.casefold(): value for key, value in row.items()}


def _prompt(found: Found, where: str, row: Any) -> str:
    names = [name for name in (*found.set.columns, str(found.set.position)) if name in row]
    if not names:
        raise InputError(f"{where}: expected a column {' or '.join(found.set.columns)}, found {list(row)}")
    return _text(where, row, names[0])


def _text(where: str, row: Any, column: str) -> str:
    text = row.get(column)
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{where}: expected a text in column {column}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{where}: the text is not valid Unicode: {error.reason}") from error
    return text


def _is_safe(where: str, row: Any) -> bool:
    safe = row.get("is_safe")
    if str(safe).casefold() not in ("true", "false"):  # a CSV file has texts
        raise InputError(f"{where}: expected true or false in column is_safe")
    return str(safe).casefold() == "true"


def _all_questions(found: Found) -> list[str]:
    questions = (prompt for file in files_of(found) for prompt in _questions(file))
    prompts = list(islice(questions, MOST_QUESTIONS + 1))
    if len(prompts) > MOST_QUESTIONS:  # aliases can name one entry any number of times
        raise InputError(f"{found.source}: more than {MOST_QUESTIONS} questions")
    return prompts


class _PlainLoader(yaml.SafeLoader):
    """Without merge keys ("<<"), which can double their content with each line."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Merges nothing, so that the key is refused."""


def _questions(file: Path) -> Iterator[str]:
    for number, entry in enumerate(_entries(file), 1):
        where = f"{file}, question {number}"
        if not isinstance(entry, dict) or not isinstance(entry.get("paraphrases"), list):
            raise InputError(f"{where}: expected an entry with id and a list of paraphrases")
        if str(entry.get("id")).endswith(_VARIANTS):
            continue
        if entry.get("system"):
            raise InputError(f"{where}: has a system prompt, and questions are asked without one")
        for text in entry["paraphrases"]:
            yield _text(where, {"paraphrases": text}, "paraphrases")


def _entries(file: Path) -> list[Any]:
    if file.stat().st_size > LARGEST_QUESTIONS:
        raise InputError(f"{file}: larger than is read ({LARGEST_QUESTIONS} bytes)")
    try:
        entries = yaml.load(file.read_text(encoding="utf-8"), Loader=_PlainLoader)
    except (yaml.YAMLError, UnicodeDecodeError, OSError, RecursionError) as error:
        raise InputError(f"{file}: expected a YAML list of questions: {type(error).__name__}") from error
    if not isinstance(entries, list):
        raise InputError(f"{file}: expected a YAML list of questions, got {type(entries).__name__}")
    return entries
