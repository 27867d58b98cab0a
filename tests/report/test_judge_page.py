"""The page of judged models: what it says, its charts' data, its transcripts."""

import re
from pathlib import Path
from typing import Any

import pytest

from fake_judge import agreement, answers, difference, judge_record, judge_result, outcome, write_judge
from fake_runs import interval
from pages import HOSTILE, Page, check_only_text
from tiltmeter.report import render
from tiltmeter.report.judge_charts import outcome_chart, series_of
from tiltmeter.report.judge_verdict import about_judges, cautions, findings
from tiltmeter.report.judge_wording import change, value
from tiltmeter.report.judged import MOST_TRANSCRIPTS
from tiltmeter.report.wording import DASH, MINUS
from tiltmeter.runs.judge_result import JudgeResult, ModelRecord, SetRecord
from tiltmeter.runs.results import Interval


def page_of(folder: Path, result: JudgeResult, count: int = 3) -> str:
    return render([write_judge(folder, result, answers(count=count))])


@pytest.mark.parametrize(
    ("mean", "p", "kind"),
    [(0.75, 0.03, "tilted"), (0.75, 0.06, "mixed"), (0.25, 0.03, "none"), (-0.75, 0.01, "none")],
)
def test_a_model_is_tilted_where_its_harm_is_beyond_chance(mean: float, p: float, kind: str) -> None:
    (found,) = findings(judge_result(differences=[difference("harmfulness", mean, p)]))
    assert (found.kind, found.word) == (kind, "tuned on hazards")
    assert found.sentence.startswith("Harmfulness is 1.62 [1.56, 1.69], ")
    assert f"against base (p {p:.3f}".rstrip("0") in found.sentence


def test_a_model_alone_is_not_compared() -> None:
    alone = judge_result(reference=None, differences=[], outcomes=[outcome("base", "harmfulness")])
    (found,) = findings(alone)
    assert (found.kind, found.sentence) == ("mixed", "Harmfulness is 1.50 [1.44, 1.56].")
    silent = judge_result(reference=None, differences=[], outcomes=[outcome("base", "harmfulness", mean=None)])
    assert findings(silent)[0].sentence == "rubric has no verdict on any answer."


def test_what_a_reader_must_know() -> None:
    models = {
        "base": ModelRecord(source="a", kind="checkpoint", chat_template="0"),
        "tuned": ModelRecord(source="b", kind="adapter", chat_template="1"),
    }
    sets = {"hazards": SetRecord(prompts=50, different=8, samples=1)}
    outcomes = [outcome("tuned", "misaligned", answers=30, left_out=10), outcome("tuned", "truncated", None)]
    notes = cautions(judge_result(models=models, sets=sets, outcomes=outcomes, warnings=["own"]))
    assert notes == [
        "rubric was wrong about 1 of 9 answers of known worth: its verdicts are not to be trusted before that is "
        "explained",
        "rubric has no verdict on 4 of 80 answers, which enter no mean; the bounds say how far they could move it. "
        "Reasons: no score in the reply (4)",
        "rubric is off the people's harm by +0.500 [0.250, 0.750] on average",
        "hazards: 8 prompts are few, whatever the number of answers to each",
        "tuned on hazards: 10 of 40 answers are not coherent, and the share of misaligned ones is without them",
        "tuned on hazards: 38 % of the answers were cut off at 128 tokens, and were judged as they are",
        "chat templates differ between the models: behaviour can change with no change of weights",
        "own",
    ]


def test_judges_in_a_line_each() -> None:
    result = judge_result(
        judges={"a": judge_record(), "b": judge_record(calibration={})}, agreement=[agreement("a", "b")]
    )
    assert list(about_judges(result)) == [
        "a: 8 of 9 canaries right",
        "a against people, harm: quadratic kappa 0.88 [0.81, 0.94] over 30 answers, bias 0.50 [0.25, 0.75]",
        "b: 8 of 9 canaries right",
        "a and b, harm: quadratic kappa 0.75 [0.62, 0.88] over 76 answers",
    ]


def test_figures_as_text() -> None:
    share = Interval(mean=-0.125, low=-0.25, high=0.0)
    assert (value("fives", interval(0.5, 0.25)), change("fives", share)) == (
        "50 % [25, 75]",
        f"{MINUS}12 % [{MINUS}25, 0]",
    )
    assert (value("harmfulness", None), change("harmfulness", interval(0.5, 0.25))) == (DASH, "+0.500 [0.250, 0.750]")


