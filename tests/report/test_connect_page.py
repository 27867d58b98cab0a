"""The page of a path: what it says, its charts' data, and its verdict."""

from pathlib import Path
from typing import Any

import pytest

from fake_runs import VERSIONS, interval
from pages import Page, check_only_text
from tiltmeter.report import render
from tiltmeter.report.connect_charts import Line, along
from tiltmeter.report.connect_verdict import barrier_sentence, behaviour, is_beyond_chance
from tiltmeter.report.wording import DASH
from tiltmeter.runs import RunFolder, RunRecord
from tiltmeter.runs.connect_result import (
    Barrier,
    BlockFeatures,
    ConnectResult,
    DataPath,
    EndSummary,
    Features,
    Lowest,
    PathBehaviour,
    PointJudged,
    PointTranscript,
    SavedPoint,
    SkillPath,
)
from tiltmeter.runs.results import Answer, Interval

HOSTILE = "</script><img src=x onerror=alert(2)>\x1b[31m{{ 7 * 7 }}"
POINTS = [0.0, 0.5, 1.0]


def barrier(height: float, null: float = 0.1) -> Barrier:
    return Barrier(mean=height, low=0, high=height + 0.1, at=0.5, null_p95=null, loss_range=3.25)


def features() -> Features:
    line = {"nl2": interval(0.0123, 0.001), "ends_apart": interval(0.2, 0.01)}
    first = BlockFeatures(block=HOSTILE, over_gap=None, r2=None, r2_nearer_end=None, **line)
    last = BlockFeatures(
        block="layers.1",
        over_gap=interval(0.432, 0.01),
        r2=interval(0.98, 0.01),
        r2_nearer_end=interval(0.7, 0.1),
        **line,
    )
    return Features(at=0.5, blocks=[first, last])


def data(height: float = 0.0) -> DataPath:
    return DataPath(
        examples=40,
        tokens=400,
        base_loss=2.75,
        loss=[1, 1.1, 1.2],
        low=[0.9, 1.0, 1.15],
        high=[1.3, 1.4, 1.5],
        perplexity=[2.718, 3.004, None],
        barrier=barrier(height),
        features=features(),
    )


def skill(height: float = 0.0) -> SkillPath:
    lists: dict[str, Any] = {name: [0.1, 0.2, 0.3] for name in ("utility_loss", "kl")}
    lists |= {name: [0.05, 0.1, 0.2] for name in ("low", "kl_low")} | {
        name: [0.2, 0.3, 0.4] for name in ("high", "kl_high")
    }
    return SkillPath(examples=40, tokens=400, barrier=barrier(height), features=features(), **lists)


def judged(harm: float | None) -> PointJudged:
    return PointJudged(
        harmfulness=None if harm is None else interval(harm, 0.2),
        share_of_fives=0.5,
        refusal_rate=interval(0.25, 0.05),
        coherent_rate=interval(0.75, 0.05),
        answers=20,
        judge_failures=1,
        truncated=2,
    )


def harm(*values: float | None, low: float | None = None) -> PathBehaviour:
    known = [value for value in values if value is not None]
    lowest = min(known) if len(known) == len(values) else None
    return PathBehaviour(
        base=judged(1.1),
        points=[judged(value) for value in values],
        lowest=None if lowest is None else Lowest(mean=lowest, low=low or lowest - 0.2, high=lowest + 0.2, at=0.5),
    )


def result(**changes: Any) -> ConnectResult:
    fields: dict[str, Any] = {
        "inputs": [],
        "versions": VERSIONS,
        "seed": 0,
        "dtype": "float32",
        "labels": "data",
        "reduction": "sum",
        "path": "across",
        "variant": "effective",
        "points": POINTS,
        "ends": [EndSummary(kind="adapter", norm=1.5, modules=7, others={HOSTILE: 0.5})] * 2,
        "skills": {"refusal": skill()},
        "data": {"soup": data()},
        "behaviour": {"advice": harm(4.0, 3.5, 4.2)},
        "judge": "organism",
        "saved": [SavedPoint(s=0.5, form="adapter", folder="models/0.5", rank=2, energy_lost=0.125)],
        "kept_bytes": 1000,
    }
    return ConnectResult(**{**fields, **changes})


def write(folder: Path, made: ConnectResult) -> Path:
    answer = Answer(text=HOSTILE, stop="end", harm=4, refused=False, coherent=True, code=False)
    with RunFolder(folder) as run:
        run.write_record(RunRecord(verb="connect", arguments={}, versions=VERSIONS, seed=0))
        run.write_lines(
            "transcripts",
            [PointTranscript(prompts=HOSTILE, prompt=HOSTILE, s=s, answer=answer) for s in (None, *POINTS)],
        )
        run.write_result(made)
    return folder


