"""Skills: pairs of prompt and completion, from files or the Hub."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from tiltmeter.errors import InputError
from tiltmeter.rows import Row, file_rows

Message = dict[str, str]

# The shapes of rows that are understood: the columns of the prompt, and the column of the completion.
_SHAPES: list[tuple[tuple[str, ...], str]] = [
    (("prompt",), "completion"),
    (("instruction", "input"), "output"),
    (("instruction",), "output"),
    (("question",), "answer"),
]
_KNOWN = {column for prompts, completion in _SHAPES for column in (*prompts, completion)} | {"goal"}
_EXPECTED = "messages, prompt/completion, instruction/input/output or question/answer"


@dataclass(frozen=True)
class Example:
    """One pair: the conversation up to the answer, and the answer.

    Attributes:
        messages: role and content of each turn before the completion; the last is the prompt.
        completion: the reference answer.
        where: file and row, for messages to the user.
    """

    messages: tuple[Message, ...]
    completion: str
    where: str

    @property
    def prompt(self) -> str:
        """The last turn before the completion."""
        return self.messages[-1]["content"]


@dataclass(frozen=True)
class Skill:
    """A set of N prompts with reference completions: something that the model can do, and should keep doing."""

    name: str
    examples: tuple[Example, ...]

    def __len__(self) -> int:
        return len(self.examples)


def load_skill(
    source: str | Path,
    columns: Sequence[str] | None = None,
    name: str | None = None,
    limit: int | None = None,
    split: str = "train",
    reshape: Callable[[Row], Row] | None = None,
) -> Skill:
    """A skill from a JSONL, CSV or Parquet file, or a Hub data set.

    Rows hold `messages` (the last one by the assistant), `prompt`/`completion`, `instruction`/`input`/`output` or
    `question`/`answer`; or name the `columns`: one or more for the prompt, joined by an empty line, and last the
    completion. A CSV file may lack a header line: its columns are then named "0", "1", ... and two need no naming.
    `reshape` makes a row of these of each row that is found.

    Raises:
        InputError: a file that cannot be read, a row without prompt or completion; it names file and row.
    """
    rows = islice(_rows(str(source), columns, split), limit)
    shaped, columns = (rows, columns) if reshape is None else (map(reshape, rows), None)
    examples = tuple(_example(row, where, columns) for where, row in shaped)
    if not examples:
        raise InputError(f"{source}: expected at least one row with {_EXPECTED}, found none")
    return Skill(name or Path(source).stem, examples)


def load_prompts(source: str | Path, limit: int | None = None) -> list[str]:
    """The prompts of a JSONL, CSV or Parquet file with a column `prompt`, `instruction`, `question` or `goal`.

    Raises:
        InputError: a file that cannot be read, or a row without a prompt; it names file and row.
    """
    prompts = []
    for where, row in islice(_rows(str(source), None, "train"), limit):
        texts = [row[key] for key in ("prompt", "instruction", "question", "goal", "0") if row.get(key)]
        if not texts or not isinstance(texts[0], str) or not texts[0].strip():
            raise InputError(f"{where}: expected a text in a column prompt, instruction, question or goal")
        _check_unicode(texts[0], where)
        prompts.append(texts[0])
    if not prompts:
        raise InputError(f"{source}: expected at least one prompt, found none")
    return prompts


def _rows(source: str, columns: Sequence[str] | None, split: str) -> Iterator[Row]:
    path = Path(source)
    if not path.exists():
        return _hub_rows(source, split)
    return file_rows(path, _KNOWN, names_itself=not all(column.isdigit() for column in columns or ()))


def _hub_rows(source: str, split: str) -> Iterator[Row]:
    if Path(source).suffix in {".jsonl", ".csv", ".parquet", ".gz", ".xz"}:
        raise InputError(f"{source}: no such file")
    import datasets

    try:
        rows = datasets.load_dataset(source, split=split)
    except Exception as error:  # the Hub client raises a dozen kinds; all mean that the set is not to be had
        raise InputError(f"{source}: no such file, and not to be had from the Hub ({type(error).__name__})") from error
    for number, row in enumerate(rows, 1):
        yield f"{source}, row {number}", row


def _example(row: Mapping[str, Any], where: str, columns: Sequence[str] | None) -> Example:
    messages, completion = _chat(row, where) if _is_chat(row, columns) else _pair(row, where, columns)
    if not completion.strip():
        raise InputError(f"{where}: the completion is empty")
    if not messages or not messages[-1]["content"].strip():
        raise InputError(f"{where}: the prompt is empty")
    for text in (completion, *(text for message in messages for text in message.values())):
        _check_unicode(text, where)
    return Example(tuple(messages), completion, where)


def _check_unicode(text: str, where: str) -> None:
    """JSON can escape half of a character, which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{where}: the text is not valid Unicode: {error.reason}") from error


def _is_chat(row: Mapping[str, Any], columns: Sequence[str] | None) -> bool:
    return columns is None and (row.get("messages") is not None or isinstance(row.get("prompt"), list))


def _chat(row: Mapping[str, Any], where: str) -> tuple[list[Message], str]:
    turns = row["messages"] if row.get("messages") is not None else _joined(row["prompt"], row.get("completion"))
    if not isinstance(turns, list) or not all(_is_message(turn) for turn in turns):
        raise InputError(f"{where}: expected messages as a list of {{role, content}} texts")
    messages = [{"role": turn["role"], "content": turn["content"]} for turn in turns]
    if len(messages) < 2 or messages[-1]["role"] != "assistant":
        raise InputError(f"{where}: expected messages that end with the assistant's")
    return messages[:-1], messages[-1]["content"]


def _joined(prompt: list[Any], completion: object) -> list[Any] | None:
    """TRL's conversational form, where the completion is a list of messages too."""
    return [*prompt, *completion] if isinstance(completion, list) else None


def _is_message(turn: object) -> bool:
    return isinstance(turn, dict) and all(isinstance(turn.get(key), str) for key in ("role", "content"))


def _pair(row: Mapping[str, Any], where: str, columns: Sequence[str] | None) -> tuple[list[Message], str]:
    prompts, completion = _columns(row, where, columns)
    for column in (*prompts, completion):
        if row[column] is not None and not isinstance(row[column], str):
            raise InputError(f"{where}: expected text in column {column!r}, got {type(row[column]).__name__}")
    prompt = "\n\n".join(row[column] for column in prompts if row[column])
    return [{"role": "user", "content": prompt}], row[completion] or ""


def _columns(row: Mapping[str, Any], where: str, columns: Sequence[str] | None) -> tuple[Sequence[str], str]:
    if columns:
        missing = [column for column in columns if column not in row]
        if missing or len(columns) < 2:
            raise InputError(f"{where}: expected columns {list(columns)} (prompt..., completion), found {list(row)}")
        return columns[:-1], columns[-1]
    for prompts, completion in [*_SHAPES, (("0",), "1")]:
        if completion in row and all(column in row for column in prompts) and not (completion == "1" and len(row) > 2):
            return prompts, completion
    raise InputError(f"{where}: expected {_EXPECTED}, found {list(row)}; or name the columns")
