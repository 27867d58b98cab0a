"""A spectrum as its page shows it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tiltmeter.errors import InputError
from tiltmeter.report import spectrum_charts as charts
from tiltmeter.report.charts import Spec
from tiltmeter.report.spectrum_verdict import (
    SpectrumVerdict,
    describe_labels,
    describe_rank_bound,
    describe_rotations,
    explain_nulls,
    judge_spectrum,
)
from tiltmeter.runs.saved import read_arrays, read_table
from tiltmeter.runs.spectrum_result import SkillSpectrum, SpectrumResult

TEXTS = ("data", "random text", "shuffled completions")
COUNTS = ("parameters",)
MAYBE = ("sampled_overlap", "sampled_trace_ratio", "output_width", "output_rank", "rank_bound")
FIGURES = (
    "trace",
    "lambda_1",
    "lambda_d",
    "tail_share",
    "participation_ratio",
    "equalised_participation_ratio",
    "random_text_tail_share",
    "random_text_participation_ratio",
    "shuffled_completions_tail_share",
    "shuffled_completions_participation_ratio",
)
COLUMNS = ("skill", "scope", "module", "block", *COUNTS, *FIGURES, *MAYBE)


@dataclass(frozen=True)
class Eigenvalue:
    """The share of the trace of one eigenvalue: the skill's, and least and largest draw of each null."""

    number: int
    share: float
    nulls: list[tuple[float, float]]


@dataclass(frozen=True)
class Curves:
    """One kind of spectrum: as it is, or with gradients of equal length."""

    title: str
    chart: Spec
    rows: list[Eigenvalue]


@dataclass(frozen=True)
class SkillSpectrumView:
    """One skill."""

    name: str
    figures: SkillSpectrum
    verdict: SpectrumVerdict
    labels: str
    rank_bound: str
    curves: list[Curves]
    sizes: Spec
    rotation: Spec | None
    along: str
    blocks: list[dict[str, Any]]
    modules: list[dict[str, Any]]


@dataclass(frozen=True)
class SpectrumView:
    """One run."""

    anchor: str
    title: str
    result: SpectrumResult
    skills: list[SkillSpectrumView]
    nulls: str
    template: ClassVar[str] = "spectrum.html"


def spectrum_view(folder: Path, anchor: str, result: SpectrumResult) -> SpectrumView:
    """The view of a spectrum's folder.

    Raises:
        InputError: tables or arrays that do not hold what they should.
    """
    bases = [given.path for given in result.inputs if given.role == "base"]
    title = f"Curvature of {bases[0]}" if bases else folder.resolve().name
    rows = read_table(folder, "spectrum", COLUMNS)
    _check(rows, folder / "spectrum.parquet")
    arrays = read_arrays(folder)
    skills = [
        _skill(
            name,
            figures,
            result.dims,
            [row for row in rows if row["skill"] == name],
            _curves(arrays, name, figures.examples, folder),
        )
        for name, figures in result.skills.items()
    ]
    return SpectrumView(anchor, title, result, skills, explain_nulls(result))


def _skill(
    name: str, figures: SkillSpectrum, dims: int, rows: list[dict[str, Any]], curves: list[Curves]
) -> SkillSpectrumView:
    return SkillSpectrumView(
        name,
        figures,
        judge_spectrum(figures, dims),
        describe_labels(figures, dims),
        describe_rank_bound(figures.rank_bound, figures.examples),
        curves,
        charts.against_size(figures.sizes),
        charts.rotation(figures.rotations, figures.split) if figures.rotations else None,
        describe_rotations(figures, dims),
        [row for row in rows if row["scope"] == "block"],
        [row for row in rows if row["scope"] == "module"],
    )


def _curves(arrays: Mapping[str, NDArray[Any]], name: str, examples: int, folder: Path) -> list[Curves]:
    path = folder / "arrays.safetensors"
    return [
        _curve(
            title, {text: _array(arrays, f"{name}.{text.replace(' ', '_')}.{kind}", examples, path) for text in TEXTS}
        )
        for title, kind in (("As they are", "eigenvalues"), ("Gradients of equal length", "equalised"))
    ]


def _curve(title: str, texts: Mapping[str, NDArray[Any]]) -> Curves:
    shares = {text: values / np.maximum(values.sum(1, keepdims=True), 1e-300) for text, values in texts.items()}
    own, *nulls = shares.values()
    ends = [list(zip(null.min(0).tolist(), null.max(0).tolist(), strict=True)) for null in nulls]
    rows = [
        Eigenvalue(number, share, list(found))
        for number, (share, *found) in enumerate(zip(own[0].tolist(), *ends, strict=True), start=1)
    ]
    return Curves(title, charts.eigenvalues(shares), rows)


def _array(arrays: Mapping[str, NDArray[Any]], key: str, examples: int, path: Path) -> NDArray[Any]:
    """`[D, N]` over all modules, which are the first site."""
    found = arrays.get(key)
    fits = found is not None and found.ndim == 3 and found.size > 0 and found.shape[2] == examples
    if found is None or not fits or not np.isfinite(found).all():
        raise InputError(f"{path}: expected {key!r} as finite numbers [draws, sites, {examples}]")
    whole: NDArray[Any] = found[:, 0]
    return whole


def _check(rows: list[dict[str, Any]], path: Path) -> None:
    for number, row in enumerate(rows):
        texts = (
            isinstance(row["skill"], str) and isinstance(row["scope"], str) and isinstance(row["module"], str | None)
        )
        numbers = all(_is_finite(row[name]) for name in (*COUNTS, *FIGURES))
        maybe = all(row[name] is None or _is_finite(row[name]) for name in MAYBE)
        if not (texts and numbers and maybe and isinstance(row["block"], int | None)):
            raise InputError(f"{path}: row {number}: expected text, a block number or null, and finite figures")


def _is_finite(value: object) -> bool:
    return isinstance(value, float | int) and abs(value) < float("inf")
