"""A comparison's page and terminal text: what they show of many pairs and of few, and that hostile text stays text."""

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fake_compare import (
    BY_ROWS,
    CHANCE,
    LEAST,
    block_rows,
    compare_result,
    empty,
    group,
    many,
    of_pairs,
    ordering,
    pair,
    update,
    write_compare,
)
from pages import HOSTILE, Page, check_only_text
from tiltmeter.cli.compare_table import print_compare
from tiltmeter.errors import InputError
from tiltmeter.report import compare_charts as charts
from tiltmeter.report import render
from tiltmeter.report.compare import compare_view
from tiltmeter.report.compare_curves import find_curves
from tiltmeter.report.compare_verdict import findings
from tiltmeter.runs.compare_result import CompareResult
from tiltmeter.runs.results import Input

WIDTH = 116


def words(page: str) -> str:
    """The page's text, any white space as one space."""
    return " ".join(" ".join(Page(page).words).split())


def made(folder: Path, result: CompareResult, blocks: int = 3) -> str:
    return words(render([write_compare(folder / "run", result, blocks)]))


def printed(result: CompareResult, capsys: pytest.CaptureFixture[str]) -> str:
    print_compare(result, Path("runs/compare"))
    return capsys.readouterr().out


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return render([write_compare(tmp_path_factory.mktemp("compare") / "run")])


def hostile_result() -> CompareResult:
    """Every text from outside is hostile, in as many shapes as there are updates."""
    names = [f"{n}{HOSTILE}" for n in range(3)]
    found = [pair(names[0], name, shared=name == names[1], p=LEAST) for name in names[1:]]
    found.append(pair(names[1], names[2], p=LEAST))
    given = Input(path=HOSTILE, role="base", resolved="/x", files={HOSTILE: "ab" * 32})
    return of_pairs(
        *found,
        inputs=[given, given.model_copy(update={"role": HOSTILE})],
        versions={HOSTILE: HOSTILE},
        updates={
            name: update(HOSTILE, trained_on=HOSTILE, not_covered={HOSTILE: 1.0}, only_here=[HOSTILE]) for name in names
        },
        groups={HOSTILE: names},
        group_pairs=[group(HOSTILE, HOSTILE, [0.1])],
        ordering=ordering(names, found),
        warnings=[HOSTILE],
    )


def test_every_finding_stands_on_the_page(page: str) -> None:
    text = words(page)
    for found in findings(compare_result()):
        assert f"{found.about}: {found.word}" in text
        assert found.sentence in text
    assert "shared initialisation" in text
    assert "org/base at main" in text


def test_every_figure_of_every_pair_stands_beside_all_its_nulls(page: str) -> None:
    text = words(page)
    row = "med / fin 0.600 0.060 1.2\N{MULTIPLICATION SIGN} 0.0099 0.0400"
    nulls = [f"{mean} [{low}, {high}]" for mean, low, high in (("0.040", "0.036", "0.044"), ("0.48", "0.43", "0.53"))]
    shown = re.search(re.escape(row) + " (.*?) med / sum", text)
    assert shown is not None
    assert [shown[1].count(null) for null in nulls] == [2, 1]
    assert "overlap, right: 6 pairs" in text


def test_the_matrix_is_symmetric_in_the_clustered_order_with_its_ratios() -> None:
    result = compare_result()
    values, ratios = charts.matrix(result, "overlap_left")["data"]
    assert result.ordering is not None
    names = result.ordering.names
    one, two = names.index("med"), names.index("fin")
    assert abs(one - two) == 1  # alike, so side by side
    assert values["z"][one][two] == values["z"][two][one] == 0.36
    assert values["z"][one][one] is None
    assert 10 ** ratios["z"][one][two] == pytest.approx(9.0)
    assert [row.partition(". ")[2] for row in values["y"]] == names
    assert (ratios["visible"], values["text"][one][two]) == (False, "0.36")
    signed = charts.matrix(result, "cosine")["data"][0]
    assert signed["zmin"] == -signed["zmax"] == -0.2


def test_what_is_unknown_is_a_gap_in_the_matrix() -> None:
    result = of_pairs(pair("a", "b"), empty("a", "c"), pair("b", "c", overlap_left=0.0))
    values, ratios = charts.matrix(result, "overlap_left")["data"]
    assert values["z"] == [[None, 0.04, None], [0.04, None, 0.0], [None, 0.0, None]]
    assert ratios["z"][1] == [0.0, None, None]  # a ratio of 0 has no logarithm


def test_the_tree_joins_at_mean_similarities() -> None:
    """Average linkage by hand: a and b at 0.8, c to them at the mean of 0.3 and 0.5."""
    found = [pair("a", "b", overlap_left=0.8), pair("a", "c", overlap_left=0.3), pair("b", "c", overlap_left=0.5)]
    spec = charts.tree(of_pairs(*found, ordering=ordering("abc", found)))
    assert spec is not None
    assert [trace["x"][1] for trace in spec["data"]] == pytest.approx([0.8, 0.4])
    first, second = spec["data"]
    assert sorted(second["y"][i] for i in (0, 3)) == pytest.approx(
        sorted([sum(first["y"][1:3]) / 2, 3 - sum(first["y"][1:3])])
    )
    assert charts.tree(of_pairs(*found)) is None


