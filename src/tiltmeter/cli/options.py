"""What several verbs share: where results go, and names that become objects."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tiltmeter.errors import InputError

if TYPE_CHECKING:
    from tiltmeter.behaviour.judges import Judge

Out = Annotated[Path, typer.Option(help="The run folder to write.")]


def named_judge(name: str | None, is_needed: bool) -> Judge | None:
    """The judge of a name, or None where nothing is to be judged.

    Raises:
        InputError: an unknown name, or prompts without a judge.
    """
    from tiltmeter.organism.judge import OrganismJudge

    judges = {"organism": OrganismJudge}
    if name is None and not is_needed:
        return None
    if name not in judges:
        raise InputError(f"--judge: expected one of {', '.join(judges)}, got {name or 'none'}")
    return judges[name]()


def named_columns(columns: str | None) -> tuple[str, ...] | None:
    """The names in "prompt,...,completion"."""
    return tuple(name.strip() for name in columns.split(",")) if columns else None
