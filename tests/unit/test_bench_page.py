"""The pages and charts of `asyncq bench`: well-formed, self-contained, nothing in them unescaped."""

from __future__ import annotations

import itertools
import re
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from asyncq.cli.bench import bench_page
from asyncq.cli.bench.chart import COLOURS, Axis, Line, chart, quantile_chart, short
from asyncq.cli.bench.histogram import Histogram
from asyncq.cli.bench.markup import Markup, element, with_code
from asyncq.cli.bench.page import page, table
from asyncq.cli.bench.report import summary

X, Y = Axis("jobs"), Axis("ms")


def _parsed(text: str) -> ET.Element:
    return ET.fromstring(text.removeprefix("<!DOCTYPE html>\n"))


def _histogram(*ms: float) -> Histogram:
    times = Histogram()
    for each in ms:
        times.record(int(each * 1e6))
    return times


def _tree(command: str, **more: Any) -> dict[str, Any]:
    figures = [
        {
            "key": "a",
            "title": "a <figure>",
            "unit": "ms",
            "more_is_better": False,
            "median": 2.0,
            "blocks": [1.0, 2.0, 3.0],
        }
    ]
    about = {"date": "2026-01-01", "invocation": "asyncq bench & more"}
    return {"command": command, "about": about, "parameters": {"payload": 200}, "figures": figures, **more}


def test_text_is_escaped_and_characters_that_no_page_may_hold_are_replaced():
    assert element("p", "<b> & \x00\x1b", title='"') == '<p title="&quot;">&lt;b&gt; &amp; \ufffd\ufffd</p>'
    assert element("p", Markup("<b/>")) == "<p><b/></p>"
    assert with_code("see `a < b`") == "see <code>a &lt; b</code>"


def test_a_page_is_well_formed_and_loads_nothing():
    rows = [["<row>", "1"], ["other", "2"]]
    text = page(
        "A & B", [], [("One", [table(["", "x"], rows, caption="<t>", strong=frozenset({1}))]), ("Two", [])]
    )
    tree = _parsed(text)
    assert [each.text for each in tree.iter("h2")] == ["One"]
    assert [each.text for each in tree.iter("th") if each.get("scope") == "row"] == ["<row>", "other"]
    assert [each.get("class") for each in tree.iter("tr")] == [None, None, "strong"]
    assert not re.search(r"https?://|//[a-z]|<script|@import|url\(", text)
    policies = [meta.get("content", "") for meta in tree.iter("meta") if meta.get("http-equiv")]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]
    assert "prefers-color-scheme:dark" in text
    assert "@media print" in text


def test_the_style_sheet_has_every_colour_in_both_schemes():
    text = page("t", [], [])
    for number in range(COLOURS):
        assert text.count(f"--c{number}:#") == 2
        assert f".line.c{number}," in text


def test_a_chart_places_points_where_their_values_are():
    tree = _parsed(chart("t", X, Y, [Line("one", [(0, 0), (5, 50), (10, 100)], 1)]))
    points = [(float(dot.get("cx", "")), float(dot.get("cy", ""))) for dot in tree.iter("circle")]
    (x0, y0), (x1, y1), (x2, y2) = points
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.02)
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.02)
    assert y2 < y1 < y0
    assert [item.text for item in tree.iter("title")][1] == "one: 50 (ms) at 5 (jobs)"


def test_a_logarithmic_axis_gives_each_factor_the_same_width_and_zero_a_place():
    tree = _parsed(
        chart("t", Axis("jobs", log=True), Y, [Line("one", [(0, 1), (10, 1), (100, 1), (1000, 1)], 1)])
    )
    zero, ten, hundred, thousand = (float(dot.get("cx", "")) for dot in tree.iter("circle"))
    assert hundred - ten == pytest.approx(thousand - hundred, abs=0.02)
    assert zero < ten
    labels = [text.text for text in tree.iter("text")]
    assert {"0", "10", "100", "1k"} <= set(labels)


