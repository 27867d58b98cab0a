"""A direction as its page shows it."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tiltmeter.report.charts import Spec
from tiltmeter.report.direction_charts import (
    IN_SAMPLE,
    Series,
    accuracy_chart,
    auroc_chart,
    cosine_chart,
    norm_chart,
    series_of,
)
from tiltmeter.report.direction_verdict import cautions, findings
from tiltmeter.report.verdict import Verdict
from tiltmeter.runs.direction_result import DirectionResult

PLACES = {
    "output": "at the outputs of blocks (residual stream)",
    "input": "at the inputs of blocks (residual stream)",
    "attention": "at what the attention of blocks returns",
    "mlp": "at what the MLP of blocks returns",
}
TOKENS = {
    "last": "at the last prompt token",
    "prompt": "as means over each prompt's tokens",
    "answer": "as means over each answer's tokens",
}


@dataclass(frozen=True)
class DirectionView:
    """One run of `direction`.

    Attributes:
        read: where activations were read.
        in_sample: what the hollow markers are called.
        accuracy, auroc, norms, cosines: charts over the blocks.
        has_weights: the update was read; writes: it changes layers that write into the residual stream.
    """

    anchor: str
    title: str
    result: DirectionResult
    findings: list[Verdict]
    cautions: list[str]
    read: str
    series: list[Series]
    in_sample: str
    accuracy: Spec
    auroc: Spec
    norms: Spec
    cosines: Spec
    has_weights: bool
    writes: bool
    template: ClassVar[str] = "direction.html"


def direction_view(folder: Path, anchor: str, result: DirectionResult) -> DirectionView:
    """The view of a direction's folder."""
    series = series_of(result)
    return DirectionView(
        anchor,
        _title(folder, result),
        result,
        findings(result),
        cautions(result),
        f"{PLACES[result.place]}, {TOKENS[result.tokens]}",
        series,
        IN_SAMPLE,
        accuracy_chart(result, series),
        auroc_chart(result, series),
        norm_chart(result, series),
        cosine_chart(result, series),
        any(block.written is not None for block in result.blocks),
        any(block.written for block in result.blocks),
    )


def _title(folder: Path, result: DirectionResult) -> str:
    paths = {given.role: given.path for given in result.inputs}
    return f"From {paths['base']} to {paths['tuned']}" if {"base", "tuned"} <= set(paths) else folder.resolve().name
