"""The page of a ranking: what it says, its charts' data, and its verdict."""

from pathlib import Path

import pytest

from fake_runs import VERSIONS, interval
from pages import Page, check_only_text
from tiltmeter.report import render
from tiltmeter.report.ranking import cosines, describe, is_harmed
from tiltmeter.runs import RunFolder, RunRecord
from tiltmeter.runs.ranking_result import (
    CosineNull,
    MatchingRisk,
    Percentiles,
    RankingResult,
    RiskyExample,
    SetRisk,
    SkillRisk,
)

HOSTILE = "</script><img src=x onerror=alert(2)>\x1b[31m{{ 7 * 7 }}"
NULL = CosineNull(weights=1_000_000, deviation=0.001, p95=0.0016)


def risk(harm: float, width: float = 0.1) -> SetRisk:
    cosine = harm / 10
    return SetRisk(
        examples=40,
        harm=interval(harm, width),
        harm_null_p95=0.05,
        positive=0.9,
        beyond_null=0.7,
        cosine=Percentiles(p5=cosine - 0.1, p50=cosine, p95=cosine + 0.1, largest=cosine + 0.2),
        matching=MatchingRisk(mean=interval(0.5, 0.1), null_p95=0.003),
    )


def skill(**sets: SetRisk) -> SkillRisk:
    example = RiskyExample(
        data=HOSTILE, row=HOSTILE, harm=1.0, cosine=0.5, matching=None, prompt=HOSTILE, completion=HOSTILE
    )
    return SkillRisk(examples=9, gradient_norm=2.0, sets=sets, worst=[example])


def write_ranking(folder: Path, skills: dict[str, SkillRisk]) -> Path:
    result = RankingResult(
        inputs=[],
        versions=VERSIONS,
        seed=0,
        dtype="float32",
        labels="data",
        reduction="sum",
        by="harm",
        harmful=HOSTILE,
        null=NULL,
        skills=skills,
        not_covered={HOSTILE: HOSTILE},
        warnings=[HOSTILE],
    )
    with RunFolder(folder) as run:
        run.write_record(RunRecord(verb="rank-examples", arguments={}, versions=VERSIONS, seed=0))
        run.write_result(result)
    return folder


@pytest.mark.parametrize(
    ("harm", "width", "sentence"),
    [
        (1.0, 0.1, "the skill's likelihood falls on it"),
        (-1.0, 0.1, "it rises on it"),
        (1.0, 2.0, "no change beyond chance on it"),
        (0.04, 0.01, "no change beyond chance on it"),  # apart from zero, but not from the null
        (-0.04, 0.01, "no change beyond chance on it"),
    ],
)
def test_what_steps_on_a_data_set_do(harm: float, width: float, sentence: str) -> None:
    figures = skill(it=risk(harm, width))
    assert sentence in describe(figures)
    assert is_harmed(figures) == ("falls" in sentence)


def test_the_chart_shows_each_set_and_the_null() -> None:
    spec = cosines(skill(one=risk(1.0), two=risk(2.0)), NULL.p95)
    assert [trace["x"] for trace in spec["data"][2:]] == [[0.2, 0.1], [0.4, pytest.approx(0.3)]]
    assert spec["data"][2]["y"] == ["two", "one"]
    (band,) = spec["layout"]["shapes"]
    assert (band["x0"], band["x1"]) == (-NULL.p95, NULL.p95)


def test_hostile_text_is_only_text(tmp_path: Path) -> None:
    text = render([write_ranking(tmp_path / "ranking", {HOSTILE: skill(**{HOSTILE: risk(1.0)})})])
    page = check_only_text(text)
    assert "{{ 7 * 7 }}" in "".join(page.words)


def test_every_figure_stands_beside_its_null(tmp_path: Path) -> None:
    page = Page(render([write_ranking(tmp_path / "ranking", {"refusal": skill(it=risk(1.0))})]))
    words = " ".join(" ".join(page.words).split())
    for part in ("refusal: lowered", "1.00 [0.900, 1.10] 0.0500 90 % 70 % 0.500 [0.400, 0.600] 0.00300", "0 ± 0.00100"):
        assert part in words
