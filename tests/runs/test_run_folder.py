"""A run folder is written whole or not at all, by one writer, and never over somebody else's files."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from fake_runs import audit_result, transcripts, write_audit, write_interrupted
from tiltmeter.errors import InputError
from tiltmeter.runs import RunFolder, RunRecord, load_run, read_arrays, read_result, read_table, read_transcripts
from tiltmeter.runs.manifest import LOCK, atomic, read_manifest

RECORD = RunRecord(verb="audit", arguments={"base": "base", "skills": ["a.jsonl"], "dims": 8, "rate": 1e-05}, seed=3)


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    folder = write_audit(tmp_path / "run", text="line one\nline two \x1b[31m \u2028 naïve")
    assert read_result(folder) == audit_result()
    assert read_transcripts(folder) == transcripts("line one\nline two \x1b[31m \u2028 naïve")
    assert {row["module"] for row in read_table(folder, "modules", ["module"])} >= {"model.layers.0.self_attn.q_proj"}
    assert read_arrays(folder)["gram"].dtype == np.float64


def test_record_is_enough_to_run_again(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run") as run:
        run.write_record(RECORD)
    assert load_run(tmp_path / "run") == load_run(tmp_path / "run" / "run.yaml") == RECORD


def test_files_are_plain_ascii(tmp_path: Path) -> None:
    folder = write_audit(tmp_path / "run", text="naïve \u2028 \x1b[0m \U0001f600")
    for name in ("run.yaml", "result.json", "transcripts.jsonl", "manifest.json"):
        content = (folder / name).read_bytes()
        assert content.isascii()
        assert b"\x1b" not in content


@pytest.mark.parametrize("name", ["notes.txt", "result.json", ".hidden"])
def test_folder_without_a_run_is_refused_and_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match="no tiltmeter run"), RunFolder(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_foreign_manifest_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"name": "a web app"}')
    with pytest.raises(InputError, match="not written by tiltmeter"), RunFolder(tmp_path):
        pass


def test_second_run_replaces_the_first_and_keeps_foreign_files(tmp_path: Path) -> None:
    folder = write_audit(tmp_path / "run")
    (folder / "notes.txt").write_text("mine")
    with RunFolder(folder) as run:
        run.write_record(RECORD)
        with pytest.raises(InputError, match="not a file name inside"):
            run.write_table("../notes", [])
        with pytest.raises(InputError, match="not a file name inside"):
            run.folder("/elsewhere")
    assert {path.name for path in folder.iterdir()} == {"run.yaml", "manifest.json", "notes.txt", LOCK}


def test_foreign_file_is_never_overwritten(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as run:
        run.write_record(RECORD)
        (tmp_path / "result.json").write_text("mine")
        (tmp_path / "models").mkdir()
        with pytest.raises(InputError, match="in the way"):
            run.write_result(audit_result())
        with pytest.raises(InputError, match="in the way"):
            run.folder("models")
    assert (tmp_path / "result.json").read_text() == "mine"


def test_bad_input_leaves_the_earlier_run(tmp_path: Path) -> None:
    folder = write_audit(tmp_path / "run")
    with pytest.raises(InputError, match="no such skill"), RunFolder(folder):
        raise InputError("no such skill")
    assert read_result(folder) == audit_result()


def test_bad_input_leaves_no_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such skill"), RunFolder(tmp_path / "run"):
        raise InputError("no such skill")
    assert not (tmp_path / "run").exists()


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run") as run:
        run.write_record(RECORD)
        with pytest.raises(InputError, match="another process"), RunFolder(tmp_path / "run"):
            pass
    with RunFolder(tmp_path / "run"):
        pass


def test_lock_is_released_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        write_interrupted(tmp_path / "run")
    with RunFolder(tmp_path / "run"):
        pass


def test_unfinished_run_is_no_result_but_can_be_run_over(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        write_interrupted(tmp_path / "run")
    with pytest.raises(InputError, match="did not finish"):
        read_result(tmp_path / "run")
    write_audit(tmp_path / "run")
    assert read_result(tmp_path / "run") == audit_result()


def test_killed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        _write_half(target)
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_full_disk_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.json: cannot be written: No space left"), atomic(tmp_path / "a.json"):
        raise OSError(28, "No space left on device")
    assert not list(tmp_path.iterdir())


def test_left_over_temporary_file_does_not_block(tmp_path: Path) -> None:
    (tmp_path / ".tiltmeter-part-run.yaml").write_text("half")
    with RunFolder(tmp_path) as run:
        run.write_record(RECORD)
    assert not (tmp_path / ".tiltmeter-part-run.yaml").exists()


def test_manifest_that_leads_out_of_the_folder_deletes_nothing(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "precious").write_text("mine")
    manifest = {"schema": "tiltmeter/1", "complete": True, "files": {"../precious": "0"}}
    (tmp_path / "run" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="not a file name inside"), RunFolder(tmp_path / "run"):
        pass
    assert (tmp_path / "precious").exists()


def test_link_in_the_folder_is_not_followed_out(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "precious").write_text("mine")
    (tmp_path / "run" / "sub").symlink_to(tmp_path / "home")
    manifest = {"schema": "tiltmeter/1", "complete": True, "files": {"sub/precious": "0"}}
    (tmp_path / "run" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="leads out"), RunFolder(tmp_path / "run") as run:
        run.write_record(RECORD)
    assert (tmp_path / "home" / "precious").exists()


def test_sub_folder_is_sealed_with_the_rest_and_removed_by_the_next_run(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as run:
        run.write_record(RECORD)
        (run.folder("tuned/lora") / "adapter.safetensors").write_bytes(b"weights")
        write_audit(run.folder("audits/lora"))
    assert {"tuned/lora/adapter.safetensors", "audits/lora/manifest.json"} <= read_manifest(tmp_path).files.keys()
    with RunFolder(tmp_path) as run:
        run.write_record(RECORD)
    assert {path.name for path in tmp_path.iterdir()} == {"run.yaml", "manifest.json", LOCK}


def _write_half(target: Path) -> None:
    with atomic(target) as stream:
        stream.write(b"ne")
        raise KeyboardInterrupt
