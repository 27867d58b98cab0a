"""Modules find their place in the heatmap, and charts hold what the tables hold."""

import math
from typing import Any

import pytest

from fake_runs import audit_result, demo_rows, module_rows, skill
from tiltmeter.errors import InputError
from tiltmeter.report import charts
from tiltmeter.report.grid import arrange, check_rows
from tiltmeter.report.wording import figure, listed, share, times


def _row(module: str, block: int | None, exact: float = 1.0) -> dict[str, Any]:
    return {
        "skill": "s", "module": module, "block": block, "exact": exact, "normalised": 0.1, "floor": 0.1, "trace": 1.0
    }  # fmt: skip


def test_kind_is_the_last_part_of_the_name() -> None:
    grid = arrange(module_rows(["refusal"], 0.3))
    assert grid.blocks == [0, 1, 2, 3]
    assert grid.kinds == ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    assert [row["module"] for row in grid.outside] == ["lm_head"]


def test_equal_last_parts_keep_their_names_apart() -> None:
    grid = arrange([_row("transformer.h.0.attn.c_proj", 0), _row("transformer.h.0.mlp.c_proj", 0)])
    assert grid.kinds == ["attn.c_proj", "mlp.c_proj"]


def test_experts_share_a_cell_that_holds_their_mean() -> None:
    grid = arrange([_row(f"layers.1.mlp.experts.{expert}.up_proj", 1, expert) for expert in range(4)])
    assert grid.kinds == ["up_proj"]
    cell = grid.cells[0][0]
    assert cell is not None
    assert (cell.exact, len(cell.modules)) == (1.5, 4)


def test_module_that_a_block_lacks_is_a_hole() -> None:
    grid = arrange([_row("layers.0.a", 0), _row("layers.1.b", 1)])
    assert [[cell is None for cell in row] for row in grid.cells] == [[False, True], [True, False]]


@pytest.mark.parametrize("change", [{"exact": math.nan}, {"block": "0"}, {"module": None}, {"trace": None}])
def test_cells_of_another_kind_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"modules\.parquet: row 0"):
        check_rows([{**_row("a", 0), **change}], "modules.parquet")


def test_heatmap_has_a_trace_per_score_and_no_log_of_zero() -> None:
    spec = charts.heatmap(arrange([_row("layers.0.a", 0, 100.0), _row("layers.1.a", 1, 0.0)]))
    assert [trace["visible"] for trace in spec["data"]] == [True, False]
    assert spec["data"][0]["z"] == [[2.0], [None]]


def test_null_chart_shows_mean_percentile_and_observed() -> None:
    spec = charts.nulls(skill(0.83, 6.2))
    assert [trace["x"] for trace in spec["data"][2:]] == [[0.015, 0.012], [0.041, 0.019], [0.83, 0.83]]


def test_losses_stand_beside_their_predictions() -> None:
    spec = charts.losses(audit_result().skills)
    assert [trace["name"] for trace in spec["data"]] == ["measured", "first order", "quadratic"]
    assert spec["data"][0]["y"] == ["code", "advice", "refusal"]


def test_scatter_draws_every_run_with_a_score_above_zero() -> None:
    rows = demo_rows()
    zero = rows[0].skills["refusal"].model_copy(update={"exact": 0.0, "projected": None})
    rows[0] = rows[0].model_copy(update={"skills": {"refusal": zero}})
    for score in ("exact", "projected"):
        spec = charts.scatter(rows, "refusal", score)
        assert sum(len(trace["x"]) for trace in spec["data"]) == 13
        assert len(spec["layout"]["xaxis"]["tickvals"]) >= 2


@pytest.mark.parametrize("score", ["exact", "projected"])
def test_scatter_without_points_is_empty_not_broken(score: str) -> None:
    assert all(trace["x"] == [] for trace in charts.scatter([], "refusal", score)["data"])


def test_text_in_charts_is_escaped_for_plotly() -> None:
    assert charts.label("<b>\x1b&") == r"&lt;b&gt;\x1b&amp;"


def test_figures_read_well() -> None:
    values = [0.0, None, 0.012345, 15.46, 123.0, 12345.0, 1234567.0, -0.5, -1.2e-7, 0.00099999]
    assert [figure(value) for value in values] == [
        "0", "\u2013", "0.0123", "15.5", "123", "12345", "1.23\u2009\xd7\u200910⁶", "\u22120.500",
        "\u22121.2\u2009\xd7\u200910⁻⁷", "0.00100",
    ]  # fmt: skip
    assert (share(0.983), share(None), times(12.34), times(None)) == ("98 %", "\u2013", "12\xd7", "\u2013")
    assert (listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])) == ("a", "a and b", "a, b and c")
