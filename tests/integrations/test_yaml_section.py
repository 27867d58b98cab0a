import json
from pathlib import Path
from typing import Any

import pytest

import tiny
from tiltmeter.errors import InputError
from tiltmeter.integrations.settings import monitor_of


@pytest.fixture
def skill(tmp_path: Path) -> str:
    file = tmp_path / "refusal.jsonl"
    pairs = [(each.messages[0]["content"], each.completion) for each in tiny.skill().examples]
    file.write_text("".join(json.dumps({"prompt": a, "completion": b}) + "\n" for a, b in pairs))
    return str(file)


def test_a_section_describes_a_monitor(skill: str) -> None:
    monitor = monitor_of({"skills": [skill], "every": 7, "limits": {"refusal/overlap": 1}, "on_limit": "stop"})
    assert vars(monitor)["_every"] == 7
    assert vars(monitor)["_on_limit"] == "stop"
    assert [(limit.figure, limit.skill, limit.value) for limit in vars(monitor)["_limits"]] == [
        ("overlap", "refusal", 1.0)
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"skills": []}, "tiltmeter.skills: "),
        ({"every": 0}, "tiltmeter.every: "),
        ({"evry": 3}, "tiltmeter.evry: "),
        ({"on_limit": "explode"}, "tiltmeter.on_limit: "),
        ({"limits": {"harm": 1.0}}, "limit 'harm': expected one of"),
        ({"skills": ["missing.jsonl"]}, "missing.jsonl: no such file"),
    ],
)
def test_a_wrong_setting_is_named(skill: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        monitor_of({"skills": [skill]} | change)