def test_curves_hold_values_and_the_bands_of_their_nulls() -> None:
    result = of_pairs(pair("a", "b", shared=True, overlap_right=0.6), pair("a", "c"))
    found = find_curves(result, block_rows(result))
    assert found is not None
    assert (found.of, [line.name for line in found.lines]) == ("all pairs", ["a / b", "a / c"])
    assert found.lines[0].values["overlap_right"] == [0.6] * 3
    bands = found.bands["overlap_right"]
    assert bands["same_spectrum"].low == pytest.approx([0.9 * CHANCE["overlap_right"]] * 3)
    assert bands["shared_initialisation"].high == pytest.approx([1.1 * BY_ROWS["overlap_right"]] * 3)
    # Only its absolute value is drawn, so the band has two sides.
    assert found.bands["cosine"]["same_spectrum"].low == pytest.approx([-1.1 * CHANCE["cosine"]] * 3)
    spec = charts.curves(found.lines, bands, "overlap_right")
    grey, ochre = (next(t for t in spec["data"] if t.get("fillcolor") == c) for c in charts.BANDS.values())
    assert max(grey["y"]) == pytest.approx(1.1 * CHANCE["overlap_right"])
    assert min(ochre["y"]) == pytest.approx(0.9 * BY_ROWS["overlap_right"])


def test_no_shared_initialisation_no_band_of_it() -> None:
    for shared in (None, False):
        result = of_pairs(pair("a", "b", shared=shared))
        found = find_curves(result, block_rows(result))
        assert found is not None
        assert all(set(bands) == {"same_spectrum"} for bands in found.bands.values())


def test_groups_are_drawn_where_there_are_too_many_pairs_and_shared_ones_apart() -> None:
    names = [f"{kind}{n}" for kind in "xy" for n in range(3)]
    found = [
        pair(one, two, shared=one[1] == two[1], overlap_left=0.1 * (i + 1))
        for i, (one, two) in enumerate((one, two) for k, one in enumerate(names) for two in names[k + 1 :])
    ]
    groups = {"x": names[:3], "y": names[3:]}
    pairs = [group("x", "x", [0.1] * 3), group("x", "y", [0.1] * 9, 3), group("y", "y", [0.1] * 3)]
    result = of_pairs(*found, groups=groups, group_pairs=pairs)
    curves = find_curves(result, block_rows(result, 1))
    assert curves is not None
    lines = {line.name: line.values["overlap_left"] for line in curves.lines}
    between = {each.one + each.two: each for each in found if each.one[0] != each.two[0]}
    shared = [each.figures["overlap_left"].value for each in between.values() if each.one[1] == each.two[1]]
    apart = [each.figures["overlap_left"].value for each in between.values() if each.one[1] != each.two[1]]
    assert (len(shared), len(apart)) == (3, 6)
    assert lines["x and y, A shared"] == pytest.approx([sum(shared) / 3])
    assert lines["x and y"] == pytest.approx([sum(apart) / 6])
    assert set(lines) == {"within x", "within y", "x and y", "x and y, A shared"}


def test_many_pairs_without_groups_show_those_furthest_beyond_their_null() -> None:
    result = many(20)
    curves = find_curves(result, block_rows(result, 1))
    assert curves is not None
    assert curves.of == "the 8 of 190 pairs furthest beyond their null"
    ratios = sorted((each.figures["overlap_left"].ratio or 0.0 for each in result.pairs), reverse=True)
    assert [line.values["overlap_left"][0] / 0.04 for line in curves.lines] == pytest.approx(ratios[:8])


def test_modules_are_means_over_pairs_beside_the_null_of_each(tmp_path: Path) -> None:
    result = of_pairs(pair("a", "b", shared=True, overlap_right=0.6), pair("a", "c", overlap_right=0.1))
    view = compare_view(write_compare(tmp_path / "run", result, 1), "run-1", result)
    assert [(row.module, row.block, row.pairs) for row in view.modules] == [
        ("model.layers.0.mlp.up_proj", 0, 2),
        ("model.layers.0.mlp.down_proj", 0, 2),
        ("lm_head", None, 2),
    ]
    right = view.modules[0].figures[2]
    assert (right.mean, right.low, right.high) == (0.35, 0.1, 0.6)
    assert right.null == pytest.approx((0.48 + 0.04) / 2)


