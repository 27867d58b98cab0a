"""`tiltmeter run`."""

from pathlib import Path
from typing import Annotated

import typer

from tiltmeter.cli.options import named_judge
from tiltmeter.errors import InputError


def run(
    file: Annotated[Path, typer.Argument(metavar="RUN.YAML", help="The run.yaml of a run folder, or the folder.")],
    out: Annotated[Path | None, typer.Option(help="Where to write; the folder of RUN.YAML if not given.")] = None,
) -> None:
    """Do a recorded run again."""
    from pydantic import TypeAdapter, ValidationError

    from tiltmeter.audit.run import Request, run_audit
    from tiltmeter.cli.tables import print_audit, print_demo
    from tiltmeter.demo.run import DemoRequest, run_demo
    from tiltmeter.runs.record import explain, load_run
    from tiltmeter.runs.verify import changes
    from tiltmeter.text import inert

    record = load_run(file)
    for problem in (problem for given in record.inputs for problem in changes(given)):
        typer.echo(f"warning: {inert(str(problem), keep='')}", err=True)
    target = out or (file if file.is_dir() else file.parent)
    try:
        if record.verb == "audit":
            request = TypeAdapter(Request).validate_python(record.arguments)
            result = run_audit(request, target, named_judge(request.judge, bool(request.sources.prompts)))
            print_audit(result, target)
        elif record.verb == "demo":
            print_demo(run_demo(TypeAdapter(DemoRequest).validate_python(record.arguments), target), target)
        else:
            raise InputError(f"{file}: expected a run of audit or demo, got {record.verb!r}")
    except ValidationError as error:
        raise InputError(f"{file}: {explain(error)}") from error
