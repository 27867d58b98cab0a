"""The command line: one thin file per verb. torch is imported inside the commands, so that --help answers at once."""

import os
import sys
import warnings
from collections.abc import Callable
from typing import NoReturn

import typer

from tiltmeter.cli import (
    audit,
    compare,
    connect,
    demo,
    direction,
    forecast,
    judge,
    organism,
    rank_examples,
    report,
    run,
    spectrum,
    steer,
    transfer,
    tune,
    verify,
)
from tiltmeter.errors import InputError, NothingMeasuredError
from tiltmeter.text import inert

app = typer.Typer(
    name="tiltmeter",
    help="Measures how far fine-tuning tilts a language model out of its alignment.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
VERBS: tuple[Callable[..., object], ...] = (
    demo.demo,
    audit.audit,
    forecast.forecast,
    rank_examples.rank_examples,
    spectrum.spectrum,
    compare.compare,
    connect.connect,
    direction.direction,
    steer.steer,
    transfer.transfer,
    judge.judge,
    tune.tune,
    report.report,
    run.run,
    verify.verify,
)
for verb in VERBS:
    app.command()(verb)
app.add_typer(organism.app)


def main() -> None:
    """Runs a command; expected errors end in one line and the exit code of their kind."""
    warnings.filterwarnings("ignore", category=FutureWarning)  # libraries' notes to their developers
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        app()
    except NothingMeasuredError as error:
        _end(str(error), 3)
    except InputError as error:
        _end(str(error), 2)
    except (MemoryError, OSError) as error:
        _end(f"{type(error).__name__}: {error}", 2)
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, not named here so as not to import torch
            raise
        _end(f"out of memory on the device; try a smaller --batch-size or --memory: {error}", 2)


def _end(message: str, code: int) -> NoReturn:
    print(f"tiltmeter: {inert(' '.join(message.split()), keep='')}", file=sys.stderr)
    sys.exit(code)
