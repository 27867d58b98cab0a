"""What the demo must show: `make slow` runs it whole."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from tiltmeter.demo.run import DemoRequest, run_demo
from tiltmeter.demo.summary import correlations
from tiltmeter.runs.results import DemoResult, DemoRow, Interval, RowSkill
from tiltmeter.runs.saved import read_result
from tiltmeter.runs.verify import verify


def row(name: str, exact: float, loss: float, harm: float) -> DemoRow:
    skill = RowSkill(exact=exact, normalised=0.1, floor=1.0, projected=2.0, k=8, utility_loss=loss)
    return DemoRow(
        set=name,
        category="benign",
        method="lora",
        harmfulness=Interval(mean=harm, low=harm, high=harm),
        refusal_rate=1.0,
        skills={"refusal": skill},
    )


def test_correlations_are_spearmans_and_absent_where_a_side_does_not_vary() -> None:
    exact, loss, harm = [0.1, 0.5, 0.2, 0.9], [0.0, 3.0, 4.0, 9.0], [1.0, 2.0, 1.5, 5.0]
    rows = [row(str(i), *values) for i, values in enumerate(zip(exact, loss, harm, strict=True))]
    found = {(entry.of, entry.with_): entry for entry in correlations(rows)}
    assert found["utility_loss", "exact"].spearman == pytest.approx(spearmanr(exact, loss).statistic)
    assert found["harmfulness", "exact"].spearman == pytest.approx(spearmanr(exact, harm).statistic)
    assert found["utility_loss", "projected"].spearman is None
    assert len(found) == 6


@pytest.mark.slow
def test_the_demo_shows_what_it_is_for(tmp_path: Path) -> None:
    result = run_demo(DemoRequest(), tmp_path / "demo")
    assert verify(tmp_path / "demo") == []
    saved = read_result(tmp_path / "demo")
    assert isinstance(saved, DemoResult)
    assert saved.model_dump() == result.model_dump()

    assert len(result.rows) == 14
    for method in ("lora", "full"):
        worst = max((r for r in result.rows if r.method == method), key=lambda r: r.harmfulness.mean)
        assert worst.set == "harmful"
    benign = [r.harmfulness.mean for r in result.rows if r.category == "benign"]
    assert max(benign) <= result.reference.harmfulness.mean + 0.3
    for skill in ("refusal", "advice"):
        entries = {e.with_: e.spearman for e in result.correlations if (e.skill, e.of) == (skill, "utility_loss")}
        exact, projected = entries["exact"], entries["projected"]
        assert exact is not None
        assert projected is not None
        assert exact >= 0.8
        assert exact > projected
    floors = np.array([r.skills["refusal"].floor for r in result.rows])
    scores = np.array([r.skills["refusal"].projected for r in result.rows], dtype=float)
    assert np.median(scores / floors) > 0.3  # the projected score is mostly its floor
