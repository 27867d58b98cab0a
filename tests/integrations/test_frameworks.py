"""The frameworks cannot be installed beside this project's versions: they are stood in for by what their hooks are."""

import importlib
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from pydantic import BaseModel
from test_yaml_section import skill  # noqa: F401  # a fixture
from torch import nn
from typer.testing import CliRunner

from tiltmeter.training.monitor import Monitor
from tiny_training import trainer


class BasePlugin:
    """The hooks of `axolotl.integrations.base.BasePlugin` 0.19 that matter here, with its signatures and defaults."""

    def __init__(self) -> None:
        pass

    def get_input_args(self) -> str | None:
        return None

    def add_callbacks_pre_trainer(self, cfg: Any, model: Any) -> list[Any]:
        return []


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Loaded by its name, as `load_plugin` does."""
    base = ModuleType("axolotl.integrations.base")
    base.BasePlugin = BasePlugin  # type: ignore[attr-defined]
    for name, module in (
        ("axolotl", ModuleType("axolotl")),
        ("axolotl.integrations", ModuleType("x")),
        (base.__name__, base),
    ):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "tiltmeter.integrations.axolotl", raising=False)
    module_name, class_name = ["tiltmeter.integrations.axolotl", "MonitorPlugin"]
    return getattr(importlib.import_module(module_name), class_name)()


def test_an_axolotl_run_has_the_monitor_of_its_settings(plugin: Any, skill: str, tmp_path: Path) -> None:  # noqa: F811
    module_name, class_name = plugin.get_input_args().rsplit(".", 1)
    args: type[BaseModel] = getattr(importlib.import_module(module_name), class_name)

    class Settings(args):  # type: ignore[misc, valid-type]  # as `merge_input_args` builds them
        base_model: str

    text = {"base_model": "tiny", "tiltmeter": {"skills": [skill], "every": 2, "limits": {"overlap": 0.0}}}
    cfg = Settings.model_validate(text).model_dump(exclude_none=True)
    (monitor,) = plugin.add_callbacks_pre_trainer(cfg, model=nn.Identity())
    made = trainer(tmp_path, "lora", [monitor])
    made.train()
    assert isinstance(monitor, Monitor)
    assert [reading.step for reading in monitor.readings] == [2, 4, 6]
    assert [alarm.step for alarm in monitor.alarms] == [2]


def test_an_axolotl_run_without_the_section_has_none(plugin: Any) -> None:
    assert plugin.add_callbacks_pre_trainer({"base_model": "tiny"}, nn.Identity()) == []


def test_axolotls_hooks_are_overridden_with_their_own_signatures(plugin: Any) -> None:
    for hook in ("get_input_args", "add_callbacks_pre_trainer"):
        mine, theirs = (list(inspect.signature(getattr(each, hook)).parameters) for each in (type(plugin), BasePlugin))
        assert mine == theirs


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, Any], list[Any]]]:
    """What `llamafactory.train.tuner.run_exp` 0.9.5 was called with."""
    called: list[tuple[dict[str, Any], list[Any]]] = []

    def run_exp(args: dict[str, Any] | None = None, callbacks: list[Any] | None = None) -> None:
        called.append((args or {}, callbacks or []))

    tuner = ModuleType("llamafactory.train.tuner")
    tuner.run_exp = run_exp  # type: ignore[attr-defined]
    for name in ("llamafactory", "llamafactory.train"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, tuner.__name__, tuner)
    return called


def test_a_llama_factory_run_has_the_monitor_of_its_settings(
    runs: list[tuple[dict[str, Any], list[Any]]],
    skill: str,  # noqa: F811
    tmp_path: Path,
) -> None:
    import typer

    from tiltmeter.integrations.llama_factory import main

    app = typer.Typer()
    app.command()(main)
    for name, section in (("with", {"tiltmeter": {"skills": [skill]}}), ("without", {})):
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump({"stage": "sft"} | section))
        assert CliRunner().invoke(app, [str(file)]).exit_code == 0
    (first, second) = runs
    assert first[0] == second[0] == {"stage": "sft"}
    assert [type(callback) for callback in first[1]] == [Monitor]
    assert second[1] == []
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump({"tiltmeter": {"skills": [skill], "every": 0}}))
    result = CliRunner().invoke(app, [str(tmp_path / "bad.yaml")])
    assert result.exit_code == 2
    assert "tiltmeter.every" in result.output
    assert len(runs) == 2
