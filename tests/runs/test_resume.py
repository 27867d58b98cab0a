"""A run that was killed goes on where it stopped, and only then."""

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from fake_runs import audit_result, write_audit
from tiltmeter.errors import InputError
from tiltmeter.runs import RunFolder, RunRecord, load_run, verify
from tiltmeter.runs.journal import Journal
from tiltmeter.runs.manifest import JOURNAL, LOCK, read_manifest
from tiltmeter.runs.results import Input, Record

INPUT = Input(path="a.jsonl", role="skill", resolved="/a.jsonl", files={"a.jsonl": "00"})
RECORD = RunRecord(verb="audit", arguments={"base": "base", "dims": 8}, inputs=[INPUT], seed=3)


class Line(Record):
    """What the journals here hold."""

    key: str
    value: float = 0.0


def interrupted(folder: Path, *lines: Line) -> None:
    """A run that is stopped after some lines of its journal."""
    with pytest.raises(KeyboardInterrupt):
        interrupt(folder, *lines)


def interrupt(folder: Path, *lines: Line, record: RunRecord = RECORD) -> None:
    with RunFolder(folder) as run:
        run.resume_or_start(record)
        run.journal("lines", Line).append(*lines)
        run.write_table("figures", [{"a": 1}])
        (run.folder("models/one") / "weights").write_bytes(b"one")
        raise KeyboardInterrupt


def journal_of(folder: Path) -> Path:
    return folder / f"{JOURNAL}lines.jsonl"


def test_the_same_run_goes_on_with_all_that_was_written(tmp_path: Path) -> None:
    interrupted(tmp_path, Line(key="a"), Line(key="b", value=0.1))
    with RunFolder(tmp_path) as run:
        assert run.resume_or_start(RECORD)
        journal = run.journal("lines", Line)
        assert journal.records == [Line(key="a"), Line(key="b", value=0.1)]
        journal.append(Line(key="c"))
        assert run.journal("lines", Line).records[-1] == Line(key="c")
        assert (run.folder("models/one") / "weights").read_bytes() == b"one"
        run.write_table("figures", [{"a": 2}])
        run.write_result(audit_result())
    assert load_run(tmp_path) == RECORD
    assert not journal_of(tmp_path).exists()
    assert read_manifest(tmp_path).files.keys() == {"run.yaml", "result.json", "figures.parquet", "models/one/weights"}
    assert [problem.kind for problem in verify(tmp_path)] == ["input gone"]


def test_a_line_cut_off_by_a_kill_is_dropped(tmp_path: Path) -> None:
    interrupted(tmp_path, Line(key="a"), Line(key="b"))
    whole = journal_of(tmp_path).read_bytes()
    for cut in range(1, len(whole) + 1):
        journal_of(tmp_path).write_bytes(whole[:-cut])
        journal = Journal(tmp_path, "lines", Line)
        assert [line.key for line in journal.records] == ["a", "b"][: whole[:-cut].count(b"\n")]
        journal.append(Line(key="c"))
        assert [line.key for line in Journal(tmp_path, "lines", Line).records][-1] == "c"


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    interrupted(tmp_path, Line(key="a"), Line(key="b"))
    journal_of(tmp_path).write_bytes(b'{"key": "a", "value": NaN}\n{"key": "b", "value": 0}\n')
    with pytest.raises(InputError, match="line 1"):
        Journal(tmp_path, "lines", Line)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arguments": {"base": "base", "dims": 9}}, r"arguments\.dims \(was 8, is 9\)"),
        ({"arguments": {"base": "base"}}, r"arguments\.dims \(was 8, is None\)"),
        (
            {"inputs": [INPUT.model_copy(update={"files": {"a.jsonl": "11"}})]},
            r"inputs\.0\.files.* \(was 00, is 11",
        ),
        ({"inputs": []}, r"inputs\.0\.files\.a\.jsonl .* and 1 more: finish it with"),
        ({"seed": 4}, r"seed \(was 3, is 4\)"),
        ({"verb": "demo"}, r"verb \(was audit, is demo\)"),
        ({"versions": {"torch": "9"}}, r"versions\.torch \(was None, is 9\)"),
    ],
)
def test_another_run_is_refused_and_changes_nothing(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    interrupted(tmp_path, Line(key="a"))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=f"holds an unfinished run that differs in .*{message}"):
        start(tmp_path, RECORD.model_copy(update=changes))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def start(folder: Path, record: RunRecord) -> bool:
    with RunFolder(folder) as run:
        return run.resume_or_start(record)


def test_a_finished_run_is_done_again_from_the_start(tmp_path: Path) -> None:
    write_audit(tmp_path)
    assert not start(tmp_path, load_run(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"run.yaml", "manifest.json", LOCK}


def test_a_run_that_had_only_begun_starts_over(tmp_path: Path) -> None:
    interrupted(tmp_path)
    (tmp_path / "run.yaml").unlink()
    assert not start(tmp_path, RECORD.model_copy(update={"seed": 9}))


def test_starting_over_removes_journals_and_sub_folders(tmp_path: Path) -> None:
    interrupted(tmp_path, Line(key="a"))
    with RunFolder(tmp_path) as run:
        run.write_record(RECORD)
    assert {path.name for path in tmp_path.iterdir()} == {"run.yaml", "manifest.json", LOCK}


def _killed_while_writing(folder: Path) -> None:
    with RunFolder(folder) as run:
        run.resume_or_start(RECORD)
        journal = run.journal("lines", Line)
        for number in range(5):
            journal.append(Line(key=str(number)))
        os.kill(os.getpid(), signal.SIGKILL)


def test_kill_9_loses_no_line_and_leaves_no_lock(tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=_killed_while_writing, args=(tmp_path / "run",))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    with RunFolder(tmp_path / "run") as run:
        assert run.resume_or_start(RECORD)
        assert [line.key for line in run.journal("lines", Line).records] == list("01234")


def test_a_disk_that_refuses_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path, "lines", Line)

    def refuse(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(InputError, match=r"lines\.jsonl: cannot be written: No space left"):
        journal.append(Line(key="a"))


def test_a_run_goes_on_at_another_pace(tmp_path: Path) -> None:
    def at(workers: int) -> RunRecord:
        return RECORD.model_copy(update={"arguments": {"judges": [{"asked": {"url": "u", "workers": workers}}]}})

    with pytest.raises(KeyboardInterrupt):
        interrupt(tmp_path, record=at(8))
    with RunFolder(tmp_path) as run:
        assert run.resume_or_start(at(2))
        run.write_result(audit_result())
