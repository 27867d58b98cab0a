"""The monitor as an Axolotl plugin, written against axolotl 0.19.

In the YAML of a run:

    plugins:
      - tiltmeter.integrations.axolotl.MonitorPlugin
    tiltmeter:
      skills: [refusal.jsonl]
      limits: {utility_loss: 0.5}
      on_limit: rollback
"""

from typing import Any

from axolotl.integrations.base import BasePlugin  # type: ignore[import-not-found]  # never installed beside mypy
from pydantic import BaseModel
from torch import nn

from tiltmeter.integrations.settings import SECTION, MonitorSettings, monitor_of
from tiltmeter.training.monitor import Monitor


class MonitorArgs(BaseModel):
    """What the plugin adds to Axolotl's settings."""

    tiltmeter: MonitorSettings | None = None


class MonitorPlugin(BasePlugin):  # type: ignore[misc]
    """Adds the monitor that the section `tiltmeter` describes; none without the section."""

    def get_input_args(self) -> str:
        """Where Axolotl finds the settings."""
        return f"{MonitorArgs.__module__}.{MonitorArgs.__name__}"

    def add_callbacks_pre_trainer(self, cfg: Any, model: nn.Module) -> list[Monitor]:
        """Before the Trainer is made, so that the monitor sees the weights before a checkpoint is loaded."""
        section = cfg.get(SECTION)
        return [monitor_of(section)] if section else []