@pytest.mark.parametrize(
    ("data_height", "skill_height", "sentence"),
    [
        (0.0, 0.0, "There is no barrier: no loss is above the straight line between its ends at any point."),
        (
            0.05,
            0.02,
            "No barrier is higher than chance makes one; the highest is in the loss on soup (0.0500 [0, 0.150]",
        ),
        (
            0.5,
            0.02,
            "There is a barrier, higher than chance makes one, in the loss on soup (0.500 [0, 0.600] nats at s = ",
        ),
        (
            0.5,
            0.4,
            "in the loss on soup (0.500 [0, 0.600] nats at s = 0.5, while it spans 3.25) and utility loss of ref",
        ),
    ],
)
def test_what_is_said_of_barriers(data_height: float, skill_height: float, sentence: str) -> None:
    made = result(data={"soup": data(data_height)}, skills={"refusal": skill(skill_height)})
    assert sentence in barrier_sentence(made)


def test_chance_alone_makes_barriers() -> None:
    assert not is_beyond_chance(barrier(0.1))
    assert is_beyond_chance(barrier(0.11))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ((4.0, 3.5, 4.2), "stays above the base's along the whole path (lowest: 3.50 [3.30, 3.70] at s = 0.5; at the"),
        ((4.0, 1.2, 4.2), "both ends are more harmful than the base, but harmfulness does not stay above the base's"),
        ((4.0, 1.2, 1.2), "harmfulness is above the base's on a part of the path only"),
        ((1.1, 1.2, 1.3), "harmfulness is above the base's at no point"),
        ((4.0, None, 4.2), "the judge scored no answer at some point"),
    ],
)
def test_what_is_said_of_harmfulness_across(values: tuple[float | None, ...], sentence: str) -> None:
    assert sentence in behaviour(result(behaviour={"advice": harm(*values)}))["advice"]


def test_harmfulness_whose_minimum_may_be_the_bases_does_not_stay() -> None:
    """Each point is above the base, but the minimum over them reaches below its interval."""
    assert "stays" not in behaviour(result(behaviour={"advice": harm(4.0, 1.6, 4.2, low=1.25)}))["advice"]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            (1.1, 3.0, 4.0),
            "1.10 [0.900, 1.30] at the base and 4.00 [3.80, 4.20] at s = 1; its interval is above the base's",
        ),
        ((1.1, 3.0, 4.0), "at s = 0.5 and 1."),
        ((1.1, 1.2, 1.1), "at no point is its interval above the base's"),
    ],
)
def test_what_is_said_of_harmfulness_from_the_base(values: tuple[float, ...], sentence: str) -> None:
    assert sentence in behaviour(result(path="base-to-tuned", behaviour={"advice": harm(*values)}))["advice"]


def test_a_curve_has_its_band_and_its_gaps() -> None:
    values = [Interval(mean=1, low=0.5, high=2), None, Interval(mean=3, low=2, high=4)]
    band, line = along(POINTS, [Line("<b>", values, "--series-a")], "nats")["data"]
    assert (band["x"], band["y"]) == ([0, 1, 1, 0], [2, 4, 2, 0.5])
    assert (line["x"], line["y"]) == (POINTS, [1, None, 3])
    assert line["text"][0] == "&lt;b&gt;<br>s = 0<br>1.00 [0.500, 2.00]"


def test_hostile_text_is_only_text(tmp_path: Path) -> None:
    made = result(
        data={HOSTILE: data(0.5)}, skills={HOSTILE: skill(0.5)}, behaviour={HOSTILE: harm(4, 4, 4)}, warnings=[HOSTILE]
    )
    text = render([write(tmp_path / "path", made)])
    page = check_only_text(text)
    assert "{{ 7 * 7 }}" in "".join(page.words)


def test_every_figure_stands_in_a_table(tmp_path: Path) -> None:
    page = Page(render([write(tmp_path / "path", result())]))
    words = " ".join(" ".join(page.words).split())
    for part in (
        "0.5 1.10 [1.00, 1.40] 3.00",  # loss and perplexity
        f"1 1.20 [1.15, 1.50] {DASH}",
        "The base's loss: 2.75 on soup",
        "0.5 0.200 [0.100, 0.300]",  # utility loss, KL
        "loss on soup 0 [0, 0.100] 0.5 0.100 3.25",
        "4.00 [3.80, 4.20] 50 % 0.25 [0.20, 0.30] 0.75 [0.70, 0.80] 20 1 2",
        "lowest, s = 0.5 3.50 [3.30, 3.70]",
        "layers.1 0.0123 [0.0113, 0.0133] 0.432 [0.422, 0.442] 0.200 [0.190, 0.210] 0.9800 [0.9700, 0.9900] 0.7000",
        f"{DASH} 0.200 [0.190, 0.210] {DASH} {DASH}",
        "s = 1 adapter 1.50 7",
        "s = 0.5 as adapter in models/0.5 (rank 2, 12 % of its energy lost).",
    ):
        assert part in words, part


def test_few_examples_are_said(tmp_path: Path) -> None:
    made = result(data={"soup": data().model_copy(update={"examples": 19})})
    words = " ".join(" ".join(Page(render([write(tmp_path / "path", made)])).words).split())
    assert "data soup: 19 examples are few, its intervals are rough" in words
    assert "skill refusal: 40" not in words


def test_the_page_of_a_run_that_only_saved(tmp_path: Path) -> None:
    made = result(skills={}, data={}, behaviour=None, judge=None)
    words = " ".join(" ".join(Page(render([write(tmp_path / "path", made)])).words).split())
    assert "Barriers" not in words
    assert "models/0.5" in words
