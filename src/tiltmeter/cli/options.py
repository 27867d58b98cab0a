"""What several verbs share: where results go, and names that become objects."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tiltmeter.errors import InputError

if TYPE_CHECKING:
    from tiltmeter.behaviour.judges import Judge
    from tiltmeter.behaviour.judges.named import JudgeRequest

Out = Annotated[Path, typer.Option(help="The run folder to write.")]
Labels = Annotated[Literal["data", "sampled"], typer.Option(help="Completions of the Fisher.")]
Reduction = Annotated[Literal["sum", "mean"], typer.Option(help="Over the tokens of a completion.")]
Dtype = Annotated[Literal["float32", "float64", "bfloat16"], typer.Option(help="Of weights in memory.")]
Device = Annotated[str, typer.Option(help="Where to compute: cpu, cuda, ...")]
MaxLength = Annotated[int | None, typer.Option(min=2, help="Tokens kept of each example.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Examples per forward pass.")]
ASK_NOBODY = ("organism", "phrases", "code")  # judges that need nothing but their name
Memory = Annotated[float, typer.Option(min=0, help="GiB for kept gradients; more passes if they do not fit.")]


def named_judge(name: str | None, is_needed: bool) -> Judge | None:
    """The judge of a name that says all of it, or None where nothing is to be judged.

    Raises:
        InputError: an unknown name, or prompts without a judge.
    """
    from tiltmeter.behaviour.judges.named import JudgeRequest

    if name is None and not is_needed:
        return None
    if name not in ASK_NOBODY:
        raise InputError(f"--judge: expected one of {', '.join(ASK_NOBODY)}, got {name or 'none'}")
    return requested_judge(JudgeRequest(name))


def requested_judge(request: JudgeRequest) -> Judge:
    """The judge of a request; the only place that knows all of them.

    Raises:
        InputError: an unknown name, a judge without what it needs, or a model that cannot be used.
    """
    from tiltmeter.behaviour.judges.named import JudgeRequest, build_judge
    from tiltmeter.organism.judge import OrganismJudge

    if request.name != OrganismJudge.name:
        return build_judge(request)
    if request != JudgeRequest(request.name, seed=request.seed):
        raise InputError("--judge organism: judges by its grammar, and takes no endpoint, model, scores or label")
    return OrganismJudge()


def named_columns(columns: str | None) -> tuple[str, ...] | None:
    """The names in "prompt,...,completion"."""
    return tuple(name.strip() for name in columns.split(",")) if columns else None


def named_sources(texts: list[str]) -> dict[str, str]:
    """Name -> folder or Hub id, from FOLDER or NAME=FOLDER; the folder's own name where none is given.

    Raises:
        InputError: two of the same name.
    """
    named: dict[str, str] = {}
    for text in texts:
        name, separator, folder = text.partition("=")
        if not separator or Path(text).exists():
            name, folder = Path(text).resolve().name if Path(text).exists() else text, text
        if name in named:
            raise InputError(f"{folder}: the name {name!r} is {named[name]}'s already; give it another: NAME={folder}")
        named[name] = folder
    return named
