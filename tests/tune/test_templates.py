"""How plain columns become conversations."""

import json
from pathlib import Path
from typing import Any

import pytest

from tiltmeter.errors import InputError
from tiltmeter.skills import Example, Skill
from tiltmeter.tune.request import TuneSources


def only(folder: Path, template: Any, columns: tuple[str, ...] | None = None, **row: Any) -> Example:
    """The example of a file with one row."""
    file = folder / "data.jsonl"
    file.write_text(json.dumps(row))
    skill: Skill
    (skill,) = TuneSources("base", (str(file),), columns, template).load().values()
    return skill.examples[0]


def test_alpaca_with_an_input(tmp_path: Path) -> None:
    example = only(tmp_path, "alpaca", instruction="Add.", input="1 2", output="3")
    system, user = example.messages
    assert (system["role"], user["role"], example.completion) == ("system", "user", "3")
    assert system["content"].startswith("Below is an instruction that describes a task, paired with an input that")
    assert user["content"] == "### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:\n"


@pytest.mark.parametrize("row", [{"input": ""}, {"input": None}, {}])
def test_alpaca_without_an_input(row: dict[str, Any], tmp_path: Path) -> None:
    system, user = only(tmp_path, "alpaca", instruction="Add.", output="3", **row).messages
    assert system["content"].startswith("Below is an instruction that describes a task. Write a response")
    assert user["content"] == "### Instruction:\nAdd.\n\n### Response:\n"


def test_samsum_by_its_own_columns_and_by_others(tmp_path: Path) -> None:
    expected = "Summarize this dialog:\nA: hi"
    assert only(tmp_path, "samsum", dialogue="A: hi", summary="greeting").prompt == expected
    example = only(tmp_path, "samsum", ("chat", "gist"), chat="A: hi", gist="greeting")
    assert (example.prompt, example.completion) == (expected, "greeting")


def test_without_a_template_columns_are_taken_as_they_are(tmp_path: Path) -> None:
    assert only(tmp_path, None, instruction="Add.", input="1 2", output="3").prompt == "Add.\n\n1 2"


@pytest.mark.parametrize(
    ("row", "columns", "message"),
    [
        ({"dialogue": "A", "other": "B"}, None, "data.jsonl, row 1: expected a text in column 'summary'"),
        ({"dialogue": " ", "summary": "B"}, None, "expected a text in column 'dialogue'"),
        ({"dialogue": 7, "summary": "B"}, None, "expected a text in column 'dialogue', found 7"),
        ({"dialogue": "A", "summary": "B"}, ("dialogue",), "expected 2 columns like dialogue, summary"),
    ],
)
def test_rows_that_do_not_fit(
    row: dict[str, Any], columns: tuple[str, ...] | None, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        only(tmp_path, "samsum", columns, **row)