@pytest.mark.parametrize("values", [(5.0,), (0.0, 0.0), (0.31, 0.34), (1e-3, 1e6), (7.0, 7.0)])
@pytest.mark.parametrize("log", [False, True])
def test_labels_do_not_overlap_whatever_the_values_are(values: tuple[float, ...], log: bool):
    line = Line("one", list(enumerate(values, 1)), 1)
    tree = _parsed(chart("t", Axis("jobs", log), Axis("ms", log), [line]))
    labels = [text for text in tree.iter("text") if text.get("class") != "axis"]
    across = sorted(float(text.get("x", "")) for text in labels if text.get("text-anchor") == "middle")
    up = sorted(float(text.get("y", "")) for text in labels if text.get("text-anchor") == "end")
    assert across
    assert up
    assert all(after - before > 15 for places in (across, up) for before, after in itertools.pairwise(places))
    for dot in tree.iter("circle"):
        assert 0 <= float(dot.get("cx", "")) <= 400
        assert 0 <= float(dot.get("cy", "")) <= 270


def test_a_chart_without_points_says_so():
    assert "Nothing was measured" in chart("t", X, Y, [Line("one", [], 1)])


def test_a_rate_that_was_not_kept_up_is_a_ring():
    tree = _parsed(chart("t", X, Y, [Line("one", [(1, 1), (2, 2)], 1, hollow=frozenset({2.0}))]))
    assert [dot.get("class") for dot in tree.iter("circle")] == ["dot c1", "ring c1"]


def test_a_distribution_ends_at_its_last_record():
    few, many = _histogram(*range(1, 11)), _histogram(*(1 + number / 1000 for number in range(20_000)))
    tree = _parsed(quantile_chart("t", [(Line("few", [], 1), few), (Line("many", [], 2), many)]))
    titles = [item.text or "" for item in tree.iter("title")]
    last = [title for title in titles if title.startswith("few")][-1]
    assert last.startswith("few: 9.0")
    assert last.endswith(" at 90 (share of the jobs, %)")
    assert "99.99 (" in [title for title in titles if title.startswith("many")][-1]


def test_numbers_on_an_axis_are_short():
    assert [short(value) for value in (0, 0.25, 500, 1500, 20_000, 1e6, 2.5e9)] == [
        "0", "0.25", "500", "1.5k", "20k", "1M", "2.5G",
    ]  # fmt: skip


def test_the_page_of_a_latency_has_its_figures_and_its_distributions():
    tree = _tree("latency", enqueue=summary(_histogram(1, 2)), result=summary(_histogram(2, 3)))
    text = bench_page.draw(tree)
    assert "a &lt;figure&gt;" in text
    assert "asyncq bench &amp; more" in text
    assert [each.text for each in _parsed(text).iter("h2")] == ["Figures", "Distributions", "The blocks"]


def test_the_page_of_a_load_has_a_line_for_each_percentile_and_rings_for_rates_not_kept_up():
    steps = [
        {"rate": rate, "blocks": 3, "kept_up_blocks": kept, "lost": 0, "result": summary(_histogram(1, 2, 9))}
        for rate, kept in ((100, 3), (200, 1))
    ]
    steps.append({"rate": 400, "blocks": 1, "kept_up_blocks": 0, "lost": 3, "result": summary(Histogram())})
    tree = _parsed(bench_page.draw(_tree("load", steps=steps, kept_up_per_s=100)))
    rings = [dot for dot in tree.iter("circle") if "ring" in dot.get("class", "")]
    assert len(rings) == 4
    assert "Kept up with: 100 jobs/s" in "".join(tree.itertext())


def test_the_page_of_a_comparison_says_the_verdicts_and_the_method():
    verdict = {
        "key": "a", "title": "a", "unit": "ms", "base": [1.0, 1.0], "now": [2.0, 2.0], "ratio": None,
        "p": 0.01, "verdict": "slower",
    }  # fmt: skip
    comparison = {
        "base": {"name": "<base>", "about": {}},
        "notes": ["cores: 2 then, 4 now"],
        "verdicts": [verdict],
    }
    text = bench_page.draw(_tree("throughput", comparison=comparison))
    words = "".join(_parsed(text).itertext())
    for said in ("<base>", "slower", "cores: 2 then, 4 now", "Mann-Whitney", "then"):
        assert said in words