@pytest.mark.parametrize(
    ("result", "blocks", "wanted"),
    [
        (of_pairs(pair("a", "b", shared=True)), 1, "a and b: 2 updates of aligned"),
        (many(20), 3, "20 updates of aligned"),
        (
            of_pairs(pair("a", "b", shared=None), updates=dict.fromkeys("ab", update("checkpoint"))),
            2,
            "cannot be asked",
        ),
        (of_pairs(pair("a", "b"), empty("a", "c")), 1, "a, b and c: 3 updates"),
        (of_pairs(empty("a", "b")), 1, "nothing to compare"),
        (of_pairs(updates=dict.fromkeys("ab", update())), 1, "nothing to compare"),
    ],
)
def test_few_pairs_many_and_none_have_a_page_and_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], result: CompareResult, blocks: int, wanted: str
) -> None:
    assert wanted in made(tmp_path, result, blocks)
    text = printed(result, capsys)
    assert findings(result)[0].about in text
    assert all(len(line) <= WIDTH for line in text.splitlines())


def test_the_terminal_shows_the_most_similar_pairs_and_counts_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(many(20), capsys)
    assert "and 170 more pairs, less similar" in text
    rows = [float(found) for found in re.findall(r"\d\.\d+ \(.*?\)\*?\s+(0\.\d+) \(", text)]
    assert len(rows) == 20
    assert rows == sorted(rows, reverse=True)
    assert min(rows) == 0.1


def test_the_terminal_marks_shared_initialisation_groups_and_order(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(compare_result(), capsys)
    assert re.search(r"med / fin +0\.20 \(40.\)\* +0\.36 \(9\.0.\)\* +0\.60 \(1\.2.\)\* .* 0\.95 shared", text)
    assert re.search(r"fin +adapter +bad +set 1", text)
    assert re.search(r"code +adapter +benign +3\.10", text)
    assert re.search(r"bad and benign +4 +2 ", text)
    assert text.index("similar ones beside each other") < text.index("pairs, most similar")


def test_against_the_bases_weights_a_row_names_the_update(capsys: pytest.CaptureFixture[str]) -> None:
    updates = {"a": update(), "b": update(), "base weights": update("weights", trained_on=None)}
    weights = [pair(name, "base weights", shared=None, overlap_left=0.1) for name in "ab"]
    text = printed(of_pairs(pair("a", "b"), *weights, updates=updates), capsys)
    below = text.split("against the base's own weights")[1]
    assert re.search(r"^ a +0\.0020 \(1\.0.\) +0\.10 \(2\.5.\)", below, re.MULTILINE)
    assert "a / base weights" not in text


def test_hostile_text_is_only_text_on_the_page(tmp_path: Path) -> None:
    text = render([write_compare(tmp_path / "run", hostile_result())])
    page = check_only_text(text)
    assert len(page.data) == 9  # three matrices, a tree, five curves
    for block in page.data:
        assert "<" not in json.dumps(json.loads(block)).replace("<br>", "").replace("<extra></extra>", "")
    for chart in page.data[:3]:
        assert "&lt;/script&gt;" in json.dumps(json.loads(chart)["data"][0]["customdata"])


def test_hostile_text_is_only_text_in_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(hostile_result(), capsys)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202e\ufeff]", text)
    assert r"\x1b[31m" in "".join(text.split())


@pytest.mark.parametrize("table", ["blocks", "modules"])
@pytest.mark.parametrize(
    ("column", "value"), [("value", None), ("value", float("inf")), ("one", None), ("block", "first"), ("null", 1e999)]
)
def test_tables_that_do_not_hold_figures_are_refused(tmp_path: Path, table: str, column: str, value: Any) -> None:
    folder = write_compare(tmp_path / "run")
    path = folder / f"{table}.parquet"
    name = {"blocks": "same_spectrum_low", "modules": "same_spectrum"}[table] if column == "null" else column
    rows = [{**row, name: value} for row in pq.read_table(path).to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows), path)
    message = f"{table}.parquet: row 0: expected text, a block number or null, and finite figures"
    with pytest.raises(InputError, match=message):
        compare_view(folder, "run-1", compare_result())


def test_a_table_without_a_column_is_refused(tmp_path: Path) -> None:
    folder = write_compare(tmp_path / "run")
    pq.write_table(pa.Table.from_pylist([{"one": "a"}]), folder / "blocks.parquet")
    with pytest.raises(InputError, match=r"blocks.parquet: no column two"):
        compare_view(folder, "run-1", compare_result())


def test_rows_of_pairs_that_the_result_does_not_name_are_left_out(tmp_path: Path) -> None:
    folder = write_compare(tmp_path / "run")
    path = folder / "blocks.parquet"
    rows = pq.read_table(path).to_pylist()
    strange = [{**row, "one": "stranger"} for row in rows[:9]] + [{**rows[0], "block": 7}]
    pq.write_table(pa.Table.from_pylist([*rows, *strange]), path)
    view = compare_view(folder, "run-1", compare_result())
    assert view.curves is not None
    assert {block for line in view.curves.lines for block in line.blocks} == {0, 1, 2}
