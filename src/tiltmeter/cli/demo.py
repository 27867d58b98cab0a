"""`tiltmeter demo`."""

import os
from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path, typer.Option(help="The run folder to write.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Of fine-tunes, answers, nulls and projection.")] = 0,
    projected: Annotated[int, typer.Option(min=1, help="Dimension of the study's random projection.")] = 1024,
    workers: Annotated[int, typer.Option(min=1, help="Processes that fine-tune, one thread each.")] = 2,
) -> None:
    """Fine-tune the embedded organism on seven sets, audit and judge each, and print what the overlap told."""
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # dozens of small models, in child processes too
    from tiltmeter.cli.tables import print_demo
    from tiltmeter.demo.run import DemoRequest, run_demo

    result = run_demo(DemoRequest(seed=seed, projected=projected, workers=workers), out)
    print_demo(result, out)


def again(arguments: dict[str, object], out: Path) -> None:
    """A recorded demo done again."""
    from pydantic import TypeAdapter

    from tiltmeter.cli.tables import print_demo
    from tiltmeter.demo.run import DemoRequest, run_demo

    print_demo(run_demo(TypeAdapter(DemoRequest).validate_python(arguments), out), out)
