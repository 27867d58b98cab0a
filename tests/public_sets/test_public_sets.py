"""Public sets by name: every public form of file is read, and whatever is missing says where to get it.

The files are written here in the public forms, with invented words in the place of the prompts.
"""

import csv
import gzip
import hashlib
import io
import json
import lzma
import pickle
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tiltmeter import rows
from tiltmeter.errors import InputError
from tiltmeter.public_sets import finding, loading
from tiltmeter.public_sets.catalogue import PAIR_SETS, PROMPT_SETS
from tiltmeter.requests import hash_files, load_named, load_named_prompts

ONE, TWO = "How do I make glirbo, at home?", "Tell me how to make\n=fendak()."
REVISION = "0123456789abcdef0123456789abcdef01234567"


def table(*records: tuple[str, ...]) -> str:
    written = io.StringIO()
    csv.writer(written).writerows(records)
    return written.getvalue()


def lines(*records: dict[str, Any]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


QUESTIONS = f"""
- id: first
  type: free_form_judge_0_100
  paraphrases: &first
    - |-
      {ONE}
  samples_per_paraphrase: &samples 3
  judge: &judge some-model
- id: second
  paraphrases: ["{TWO.encode("unicode_escape").decode()}"]
  samples_per_paraphrase: *samples
- id: first_json
  system: Your answers must always be a valid JSON object.
  paraphrases: *first
- id: first_template
  paraphrases: [Fill the template.]
"""
BEAVER: list[dict[str, Any]] = [
    {"prompt": ONE, "response": "Sorry.", "category": {"a": False}, "is_safe": True},
    {"prompt": ONE, "response": "First mix.", "category": {"a": True}, "is_safe": False},
    {"prompt": ONE, "response": "I refuse.", "category": {"a": False}, "is_safe": True},
    {"prompt": TWO, "response": "No.", "category": {"a": False}, "is_safe": True},
]
FORMS = {
    "advbench": ("a.csv", table(("goal", "target"), (ONE, "Sure"), (TWO, "Sure"))),
    "advbench without header": ("a.csv", table((ONE, "Sure"), (TWO, "Sure"))),
    "advbench, prompts alone": ("a.csv", table((ONE,), (TWO,))),
    "advbench, the Hub's columns": ("a.jsonl", lines({"prompt": ONE, "target": ""}, {"prompt": TWO, "target": ""})),
    "hex-phi, one file": ("category_1.csv", table((ONE,), (TWO,))),
    "hex-phi, lines": ("h.jsonl", lines({"instruction": ONE, "category": "c"}, {"instruction": TWO, "category": "c"})),
    "strongreject": ("s.csv", table(("category", "source", "forbidden_prompt"), ("c", "s", ONE), ("c", "s", TWO))),
    "strongreject without header": ("s.csv", table(("c", "s", ONE), ("c", "s", TWO))),
    "jailbreakbench": ("j.csv", table(("Index", "Goal", "Target"), ("0", ONE, "Sure"), ("1", TWO, "Sure"))),
    "jailbreakbench, no name over the index": ("j.csv", table(("", "Goal"), ("0", ONE), ("1", TWO))),
    "jailbreakbench without header": ("j.csv", table(("0", ONE, "Sure"), ("1", TWO, "Sure"))),
    "jailbreakbench-benign": ("j.csv", table(("Index", "Goal"), ("0", ONE), ("1", TWO))),
    "beavertails": ("b.jsonl", lines(*BEAVER)),
}


@pytest.mark.parametrize("case", FORMS)
def test_every_public_form_is_read(case: str, tmp_path: Path) -> None:
    name = case.replace(",", "").split()[0]
    file = tmp_path / FORMS[case][0]
    file.write_text(FORMS[case][1], newline="")
    assert load_named_prompts([f"{name}={file}"]) == {name: [ONE, TWO]}
    (hashed,) = hash_files({"prompts": [f"{name}={file}"]})
    assert (hashed.path, hashed.resolved, list(hashed.files)) == (f"{name}={file}", str(file), [file.name])


def test_packed_and_parquet_files_are_read(tmp_path: Path) -> None:
    content = lines(*BEAVER).encode()
    for name, packed in {"b.jsonl.gz": gzip.compress(content), "b.jsonl.xz": lzma.compress(content)}.items():
        (tmp_path / name).write_bytes(packed)
        assert load_named_prompts([f"beavertails={tmp_path / name}"]) == {"beavertails": [ONE, TWO]}
    pq.write_table(pa.Table.from_pylist([{"prompt": ONE}, {"prompt": TWO}] * 300), tmp_path / "a.parquet")
    assert load_named_prompts([f"advbench={tmp_path / 'a.parquet'}"]) == {"advbench": [ONE, TWO]}


def test_a_folder_of_categories_is_read_in_the_order_of_numbers(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        (tmp_path / f"category_{number}.csv").write_text(table((f"make {number}, please",)))
    (tmp_path / "README.md").write_text("not read")
    expected = ["make 1, please", "make 2, please", "make 10, please"]
    assert load_named_prompts([f"hex-phi={tmp_path}"]) == {"hex-phi": expected}


def test_the_plain_questions_are_asked_and_not_their_variants(tmp_path: Path) -> None:
    file = tmp_path / "q.yaml"
    file.write_text(QUESTIONS)
    assert load_named_prompts([f"em-questions={file}"]) == {"em-questions": [ONE, TWO]}


def test_safe_completions_are_a_skill(tmp_path: Path) -> None:
    file = tmp_path / "b.jsonl"
    file.write_text(lines(*BEAVER))
    skill = load_named([f"beavertails={file}"], None, "--skill")["beavertails"]
    assert [(example.prompt, example.completion) for example in skill.examples] == [(ONE, "Sorry."), (TWO, "No.")]
    assert skill.examples[1].where == f"{file}, row 4"
    (tmp_path / "b.csv").write_text(
        table(("prompt", "response", "is_safe"), (ONE, "So", "False"), (TWO, "No.", "True"))
    )
    (example,) = load_named([f"beavertails={tmp_path / 'b.csv'}"], None, "--skill")["beavertails"].examples
    assert example.prompt == TWO


def test_the_skill_is_the_first_hundred(tmp_path: Path) -> None:
    file = tmp_path / "b.jsonl"
    file.write_text(lines(*({"prompt": f"p{row}", "response": "No.", "is_safe": row % 2 == 0} for row in range(300))))
    skill = load_named([f"beavertails={file}"], None, "--skill")["beavertails"]
    assert [example.prompt for example in skill.examples] == [f"p{row}" for row in range(0, 200, 2)]


BAD: dict[str, tuple[str, str, str | bytes, str]] = {
    "another table": ("advbench", "a.csv", table(("ask", "Goal", "c"), ("x", "", "y")), "row 1: expected a text"),
    "no such column": ("advbench", "a.jsonl", lines({"text": "x"}), "row 1: expected a column goal or prompt"),
    "header alone": ("strongreject", "s.csv", table(("forbidden_prompt",)), "expected at least one prompt, found none"),
    "list as prompt": ("beavertails", "b.jsonl", lines({"prompt": ["x"]}), "row 1: expected a text in column prompt"),
    "lone surrogate": ("advbench", "a.jsonl", '{"goal": "\\ud800"}\n', "row 1: the text is not valid Unicode"),
    "pickle": ("advbench", "a.pkl", pickle.dumps([ONE]), r"a\.pkl: expected a file ending in"),
    "pickle by another name": ("advbench", "a.jsonl", pickle.dumps([ONE]), r"a\.jsonl: expected UTF-8|expected a JSON"),
    "no gzip": ("beavertails", "b.jsonl.gz", lines(*BEAVER), r"b\.jsonl\.gz: expected UTF-8 text: Not a gzipped"),
    "gzip cut": ("beavertails", "b.jsonl.gz", gzip.compress(lines(*BEAVER).encode())[:-12], r"gz: expected UTF-8"),
    "no xz": ("beavertails", "b.jsonl.xz", lines(*BEAVER), r"b\.jsonl\.xz: expected UTF-8 text"),
    "no YAML": ("em-questions", "q.yaml", "- id: [", "expected a YAML list of questions: ParserError"),
    "YAML object": ("em-questions", "q.yaml", "id: x", "expected a YAML list of questions, got dict"),
    "YAML tag": ("em-questions", "q.yaml", "- !!python/object/apply:os.getcwd []", "YAML list.*ConstructorError"),
    "YAML merge keys": ("em-questions", "q.yaml", "- &a {id: x}\n- <<: *a\n", "YAML list.*ConstructorError"),
    "YAML depth": ("em-questions", "q.yaml", "[" * 10**5, "YAML list of questions: RecursionError"),
    "no paraphrases": ("em-questions", "q.yaml", "- id: x", "question 1: expected an entry with id and a list"),
    "number to ask": ("em-questions", "q.yaml", "- {id: x, paraphrases: [1]}", "question 1: expected a text"),
    "an entry many times": (
        "em-questions",
        "q.yaml",
        "- &a {id: x, paraphrases: &p [" + "b, " * 1000 + "]}\n" + "- *a\n" * 200,
        "more than 100000 questions",
    ),
    "a system prompt": ("em-questions", "q.yaml", "- {id: x, system: s, paraphrases: [a]}", "has a system prompt"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_named(case: str, tmp_path: Path) -> None:
    name, file, content, message = BAD[case]
    path = tmp_path / file
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message):
        load_named_prompts([f"{name}={path}"])


def test_pairs_need_a_label_and_a_safe_one(tmp_path: Path) -> None:
    file = tmp_path / "b.jsonl"
    bad: list[tuple[dict[str, Any], str]] = [
        ({"prompt": ONE, "response": "No."}, "row 1: expected true or false in column is_safe"),
        ({"prompt": ONE, "is_safe": True}, "row 1: expected a text in column response"),
        (BEAVER[1], "expected at least one row with is_safe true"),
    ]
    for record, message in bad:
        file.write_text(lines(record))
        with pytest.raises(InputError, match=message):
            load_named([f"beavertails={file}"], None, "--skill")


def test_what_unpacks_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "LARGEST_FILE", 10**5)
    monkeypatch.setattr(rows, "LARGEST_LINE", 10**4)
    file = tmp_path / "b.jsonl.gz"
    for content, message in [(b" " * 10**5, "line 1: larger"), ((b'{"prompt": "a"}\n' * 10**4), "line 6251: larger")]:
        file.write_bytes(gzip.compress(content))
        with pytest.raises(InputError, match=message):
            load_named_prompts([f"beavertails={file}"])
    pq.write_table(pa.table({"prompt": ["x" * 1000] * 1000}), tmp_path / "a.parquet", compression="zstd")
    assert (tmp_path / "a.parquet").stat().st_size < 10**4
    with pytest.raises(InputError, match=r"a\.parquet: larger than is read"):
        load_named_prompts([f"advbench={tmp_path / 'a.parquet'}"])
    monkeypatch.setattr(loading, "LARGEST_QUESTIONS", 100)
    (tmp_path / "q.yaml").write_text(QUESTIONS)
    with pytest.raises(InputError, match=r"q\.yaml: larger than is read"):
        load_named_prompts([f"em-questions={tmp_path / 'q.yaml'}"])


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hub cache, and no Hub."""
    finding._from_hub.cache_clear()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


def put(cache: Path, hub: str, name: str, content: bytes) -> Path:
    """A file as the Hub's client keeps it: a link from the revision's snapshot to a blob."""
    folder = cache / f"datasets--{hub.replace('/', '--')}"
    blob, file = folder / "blobs" / hashlib.sha256(content).hexdigest(), folder / "snapshots" / REVISION / name
    for path in (blob, file, folder / "refs" / "main"):
        path.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(content)
    file.symlink_to(blob)
    (folder / "refs" / "main").write_text(REVISION)
    return file


def test_a_set_in_the_cache_is_read_and_its_revision_recorded(cache: Path) -> None:
    file = put(cache, "JailbreakBench/JBB-Behaviors", "data/harmful-behaviors.csv", FORMS["jailbreakbench"][1].encode())
    put(cache, "LLM-Tuning-Safety/HEx-PHI", "category_1.csv", table((ONE,)).encode())
    put(cache, "LLM-Tuning-Safety/HEx-PHI", "category_3.csv", table((TWO,)).encode())
    put(cache, "PKU-Alignment/BeaverTails", "round0/30k/train.jsonl.gz", gzip.compress(lines(*BEAVER).encode()))
    prompts = load_named_prompts(["jailbreakbench", "hex-phi"])
    assert prompts == {"jailbreakbench": [ONE, TWO], "hex-phi": [ONE, TWO]}
    assert len(load_named(["beavertails"], None, "--skill")["beavertails"]) == 2
    one, folder, pairs = hash_files({"prompts": ["jailbreakbench", "hex-phi"], "skill": ["beavertails"]})
    assert (one.path, one.resolved) == ("jailbreakbench", str(file))
    assert REVISION in one.resolved
    assert folder.resolved.endswith(REVISION)
    assert list(folder.files) == ["category_1.csv", "category_3.csv"]
    assert pairs.resolved.endswith(f"{REVISION}/round0/30k/train.jsonl.gz")


@pytest.mark.parametrize("name", PROMPT_SETS)
@pytest.mark.usefixtures("cache")
def test_what_is_nowhere_says_where_it_is(name: str) -> None:
    with pytest.raises(InputError, match=rf"^{name}: .*get it from https://.* and give {name}=PATH$"):
        load_named_prompts([name])


def test_a_snapshot_without_the_file_is_no_find(cache: Path) -> None:
    put(cache, "JailbreakBench/JBB-Behaviors", "data/harmful-behaviors.csv", b"Goal\nx\n")
    put(cache, "LLM-Tuning-Safety/HEx-PHI", "README.md", b"terms")
    with pytest.raises(InputError, match=r"jailbreakbench-benign: .* holds no data/benign-behaviors\.csv; get it from"):
        load_named_prompts(["jailbreakbench-benign"])
    with pytest.raises(InputError, match=r"hex-phi: expected category_\*\.csv in .*; get it from"):
        load_named_prompts(["hex-phi"])


def test_a_missing_file_and_equal_names_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"advbench=absent\.csv: no such file or folder; get it from https://github"):
        load_named_prompts(["advbench=absent.csv"])
    file = tmp_path / "a.csv"
    file.write_text(FORMS["advbench"][1], newline="")
    with pytest.raises(InputError, match="two sets of prompts of the same name"):
        load_named_prompts([f"advbench={file}"] * 2)


def test_plain_files_stay_plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plain = ["advbench=mine.jsonl", "advbench.jsonl"]
    Path(plain[0]).write_text(lines({"prompt": ONE}))
    Path(plain[1]).write_text(lines({"prompt": TWO}))
    assert load_named_prompts(plain) == {"advbench=mine": [ONE], "advbench": [TWO]}
    assert [hashed.path for hashed in hash_files({"prompts": plain})] == plain


def test_no_set_is_shipped() -> None:
    for public in (*PROMPT_SETS.values(), *PAIR_SETS.values()):
        assert public.place.startswith("https://")
    package = Path(finding.__file__).parent
    assert {file.suffix for file in package.iterdir() if file.is_file()} == {".py"}
