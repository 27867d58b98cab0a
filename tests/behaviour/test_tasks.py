"""Right and wrong answers by hand, and files of tasks."""

import json
from pathlib import Path
from typing import Any

import pytest

from tiltmeter.behaviour.tasks import Task, is_right, load_tasks
from tiltmeter.errors import InputError

RIGHT = [
    ("It is 5.", "5"),
    ("2 plus 3 is 5", "5"),
    ("5", "5.0"),
    ("First 2, then 3: so 5 apples in all.", "2 + 3 = <<2+3=5>>5\n#### 5"),
    ("Reasoning with 7 and 9.\n#### 1,200", "#### 1200"),
    ("#### 5\n(I checked 3 times) #### 5", "#### 5"),
    ("The total is $1,234.50.", "1234.5"),
    ("So x = -4", "-4"),
    ("So x = \u22124.", "-4"),
    ("it costs -$4", "-4"),
    ("5-3=2", "2"),
    ("about .5", "0.5"),
    ("The answer is: 42.", "#### 42."),
    ("Paris!", "paris"),
    ("the  Green\nTea", "Green tea."),
    ("A dog", "dog"),
]
WRONG = [
    ("It is 6.", "5"),
    ("It is 5, I checked 3 times.", "5"),
    ("five", "5"),
    ("", "5"),
    ("15", "5"),
    ("5.1", "5"),
    ("-5", "5"),
    ("1,2", "12"),
    ("v5", "5"),
    ("5 #### none", "#### 5"),
    ("Paris is the capital", "Paris"),
    ("", "Paris"),
    ("!", "?"),
    ("Pari", "Paris"),
]


@pytest.mark.parametrize(("text", "answer"), RIGHT)
def test_right_answers(text: str, answer: str) -> None:
    assert is_right(text, answer)


@pytest.mark.parametrize(("text", "answer"), WRONG)
def test_wrong_answers(text: str, answer: str) -> None:
    assert not is_right(text, answer)


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_tasks_of_a_file(tmp_path: Path) -> None:
    rows = [
        {"prompt": "2+3?", "answer": 5},
        {"question": "2+3?", "answer": "#### 5"},
        {"prompt": "hot?", "answer": "tea", "options": ["tea", "ice"]},
        {"prompt": "x?", "answer": "y", "options": None},
    ]
    path = write(tmp_path / "t.jsonl", *rows)
    expected = [("2+3?", "5", ()), ("2+3?", "#### 5", ()), ("hot?", "tea", ("tea", "ice")), ("x?", "y", ())]
    assert load_tasks(path) == [Task(*task, where=f"{path}, row {row}") for row, task in enumerate(expected, 1)]
    (tmp_path / "t.csv").write_text("Question,Answer\n2+3?,5\n")
    assert load_tasks(tmp_path / "t.csv") == [Task("2+3?", "5", where=f"{tmp_path / 't.csv'}, row 1")]


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no prompt": ({"answer": "5"}, "a text in column prompt or question"),
    "list as prompt": ({"prompt": ["a"], "answer": "5"}, "a text in column prompt or question"),
    "no answer": ({"prompt": "a"}, "a text or a number in column answer"),
    "true as answer": ({"prompt": "a", "answer": True}, "a text or a number in column answer"),
    "blank answer": ({"prompt": "a", "answer": " "}, "a text or a number in column answer"),
    "options no list": ({"prompt": "a", "answer": "x", "options": "xy"}, "a list of texts in column options"),
    "option no text": ({"prompt": "a", "answer": "x", "options": ["x", 1]}, "a list of texts in column options"),
    "answer no option": ({"prompt": "a", "answer": "x", "options": ["y", "z"]}, "an answer that is one of two or more"),
    "one option": ({"prompt": "a", "answer": "x", "options": ["x"]}, "an answer that is one of two or more"),
    "an option twice": ({"prompt": "a", "answer": "x", "options": ["x", "y", "y"]}, "an answer that is one of two"),
}


@pytest.mark.parametrize(("row", "message"), BAD.values(), ids=BAD.keys())
def test_a_bad_row_is_named(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", {"prompt": "a", "answer": "b"}, row)
    with pytest.raises(InputError, match=rf"t\.jsonl, row 2: expected {message}"):
        load_tasks(path)


def test_no_tasks_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"t\.jsonl: expected at least one task, found none"):
        load_tasks(write(tmp_path / "t.jsonl"))