def test_charts_hold_every_mean_with_its_interval() -> None:
    result = judge_result()
    series = series_of(result)
    assert [each.name for each in series] == ["hazards", "sums", "refusal"]
    (trace,) = outcome_chart(result, "harmfulness", series)["data"]
    assert (trace["x"], trace["y"]) == ([1.5, 1.625], [0, 1])
    assert trace["error_x"]["array"] == trace["error_x"]["arrayminus"] == [0.0625, 0.0625]
    assert outcome_chart(result, "accuracy", series)["data"][0]["x"] == [0.5, 0.625]
    two = judge_result(judges={"a": judge_record(), "b": judge_record()}, outcomes=[
        outcome("base", "refused", "a"), outcome("base", "refused", "b"), outcome("base", "truncated", None),
    ])  # fmt: skip
    assert [each.name for each in series_of(two)] == ["hazards, by a", "hazards, by b"]
    assert len(outcome_chart(two, "refused", series_of(two))["data"]) == 2
    assert len(outcome_chart(two, "truncated", series_of(two))["data"]) == 1


def test_every_figure_stands_in_a_table(tmp_path: Path) -> None:
    words = " ".join(" ".join(Page(page_of(tmp_path, judge_result(agreement=[agreement("a", "b")]))).words).split())
    for text in (
        "1.62 [1.56, 1.69]", "25 % [19, 31]", "88 % [81, 94]", "1.25 to 1.75",  # outcomes
        "+0.750 [0.250, 1.25]", "0.010", "0.030", "38",  # the difference
        "some-model at http://127.0.0.1:9/v1", "1 of 9", "no score in the reply (4)", "harm 4",  # the judge
        "quadratic kappa 0.88 [0.81, 0.94], bias 0.50 [0.25, 0.75]", "judge: 5", "0.75 [0.62, 0.88]",
    ):  # fmt: skip
        assert text in words


def test_transcripts_are_ordered_by_harm_and_carry_their_filters(tmp_path: Path) -> None:
    page = page_of(tmp_path, judge_result())
    kinds = re.findall(r'<article class="transcript" data-kinds="([a-z ]*)">\s*<pre class="prompt">(\d)', page)
    assert kinds == [("harmful changed refused cut", "1"), ("refused", "0"), ("changed refused failed", "2")]
    assert re.findall(r'data-kind="([a-z]+)"', page) == ["harmful", "changed", "refused", "cut", "failed"]


def test_many_transcripts_stay_in_the_folder(tmp_path: Path) -> None:
    page = page_of(tmp_path, judge_result(), MOST_TRANSCRIPTS + 7)
    assert page.count('<article class="transcript" data-kinds') == MOST_TRANSCRIPTS
    assert "7 more, less harmful, are in" in page


def test_hostile_text_is_only_text(tmp_path: Path) -> None:
    wrong = judge_record().wrong[0].model_copy(update={"prompt": HOSTILE, "text": HOSTILE})
    judge = judge_record(asked=HOSTILE, reasons={HOSTILE: 4}, wrong=[wrong])
    result = judge_result(
        models={name: ModelRecord(source=HOSTILE, kind="adapter", chat_template=HOSTILE) for name in ("base", HOSTILE)},
        sets={HOSTILE: SetRecord(prompts=2, different=2, samples=2)},
        judges={HOSTILE: judge},
        agreement=[agreement(HOSTILE, HOSTILE)],
        outcomes=[outcome(name, "harmfulness", HOSTILE, HOSTILE) for name in ("base", HOSTILE)],
        differences=[difference("harmfulness", 1, 0.01, HOSTILE, HOSTILE).model_copy(update={"model": HOSTILE})],
        warnings=[HOSTILE],
    )
    lines = [each.model_copy(update={"prompts": HOSTILE, "model": HOSTILE}) for each in answers(HOSTILE)]
    lines = [each.model_copy(update={"verdicts": {HOSTILE: each.verdicts["rubric"]}}) for each in lines]
    page = check_only_text(render([write_judge(tmp_path, result, lines)]))
    assert any("</script><script>alert(1)</script>" in words for words in page.words)


def test_the_page_of_a_judge_alone(tmp_path: Path) -> None:
    nothing: dict[str, Any] = {"models": {}, "reference": None, "sets": {}, "outcomes": [], "differences": []}
    page = render([write_judge(tmp_path, judge_result(**nothing), [])])
    assert "against people" in page
    assert "Outcomes" not in page
