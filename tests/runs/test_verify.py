"""A run folder that changed after its run, or whose inputs did, is found out."""

from pathlib import Path

import pytest

from fake_runs import audit_result, write_audit, write_interrupted
from tiltmeter.errors import InputError
from tiltmeter.runs import RunFolder, RunRecord, hash_file, hash_input, verify


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    (folder / "deep").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "deep" / ".hidden").write_text("x")
    (tmp_path / "blob").write_bytes(b"weights")
    (folder / "model.safetensors").symlink_to(tmp_path / "blob")
    return folder


@pytest.fixture
def run(tmp_path: Path, base: Path) -> Path:
    return write_audit(tmp_path / "run", inputs=[hash_input(base, "base")])


def test_untouched_run_has_no_problem(run: Path) -> None:
    assert verify(run) == []


def test_every_file_of_a_folder_is_hashed_behind_links_too(base: Path) -> None:
    hashed = hash_input(base, "base")
    assert list(hashed.files) == ["config.json", "deep/.hidden", "model.safetensors"]
    assert hashed.files["model.safetensors"] == hash_file(base.parent / "blob")


def test_one_changed_byte_is_found(run: Path) -> None:
    path = run / "modules.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert [(problem.kind, problem.path) for problem in verify(run)] == [("changed", "modules.parquet")]


def test_missing_extra_and_linked_files_are_found(run: Path, tmp_path: Path) -> None:
    (run / "examples.parquet").unlink()
    (run / "notes.txt").write_text("mine")
    arrays = (run / "arrays.safetensors").rename(tmp_path / "elsewhere")
    (run / "arrays.safetensors").symlink_to(arrays)
    found = {(problem.kind, problem.path) for problem in verify(run)}
    assert found == {("missing", "examples.parquet"), ("extra", "notes.txt"), ("changed", "arrays.safetensors")}


def test_result_that_does_not_fit_the_schema_is_found(run: Path) -> None:
    (run / "result.json").write_text('{"schema": "tiltmeter/1", "verb": "audit"}')
    assert [problem.kind for problem in verify(run)] == ["changed", "unreadable"]


def test_inputs_changed_and_inputs_gone_are_told_apart(run: Path, base: Path) -> None:
    (base / "config.json").write_text("{ }")
    (base / "deep" / ".hidden").unlink()
    (base / "new.json").write_text("{}")
    assert [problem.kind for problem in verify(run)] == ["input changed", "input gone", "input changed"]
    base.rename(base.with_name("moved"))
    problems = verify(run)
    assert [problem.kind for problem in problems] == ["input gone"]
    assert "nothing at" in str(problems[0])


def test_unfinished_run_is_found(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        write_interrupted(tmp_path / "run")
    assert [problem.kind for problem in verify(tmp_path / "run")] == ["unfinished", "changed", "changed"]


def test_runs_inside_a_run_are_verified(tmp_path: Path, base: Path) -> None:
    with RunFolder(tmp_path / "demo") as run:
        run.write_record(RunRecord(verb="demo", arguments={}))
        run.write_result(audit_result())
        inner = write_audit(run.folder("audits/one"), inputs=[hash_input(base, "base")])
    assert verify(tmp_path / "demo") == []
    (base / "config.json").write_text("{ }")
    (inner / "transcripts.jsonl").write_text("")
    assert [problem.kind for problem in verify(tmp_path / "demo")] == ["changed", "input changed"]


def test_no_run_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not found"):
        verify(tmp_path)


def test_bad_inputs_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: not found"):
        hash_input(tmp_path / "nowhere", "base")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no file"):
        hash_input(tmp_path / "empty", "base")
    (tmp_path / "empty" / "gone").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="gone: cannot be hashed"):
        hash_input(tmp_path / "empty", "base")
    (tmp_path / "empty" / "gone").unlink()
    (tmp_path / "empty" / "loop").symlink_to(tmp_path)
    with pytest.raises(InputError, match="leads back"):
        hash_input(tmp_path / "empty", "base")
