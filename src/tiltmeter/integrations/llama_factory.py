"""The monitor in a LLaMA-Factory run, written against llamafactory 0.9.5, which takes callbacks from Python only.

    python -m tiltmeter.integrations.llama_factory train.yaml

is `llamafactory-cli train train.yaml` for a file that may have a section for the monitor:

    tiltmeter:
      skills: [refusal.jsonl]
      limits: {utility_loss: 0.5}
      on_limit: rollback
"""

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from tiltmeter.errors import InputError
from tiltmeter.integrations.settings import SECTION, monitor_of


def train(settings: dict[str, Any]) -> None:
    """A run by LLaMA-Factory's settings, with the monitor that their section `tiltmeter` describes.

    Raises:
        InputError: a section that describes no monitor.
    """
    from llamafactory.train.tuner import run_exp  # type: ignore[import-not-found]  # never installed beside mypy

    own = dict(settings)
    section = own.pop(SECTION, None)
    run_exp(own, [monitor_of(section)] if section else [])


def main(file: Annotated[Path, typer.Argument(help="LLaMA-Factory's YAML file.")]) -> None:
    """Train by a LLaMA-Factory file, with a monitor."""
    try:
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
        if not isinstance(settings, dict):
            raise InputError(f"{file}: expected settings by name, found {type(settings).__name__}")
        train(settings)
    except (InputError, OSError, yaml.YAMLError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error


if __name__ == "__main__":
    typer.run(main)
