"""The command line: one thin file per verb. torch is imported inside the commands, so that --help answers at once."""

import sys
from collections.abc import Callable

import click
import typer

from tiltmeter.cli import audit, demo, organism, report, run, verify
from tiltmeter.errors import InputError, NothingMeasuredError
from tiltmeter.text import inert

app = typer.Typer(
    name="tiltmeter",
    help="Measures how far fine-tuning tilts a language model out of its alignment.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
VERBS: tuple[Callable[..., object], ...] = (demo.demo, audit.audit, report.report, run.run, verify.verify)
for verb in VERBS:
    app.command()(verb)
app.add_typer(organism.app)


def main() -> None:
    """Runs a command; expected errors end in one line and the exit code of their kind."""
    try:
        code = app(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = _say("stopped", 130)
    except InputError as error:
        code = _say(str(error), 2)
    except NothingMeasuredError as error:
        code = _say(str(error), 3)
    except (MemoryError, OSError) as error:
        code = _say(f"{type(error).__name__}: {error}", 2)
    sys.exit(code)


def _say(message: str, code: int) -> int:
    print(f"tiltmeter: {inert(' '.join(message.split()), keep='')}", file=sys.stderr)
    return code
