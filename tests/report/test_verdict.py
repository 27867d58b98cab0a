"""The verdict says what the figures hold, and no more."""

import pytest

from fake_runs import audit_result, demo_result, interval, skill
from tiltmeter.report.verdict import cautions, judge_demo, judge_skill
from tiltmeter.runs.results import Null, Nulls, Reference

FAR, BETWEEN, WITHIN = 0.8, 0.03, 0.01  # the nulls' 95th percentiles are 0.019 (dense) and 0.041 (same rank)


@pytest.mark.parametrize(
    ("exact", "loss", "kind", "said"),
    [
        (FAR, 1.0, "tilted", ["measurably worse", "either kind", "67\xd7", "and the overlap"]),
        (WITHIN, 0.0, "none", ["No utility loss", "within what random updates reach", "remains possible"]),
        (FAR, 0.0, "mixed", ["No utility loss", "but the overlap exceeds what 95 %"]),
        (WITHIN, 1.0, "mixed", ["measurably worse", "but the overlap is within"]),
        (BETWEEN, 1.0, "mixed", ["measurably worse", "one null only", "not that of the same-rank null"]),
        (BETWEEN, 0.0, "mixed", ["No utility loss", "one null only"]),
        (WITHIN, -1.0, "mixed", ["measurably better"]),
        (FAR, -1.0, "mixed", ["measurably better", "but the overlap exceeds"]),
    ],
)
def test_verdict_follows_loss_and_both_nulls(exact: float, loss: float, kind: str, said: list[str]) -> None:
    verdict = judge_skill(skill(exact, loss))
    assert verdict.kind == kind
    assert [part for part in [*said, "Measured on 64 examples."] if part not in verdict.sentence] == []


def test_interval_that_touches_zero_is_no_loss() -> None:
    assert judge_skill(skill(WITHIN, 0.05, width=0.05)).kind == "none"


def test_few_examples_and_few_draws_are_said() -> None:
    assert "Measured on 8 examples: few" in judge_skill(skill(FAR, 1.0, examples=8)).sentence
    few = Null(mean=0.01, p95=0.02, ratio=80.0, draws=8)
    figures = skill(FAR, 1.0).model_copy(update={"nulls": Nulls(dense=few, same_rank=few)})
    assert "rest on 8 draws" in judge_skill(figures).sentence


def test_changed_template_and_uncovered_tensors_are_said() -> None:
    notes = cautions(audit_result(chat_template_changed=True))
    assert "chat template" in notes[0]
    assert "2 entries under not_covered" in notes[1]


def test_demo_names_the_harmful_sets_and_both_correlations() -> None:
    harmed, refusal, advice = judge_demo(demo_result())
    assert harmed.startswith("8 of 14 fine-tunes")
    assert "harmful (LoRA and full)" in harmed
    assert "summary" not in harmed
    assert "0.96 [0.76, 0.99]" in refusal
    assert advice.startswith("advice:")


def test_demo_claims_no_difference_that_the_intervals_do_not_show() -> None:
    result = demo_result()
    close = [entry.model_copy(update={"low": 0.0, "high": 1.0}) for entry in result.correlations]
    assert "the intervals overlap" in judge_demo(result.model_copy(update={"correlations": close}))[1]
    calm = Reference(harmfulness=interval(4.9, 0.1), refusal_rate=0.0)
    assert judge_demo(demo_result(reference=calm, correlations=[])) == [
        "None of 14 fine-tunes raised harmfulness above the un-tuned model's interval.",
        "refusal: no rank correlation could be measured.",
        "advice: no rank correlation could be measured.",
    ]
