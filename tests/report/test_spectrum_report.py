"""What a spectrum's sentences claim, and what its page refuses."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from folders import CommandLine
from tiltmeter.errors import InputError
from tiltmeter.report import render
from tiltmeter.report.spectrum_charts import eigenvalues, rotation
from tiltmeter.report.spectrum_verdict import describe, describe_labels, describe_rank_bound, judge_spectrum
from tiltmeter.runs.results import Interval
from tiltmeter.runs.spectrum_result import Flat, RankBound, RotationRow, Shape, SizeRow, SkillSpectrum, Split, Turned

DIMS = 4


def interval(mean: float, width: float = 0.02) -> Interval:
    return Interval(mean=mean, low=mean - width, high=mean + width)


def shape(top: float, equal: float) -> Shape:
    return Shape(
        trace=9.0,
        lambda_1=3.0,
        lambda_d=1.0,
        tail=0.5,
        top_share=interval(top),
        participation_ratio=interval(5.0),
        equalised_top_share=interval(equal),
        equalised_participation_ratio=interval(7.0),
    )


def turned(bound: float | None) -> Turned:
    return Turned(angles=[60.0, 5.0], sine=0.866, overlap=0.6, trace_ratio=2.0, distance=1.0, gap=0.5, bound=bound)


def size(count: int, ratio: float) -> SizeRow:
    return SizeRow(text="data", size=count, participation_ratio=interval(ratio), top_share=interval(0.5))


def skill(**changes: Any) -> SkillSpectrum:
    """Sharper than random text and shuffled completions."""
    fields: dict[str, Any] = {
        "examples": 40,
        "data": shape(0.9, 0.8),
        "sampled": shape(0.85, 0.8),
        "nulls": {"random text": shape(0.5, 0.4), "shuffled completions": shape(0.6, 0.5)},
        "sizes": [size(20, 4.0), size(40, 4.1)],
        "labels": turned(3.0),
        "split": Split(examples=20, sine=interval(0.9), overlap=interval(0.7)),
        "flat": Flat(size=1000, energy=0.004, loss=0.01),
        "rank_bound": RankBound(modules=14, below_n=0, median_share=0.2),
    }
    return SkillSpectrum(**{**fields, **changes})


def test_sharper_needs_both_nulls_and_both_spectra() -> None:
    assert judge_spectrum(skill(), DIMS).word == "sharper than its nulls"
    raw_only = skill(data=shape(0.9, 0.4))
    assert judge_spectrum(raw_only, DIMS).word == "partly sharper"
    assert "with gradients of equal length: not sharper than either null" in judge_spectrum(raw_only, DIMS).sentence
    one = judge_spectrum(skill(data=shape(0.56, 0.45)), DIMS)
    assert one.word == "partly sharper"
    assert "Sharper than random text;" in one.sentence
    assert judge_spectrum(skill(data=shape(0.5, 0.4)), DIMS).word == "no sharper than its nulls"


def test_an_interval_that_reaches_the_null_is_not_sharper() -> None:
    touching = skill(data=shape(0.63, 0.53))
    assert "shuffled completions" not in judge_spectrum(touching, DIMS).sentence.split("Sharper than")[1]


def test_growth_with_n_is_named() -> None:
    assert "about level" in judge_spectrum(skill(), DIMS).sentence
    assert "more examples would show more" in judge_spectrum(skill(sizes=[size(20, 4), size(40, 7)]), DIMS).sentence
    assert "Too few examples" in judge_spectrum(skill(sizes=[size(40, 7)]), DIMS).sentence


def test_the_bound_is_counted_where_it_says_something() -> None:
    rows = [RotationRow(checkpoint="/x/one", turned=turned(bound)) for bound in (0.9, 1.1, None)]
    rows.append(RotationRow(checkpoint="/x/last", turned=None))
    text = " ".join(describe(skill(rotations=rows), DIMS))
    assert "informative (below 1, with a gap) at 1 of 4 checkpoints" in text
    assert "At /x/last fewer than 4 directions" in text
    assert "share 60.0 % with the base's (two halves of the skill: 68.0 % to 72.0 %)" in " ".join(
        describe(skill(rotations=rows[:1]), DIMS)
    )
    assert "Davis-Kahan" not in " ".join(describe(skill(), DIMS))


def test_the_rank_bound_says_when_it_says_nothing() -> None:
    assert "says nothing" in describe_rank_bound(RankBound(modules=14, below_n=0, median_share=0.2), 40)
    below = describe_rank_bound(RankBound(modules=14, below_n=3, median_share=0.2), 40)
    assert "below N = 40 in 3 of 14 modules" in below
    assert "cannot be compared" in describe_labels(skill(labels=None), DIMS)


def test_charts_leave_out_what_a_log_axis_cannot_show() -> None:
    spec = eigenvalues({"data": np.array([[3.0, 1.0, 0.0]]), "random text": np.array([[2.0, 1, 1], [3, 0.5, 0.5]])})
    skill_line = spec["data"][-1]
    assert (skill_line["x"], skill_line["y"]) == ([1, 2], [0.75, 0.25])
    low, high = spec["data"][:2]
    assert (low["y"], high["y"]) == ([0.5, 0.125, 0.125], [0.75, 0.25, 0.25])


def test_the_bound_is_drawn_below_one_only() -> None:
    rows = [RotationRow(checkpoint=f"/x/<b>{bound}", turned=turned(bound)) for bound in (0.9, 1.1)]
    traces = {trace["name"]: trace for trace in rotation(rows, None)["data"]}
    assert traces["bound below 1"]["y"] == [0.9, None]
    assert traces["overlap"]["x"][0] == "1. &lt;b&gt;0.9"
    assert "bound below 1" not in {trace["name"] for trace in rotation(rows[1:], None)["data"]}


@pytest.mark.parametrize(
    "broken",
    [
        lambda arrays: arrays.pop("tea.data.eigenvalues"),
        lambda arrays: arrays.update({"tea.data.eigenvalues": np.ones((2, 2))}),
        lambda arrays: arrays["tea.data.eigenvalues"].fill(np.nan),
        lambda arrays: arrays.update({"tea.random_text.equalised": np.ones((1, 17, 4))}),
    ],
)
def test_arrays_that_do_not_fit_are_refused(folder: Path, tiltmeter: CommandLine, broken: Any) -> None:
    tiltmeter(
        "spectrum", folder / "base", "--skill", folder / "tea.jsonl", "--dims", 2, "--draws", 1, "--out",
        folder / "out",
    )  # fmt: skip
    arrays = load_file(folder / "out" / "arrays.safetensors")
    broken(arrays)
    save_file(arrays, folder / "out" / "arrays.safetensors")
    with pytest.raises(InputError, match="expected 'tea"):
        render([folder / "out"])
