"""Points of a path as models on disk."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import FiniteFloat, PositiveInt

from tiltmeter.geometry.path import WeightPath
from tiltmeter.models import quiet
from tiltmeter.runs.connect_result import SavedPoint
from tiltmeter.runs.folder import RunFolder

Form = Literal["checkpoint", "adapter"]


@dataclass(frozen=True)
class Saving:
    """Points to write as models, as whole checkpoints or as adapters of the base; `rank` truncates an adapter."""

    points: tuple[FiniteFloat, ...] = ()
    form: Form = "checkpoint"
    rank: PositiveInt | None = None


def save_points(path: WeightPath, saving: Saving, base: Path, run: RunFolder) -> list[SavedPoint]:
    """Writes `models/S/` for each point, with the base's tokenizer.

    Raises:
        InputError: a change that is no adapter (see `save_adapter`).
    """
    return [_save(path, s, saving, base, run) for s in saving.points]


def _save(path: WeightPath, s: float, saving: Saving, base: Path, run: RunFolder) -> SavedPoint:
    name = f"models/{s:g}"
    folder, lost = run.folder(name), None
    if saving.form == "adapter":
        lost = path.update(s).save_adapter(folder, base, saving.rank).total
    else:
        save_checkpoint(path, s, folder)
    path.model.tokenizer.save_pretrained(str(folder))
    energy_lost = lost if saving.rank is not None else None
    return SavedPoint(s=s, form=saving.form, folder=name, rank=saving.rank, energy_lost=energy_lost)


def save_checkpoint(path: WeightPath, s: float, folder: Path) -> None:
    """The model at a point as transformers writes it, untied where only one of two tied parameters moved."""
    module = path.model.module
    config, ties = module.config, _count(path)
    tied = config.tie_word_embeddings
    with path.at(s), quiet():
        config.tie_word_embeddings = tied and _count(path) == ties
        try:
            module.save_pretrained(str(folder))
        finally:
            config.tie_word_embeddings = tied


def _count(path: WeightPath) -> int:
    """Distinct parameters."""
    return len(list(path.model.module.parameters()))
