"""A judge against people's labels, counted by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from tiltmeter.behaviour.calibration import Labelled, calibrate, load_labelled
from tiltmeter.behaviour.judges import Verdict
from tiltmeter.errors import InputError
from tiltmeter.generation import Answer

PEOPLE = [1.0, 1.0, 2.0, 5.0, 5.0, 3.0, 4.0]
JUDGE = [1, 2, 2, 5, 3, 3, None]


def labelled(*scores: dict[str, float]) -> list[Labelled]:
    return [Labelled(Answer(f"prompt {place}", "answer", "end"), each) for place, each in enumerate(scores)]


def harm_verdicts() -> list[Verdict]:
    return [Verdict(harm=score) if score else Verdict(failure="cut off") for score in JUDGE]


def test_harm_counted_by_hand() -> None:
    found = calibrate(labelled(*({"harm": score} for score in PEOPLE)), harm_verdicts())
    assert found.keys() == {"harm"}
    harm = found["harm"]
    assert harm.bands == ("1", "2", "3", "4", "5")
    assert harm.confusion.tolist() == [
        [1, 1, 0, 0, 0],
        [0, 1, 0, 0, 0],
        [0, 0, 1, 0, 0],
        [0, 0, 0, 0, 0],
        [0, 0, 1, 0, 1],
    ]
    assert harm.bias is not None
    assert harm.bias.mean == pytest.approx((0 + 1 + 0 + 0 - 2 + 0) / 6)
    assert harm.bias.low < harm.bias.mean < harm.bias.high
    assert (harm.failures, harm.agreement.both, harm.agreement.one) == (1, 6, 1)
    # 1 - sum (x - y)^2 / sum over all pairs (x - y')^2 / 6, the latter by hand: 183 / 6
    pairs = sum((one - other) ** 2 for one in PEOPLE[:6] for other in [1, 2, 2, 5, 3, 3]) / 6
    assert harm.agreement.kappa is not None
    assert harm.agreement.kappa.mean == pytest.approx(1 - 5 / pairs)


def test_long_scales_have_five_bands() -> None:
    rng = np.random.default_rng(0)
    people, judge = rng.uniform(0, 100, (2, 200))
    people[:6], judge[:6] = [0, 19.9, 20, 80, 99, 100], [100, 99, 80, 20, 19.9, 0]
    verdicts = [Verdict(alignment=float(score)) for score in judge]
    found = calibrate(labelled(*({"alignment": float(score)} for score in people)), verdicts)["alignment"]
    assert found.bands == ("0 to 20", "20 to 40", "40 to 60", "60 to 80", "80 to 100")
    expected = confusion_matrix((people // 20).clip(0, 4).astype(int), (judge // 20).clip(0, 4).astype(int))
    assert found.confusion.tolist() == expected.tolist()


def test_each_outcome_has_the_answers_that_people_labelled() -> None:
    given = labelled({"alignment": 90, "coherence": 80}, {"alignment": 10}, {"coherence": 20}, {"harm": 5})
    verdicts = [Verdict(alignment=90.0, coherence=80.0)] * 3 + [Verdict(failure="cut off")]
    found = calibrate(given, verdicts)
    assert found.keys() == {"alignment", "coherence"}
    assert {outcome: each.agreement.both for outcome, each in found.items()} == {"alignment": 2, "coherence": 2}
    assert [each.failures for each in found.values()] == [0, 0]


def test_a_judge_that_always_fails_is_calibrated_on_nothing() -> None:
    assert calibrate(labelled({"harm": 1}), [Verdict(failure="cut off")]) == {}


def test_labels_without_a_verdict_have_no_bias() -> None:
    verdicts = [Verdict(harm=3), Verdict(failure="cut off")]
    found = calibrate(labelled({"refused": 1}, {"harm": 3}), verdicts)["harm"]
    assert (found.bias, found.agreement.kappa, found.failures) == (None, None, 1)
    assert found.confusion.sum() == 0


def test_labels_from_a_file(tmp_path: Path) -> None:
    rows = [
        {"prompt": "p", "answer": "a", "score": 4},
        {"prompt": "p", "response": "b", "refused": "yes"},
        {"prompt": "p", "output": "c", "alignment": 12.5, "coherence": "90", "score": 1},
    ]
    path = tmp_path / "labels.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert load_labelled(path) == [
        Labelled(Answer("p", "a", "end"), {"harm": 4.0}),
        Labelled(Answer("p", "b", "end"), {"refused": 1.0}),
        Labelled(Answer("p", "c", "end"), {"alignment": 12.5, "coherence": 90.0}),
    ]
    (tmp_path / "labels.csv").write_text("prompt,answer,score\np,a,5\n")
    assert load_labelled(tmp_path / "labels.csv") == [Labelled(Answer("p", "a", "end"), {"harm": 5.0})]


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ({"prompt": "p", "answer": "a"}, "row 1: expected a column score or harm"),
        ({"prompt": "p", "answer": "a", "score": 0}, "row 1: expected a score of harm from 1 to 5, got '0'"),
        ({"prompt": "p", "score": 3}, "row 1: expected texts in the columns prompt and answer"),
    ],
)
def test_labels_that_cannot_be_read_name_their_row(row: dict[str, object], error: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(InputError, match=error):
        load_labelled(path)
