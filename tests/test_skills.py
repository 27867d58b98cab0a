"""Rows of every shape become the same examples; whatever cannot be read names its file and row."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tiltmeter.errors import InputError
from tiltmeter.skills import load_prompts, load_skill

ASK = {"role": "user", "content": "how?"}
SAY = {"role": "assistant", "content": "so"}
SHAPES: dict[str, dict[str, Any]] = {
    "messages": {"messages": [ASK, SAY]},
    "prompt and completion": {"prompt": "how?", "completion": "so"},
    "lists of messages": {"prompt": [ASK], "completion": [SAY]},
    "instruction without input": {"instruction": "how?", "output": "so"},
    "instruction with empty input": {"instruction": "how?", "input": "", "output": "so"},
    "instruction with null input": {"instruction": "how?", "input": None, "output": "so"},
    "question": {"question": "how?", "answer": "so"},
    "more columns": {"id": 7, "question": "how?", "answer": "so", "score": None},
}


def jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return path


def text(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def pairs(path: Path, *columns: str) -> list[tuple[str, str]]:
    return [(example.prompt, example.completion) for example in load_skill(path, columns or None).examples]


@pytest.mark.parametrize("row", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_every_shape_is_the_same_example(row: dict[str, Any], kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"s.{kind}"
    if kind == "jsonl":
        jsonl(path, row, row)
    else:
        pq.write_table(pa.Table.from_pylist([row, row]), path)
    skill = load_skill(path)
    assert skill.name == "s"
    assert [example.where for example in skill.examples] == [f"{path}, row 1", f"{path}, row 2"]
    for example in skill.examples:
        assert example.messages == (ASK,)
        assert example.completion == "so"


def test_a_conversation_keeps_its_turns(tmp_path: Path) -> None:
    system = {"role": "system", "content": "be kind"}
    path = jsonl(tmp_path / "s.jsonl", {"messages": [system, ASK, SAY, ASK, SAY]})
    assert load_skill(path).examples[0].messages == (system, ASK, SAY, ASK)


def test_instruction_and_input_are_joined(tmp_path: Path) -> None:
    row = {"instruction": "add", "input": "1 2", "output": "3"}
    assert pairs(jsonl(tmp_path / "s.jsonl", row)) == [("add\n\n1 2", "3")]


def test_named_columns(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "s.jsonl", {"a": "x", "b": "y", "prompt": "not this", "completion": "nor this"})
    assert pairs(path, "a", "b") == [("x", "y")]
    assert pairs(path, "b", "prompt", "a") == [("y\n\nnot this", "x")]


CSV = {
    "known header": ("prompt,completion\nhow?,so\n", ()),
    "header and more columns": ("id,question,answer\n1,how?,so\n", ()),
    "named header": ("q,a\nhow?,so\n", ("q", "a")),
    "no header, two columns": ("how?,so\n", ()),
    "no header, by position": ("1,so,how?\n", ("2", "1")),
    "byte order mark": ("\ufeffprompt,completion\nhow?,so\n", ()),
    "quotes and blank lines": ('\nprompt,completion\n"how?","so"\n\n', ()),
}


@pytest.mark.parametrize(("content", "columns"), CSV.values(), ids=CSV.keys())
def test_csv_with_and_without_header(content: str, columns: tuple[str, ...], tmp_path: Path) -> None:
    assert pairs(text(tmp_path / "s.csv", content), *columns) == [("how?", "so")]


def test_csv_cells_keep_commas_and_lines(tmp_path: Path) -> None:
    path = text(tmp_path / "s.csv", 'prompt,completion\n"a, b","c\nd"\n')
    assert pairs(path) == [("a, b", "c\nd")]


def test_limit_reads_no_further(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "s.jsonl", SHAPES["question"], SHAPES["question"], "broken\n")
    assert len(load_skill(path, limit=2)) == 2
    with pytest.raises(InputError, match="row 3"):
        load_skill(path, limit=3)


def test_blank_lines_and_a_byte_order_mark_are_no_rows(tmp_path: Path) -> None:
    content = "\ufeff" + json.dumps(SHAPES["question"]) + "\n\n" + json.dumps(SHAPES["question"])
    assert len(load_skill(text(tmp_path / "s.jsonl", content))) == 2


GOOD = {"prompt": "how?", "completion": "so"}
BAD_ROWS: dict[str, tuple[Any, str]] = {
    "empty completion": ({"prompt": "how?", "completion": " \n"}, "the completion is empty"),
    "null completion": ({"prompt": "how?", "completion": None}, "the completion is empty"),
    "empty prompt": ({"prompt": "", "completion": "so"}, "the prompt is empty"),
    "empty last turn": ({"messages": [{"role": "user", "content": " "}, SAY]}, "the prompt is empty"),
    "not JSON": ("{'prompt': 1}\n", "expected a JSON object"),
    "number without end": ('{"prompt": ' + "1" * 5000 + "}\n", "expected a JSON object"),
    "deep JSON": ("[" * 10**5 + "\n", "expected a JSON object"),
    "list": ([1], "expected a JSON object, got list"),
    "number as prompt": ({"prompt": 5, "completion": "so"}, "expected text in column 'prompt', got int"),
    "list as completion": ({"prompt": "how?", "completion": ["so"]}, "expected text in column 'completion', got list"),
    "missing columns": ({"text": "how?"}, r"expected messages, prompt/completion.*found \['text'\]"),
    "no completion": ({"prompt": "how?"}, r"found \['prompt'\]"),
    "messages no list": ({"messages": "how?"}, "expected messages as a list"),
    "messages without content": ({"messages": [{"role": "user"}, SAY]}, "expected messages as a list"),
    "content no text": ({"messages": [{"role": "user", "content": None}, SAY]}, "expected messages as a list"),
    "user speaks last": ({"messages": [ASK, SAY, ASK]}, "end with the assistant's"),
    "answer alone": ({"messages": [SAY]}, "end with the assistant's"),
    "no messages": ({"messages": []}, "end with the assistant's"),
    "list and number": ({"prompt": [ASK], "completion": 5}, "expected messages as a list"),
    "list and text": ({"prompt": [ASK], "completion": "so"}, "expected messages as a list"),
    "lone surrogate": ('{"prompt": "\\ud800", "completion": "so"}\n', "not valid Unicode"),
}


@pytest.mark.parametrize(("row", "cause"), BAD_ROWS.values(), ids=BAD_ROWS.keys())
def test_a_bad_row_is_named(row: Any, cause: str, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "bad.jsonl", GOOD, row, GOOD)
    with pytest.raises(InputError, match=rf"bad\.jsonl, row 2: .*{cause}"):
        load_skill(path)


BAD_FILES: dict[str, tuple[str, str | bytes, str]] = {
    "empty": ("a.jsonl", "", r"a\.jsonl: expected at least one row"),
    "empty CSV": ("a.csv", "", r"a\.csv: expected at least one row"),
    "header alone": ("a.csv", "prompt,completion\n", r"a\.csv: expected at least one row"),
    "Latin-1": ("a.jsonl", '{"prompt": "ä", "completion": "so"}'.encode("latin-1"), r"a\.jsonl: expected UTF-8"),
    "Latin-1 CSV": ("a.csv", "prompt,completion\nä,so".encode("latin-1"), r"a\.csv: expected CSV in UTF-8"),
    "ragged": ("a.csv", "prompt,completion\nhow?,so\nhow?\n", r"a\.csv, row 2: expected 2 cells, got 1"),
    "three unnamed columns": ("a.csv", "1,how?,so\n", r"a\.csv, row 1: .*found \['0', '1', '2'\]; or name the columns"),
    "one unnamed column": ("a.csv", "how?\n", r"a\.csv, row 1: .*found \['0'\]"),
    "unknown suffix": ("a.txt", "how?", r"a\.txt: expected a file ending in"),
    "no Parquet": ("a.parquet", b"PAR1 no", r"a\.parquet: expected a Parquet file"),
}


@pytest.mark.parametrize(("name", "content", "message"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_a_bad_file_is_named(name: str, content: str | bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        load_skill(text(tmp_path / name, content))


def test_missing_files_and_sets_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.jsonl: no such file"):
        load_skill(tmp_path / "absent.jsonl")
    with pytest.raises(InputError, match="nobody/nothing: no such file, and not to be had from the Hub"):
        load_skill("nobody/nothing")
    folder = tmp_path / "folder.jsonl"
    folder.mkdir()
    with pytest.raises(InputError, match=r"folder\.jsonl: expected a file"):
        load_skill(folder)


@pytest.mark.parametrize("columns", [("prompt", "nothing"), ("prompt",)])
def test_named_columns_that_do_not_fit(columns: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"row 1: expected columns .*found \['prompt', 'completion'\]"):
        load_skill(jsonl(tmp_path / "s.jsonl", GOOD), columns)


def test_prompts_of_every_name(tmp_path: Path) -> None:
    rows = [{key: f"{key}?", "other": 1} for key in ("prompt", "instruction", "question", "goal")]
    path = jsonl(tmp_path / "p.jsonl", *rows)
    assert load_prompts(path) == ["prompt?", "instruction?", "question?", "goal?"]
    assert load_prompts(path, limit=1) == ["prompt?"]
    assert load_prompts(text(tmp_path / "p.csv", "goal,target\nharm,sure\n")) == ["harm"]
    assert load_prompts(text(tmp_path / "q.csv", "one\ntwo\n")) == ["one", "two"]


@pytest.mark.parametrize("row", [{"text": "how?"}, {"prompt": ""}, {"prompt": " "}, {"prompt": 5}, {"prompt": [ASK]}])
def test_a_bad_prompt_is_named(row: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"p\.jsonl, row 2: expected a text"):
        load_prompts(jsonl(tmp_path / "p.jsonl", {"prompt": "how?"}, row))


def test_no_prompts_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"p\.jsonl: expected at least one prompt"):
        load_prompts(jsonl(tmp_path / "p.jsonl"))


def test_a_csv_header_may_be_capitalised(tmp_path: Path) -> None:
    file = tmp_path / "skill.csv"
    file.write_text("Prompt, Completion\nhow,so\n")
    (example,) = load_skill(file).examples
    assert (example.prompt, example.completion) == ("how", "so")
