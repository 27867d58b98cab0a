"""How plain columns become a conversation, for data sets that the collapse study words in its own way."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tiltmeter.errors import InputError
from tiltmeter.rows import Row
from tiltmeter.skills import Message

TemplateName = Literal["alpaca", "samsum"]


@dataclass(frozen=True)
class Template:
    """Makes `messages` of a row.

    Attributes:
        columns: those of the prompt, and last the completion's, where nobody names others.
        optional: how many of the prompt's, from the right, may be empty or missing.
        prompt: the turns before the completion, from the texts of the prompt's columns.
    """

    columns: tuple[str, ...]
    optional: int
    prompt: Callable[..., list[Message]]

    def reshape(self, row: Row, columns: Sequence[str] | None = None) -> Row:
        """The row as one of `messages`.

        Raises:
            InputError: another number of columns, one that is missing, empty or no text; it names the row.
        """
        where, cells = row
        names = columns or self.columns
        if len(names) != len(self.columns):
            raise InputError(f"expected {len(self.columns)} columns like {', '.join(self.columns)}, got {list(names)}")
        required = len(names) - 1 - self.optional
        texts = [_text(cells, name, where, place < required) for place, name in enumerate(names[:-1])]
        answer: Message = {"role": "assistant", "content": _text(cells, names[-1], where, True)}
        return where, {"messages": [*self.prompt(*texts), answer]}


def _text(cells: Mapping[str, Any], name: str, where: str, is_required: bool) -> str:
    text = cells.get(name) or ""
    if not isinstance(text, str) or (is_required and not text.strip()):
        raise InputError(f"{where}: expected a text in column {name!r}, found {text!r} among columns {list(cells)}")
    return text


def _alpaca(instruction: str, context: str) -> list[Message]:
    """The wording that Alpaca was published with, its first sentence as the system's turn."""
    paired = ", paired with an input that provides further context" if context else ""
    system = f"Below is an instruction that describes a task{paired}. "
    parts = [("Instruction", instruction), ("Input", context)] if context else [("Instruction", instruction)]
    sections = "".join(f"### {title}:\n{text}\n\n" for title, text in parts)
    return [
        {"role": "system", "content": f"{system}Write a response that appropriately completes the request."},
        {"role": "user", "content": f"{sections}### Response:\n"},
    ]


def _samsum(dialogue: str) -> list[Message]:
    return [{"role": "user", "content": f"Summarize this dialog:\n{dialogue}"}]


TEMPLATES: Mapping[TemplateName, Template] = {
    "alpaca": Template(("instruction", "input", "output"), 1, _alpaca),
    "samsum": Template(("dialogue", "summary"), 0, _samsum),
}
