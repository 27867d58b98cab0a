"""A folder of a direction, written through the project's own API without a model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fake_runs import VERSIONS, interval
from tiltmeter.runs import RunFolder, RunRecord
from tiltmeter.runs.direction_result import (
    Beside,
    BlockRecord,
    DirectionResult,
    Forecast,
    Halves,
    MeansSeparated,
    Separated,
    Written,
)


def separated(held_out: float, in_sample: float = 1.0) -> Separated:
    """Held out with 0.0625 to each side; an AUROC larger by as much."""
    return Separated(
        in_sample=in_sample,
        held_out=interval(held_out, 0.0625),
        auroc=interval(held_out + 0.0625, 0.0625),
        d_prime=2 * held_out,
    )


def means(held_out: float, norm: float = 4.5, p: float = 0.002) -> MeansSeparated:
    """The same along v."""
    return MeansSeparated(**separated(held_out, 0.96875).model_dump(), norm=norm, p=p)


def written(layer: str, share: float) -> Written:
    """Of a layer of width 32; by chance at most 0.125."""
    return Written(
        layer=layer,
        share=share,
        chance=1 / 32,
        chance_high=0.125,
        span_cosine=2 * share,
        span_cosine_high=0.375,
        components=4,
    )


def block(index: int, others: Sequence[str] = ("secure",), **changes: Any) -> BlockRecord:
    """Block 0 separates at 0.625, each later one a little better; others less."""
    name, more = f"model.layers.{index}", 0.25 * index / (index + 4)
    fields: dict[str, Any] = {
        "tuned": means(0.625 + more, 4.5 * (index + 1)),
        "logistic": separated(0.75),
        "principal": separated(0.5, 0.53125),
        "halves": Halves(mean=0.9375, lowest=0.875, highest=0.96875),
        "beside": {other: Beside(separated=means(0.5, 1.25, 0.34), cosine=-0.25) for other in others},
        "written": [written(f"{name}.attend.out", 0.0625), written(f"{name}.mlp.down", 0.25)],
        "forecast": Forecast(cosine=0.8125, norm_ratio=1.75),
    }
    return BlockRecord(block=name, **{**fields, **changes})


def direction_result(**changes: Any) -> DirectionResult:
    """Three blocks of a model and of one fine-tune beside it, unless changed."""
    fields: dict[str, Any] = {
        "inputs": [],
        "versions": VERSIONS,
        "seed": 0,
        "dtype": "float32",
        "prompts": 60,
        "repeated": 0,
        "folds": 5,
        "permutations": 499,
        "best_p": 0.002,
        "draws": 100,
        "place": "output",
        "tokens": "last",
        "beside": {"secure": "models/secure"},
        "blocks": [block(index) for index in range(3)],
        "not_covered": {"model.norm.weight": 0.03125},
        "files": ["direction/direction.safetensors", "direction/direction.gguf", "direction/beside-1.safetensors"],
    }
    return DirectionResult(**{**fields, **changes})


def write_direction(folder: Path, result: DirectionResult) -> Path:
    """A finished run in `folder`."""
    with RunFolder(folder) as run:
        run.write_record(RunRecord(verb="direction", arguments={}, versions=VERSIONS, seed=0))
        run.write_result(result)
    return folder
