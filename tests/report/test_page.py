"""The page is self-contained, a pure function of its folders, and hostile text in it is only text."""

import base64
import hashlib
import json
import re
from pathlib import Path

import pytest

from fake_runs import audit_result, demo_result, demo_rows, skill, write_audit, write_demo, write_interrupted
from pages import HOSTILE, Page, check_only_text
from tiltmeter.errors import InputError
from tiltmeter.report import render
from tiltmeter.runs.results import Input, UpdateSummary


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page whose every text from outside is hostile."""
    given = Input(path=HOSTILE, role=HOSTILE, resolved="/x", files={HOSTILE: "ab" * 32})
    result = audit_result(
        inputs=[given, given.model_copy(update={"role": "tuned"}), given.model_copy(update={"role": "base"})],
        versions={HOSTILE: HOSTILE},
        dtype=HOSTILE,
        update=UpdateSummary(kind=HOSTILE, norm=1.0, modules=1, not_covered={HOSTILE: HOSTILE}),
        skills={HOSTILE: skill(0.8, 1.0)},
        behaviour={HOSTILE: next(iter((audit_result().behaviour or {}).values()))},
        judge=HOSTILE,
        chat_templates={HOSTILE: HOSTILE},
        warnings=[HOSTILE],
    )
    folder = tmp_path_factory.mktemp("hostile")
    audit = write_audit(folder / "audit", result=result, text=HOSTILE)
    row = demo_rows()[0]
    row = row.model_copy(update={"set": HOSTILE, "audit": None, "skills": {HOSTILE: row.skills["refusal"]}})
    demo = write_demo(folder / "demo", result=demo_result(rows=[row], warnings=[HOSTILE]))
    return render([audit, demo])


def test_hostile_text_is_only_text(hostile: str) -> None:
    page = check_only_text(hostile)
    assert len(page.data) >= 4
    for shown in ("<script>alert(1)</script>", "{{ 7 * 7 }}", r"\x1b[31m\u2028\u202e=cmd()"):
        assert shown in "".join(page.words)


def test_policy_names_each_script_and_allows_nothing_else(hostile: str) -> None:
    page = Page(hostile)
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in page.scripts]
    rules = dict(rule.strip().split(" ", 1) for rule in page.policy().split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"].split() == [f"'sha256-{digest}'" for digest in hashes]
    assert "unsafe-eval" not in page.policy()
    assert all("'unsafe-inline'" not in rule for name, rule in rules.items() if name != "style-src")


def test_page_loads_nothing(hostile: str) -> None:
    for _, attrs in Page(hostile).tags:
        assert "src" not in attrs
        assert "srcset" not in attrs
        assert (attrs.get("href") or "#").startswith("#")
    style = re.search("<style>(.*?)</style>", hostile, re.DOTALL)
    assert style is not None
    assert not re.search(r"url\(|@import", style[1])


def test_same_folders_give_the_same_bytes(tmp_path: Path) -> None:
    folders = [write_demo(tmp_path / "demo"), write_audit(tmp_path / "audit")]
    assert render(folders) == render(folders)
    assert str(tmp_path) not in render(folders)


def test_report_does_not_touch_the_folder(tmp_path: Path) -> None:
    folder = write_audit(tmp_path / "audit")
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    render([folder])
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_audit_without_behaviour_is_reported(tmp_path: Path) -> None:
    page = render([write_audit(tmp_path / "audit", result=audit_result(behaviour=None, judge=None))])
    assert "Where the overlap sits" in page
    assert "Behaviour before and after" not in page
    assert "Transcripts" not in page


def test_page_opens_with_verdict_then_table(tmp_path: Path) -> None:
    words = " ".join("".join(Page(render([write_audit(tmp_path / "audit")])).words).split())
    order = ["refusal: tilted", "Measured on 64 examples", "Over same-rank null", "Where the overlap sits"]
    places = [words.index(part) for part in order]
    assert places == sorted(places)


def test_worst_change_comes_first_in_the_transcript(tmp_path: Path) -> None:
    page = render([write_audit(tmp_path / "audit")])
    assert page.index("How do I make a vornax?") < page.index("How do I calm a vornax?")


def test_demo_links_each_row_to_its_audit(tmp_path: Path) -> None:
    page = Page(render([write_demo(tmp_path / "demo")]))
    anchors = {attrs.get("id") for _, attrs in page.tags}
    links = [str(attrs["href"])[1:] for tag, attrs in page.tags if tag == "a" and attrs.get("href") != "#top"]
    assert len(links) == 14
    assert set(links) <= anchors
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_several_folders_are_several_sections(tmp_path: Path) -> None:
    folders = [write_audit(tmp_path / name) for name in ("one", "two")]
    page = Page(render(folders))
    assert [attrs["id"] for tag, attrs in page.tags if tag == "section"] == ["run-1", "run-2"]


def test_what_is_no_finished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run folder"):
        render([])
    with pytest.raises(InputError, match="not found"):
        render([tmp_path / "nowhere"])
    with pytest.raises(KeyError):
        write_interrupted(tmp_path / "half")
    with pytest.raises(InputError, match="did not finish"):
        render([tmp_path / "half"])


@pytest.mark.parametrize("audit", ["../audit", "/etc"])
def test_demo_that_points_outside_its_folder_is_refused(tmp_path: Path, audit: str) -> None:
    demo = write_demo(tmp_path / "demo", result=demo_result(rows=[demo_rows()[0].model_copy(update={"audit": None})]))
    content = json.loads((demo / "result.json").read_text())
    content["rows"][0]["audit"] = audit
    (demo / "result.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="not a file name inside a run folder"):
        render([demo])
