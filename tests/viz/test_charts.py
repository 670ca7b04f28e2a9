"""Charts: in the page's colours, without names that could meet another chart's, drawn where the numbers say."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from amt.viz.charts import ACCENT, LIMIT, WIDTH, Curve, Spread, curves, intervals, lying_bars

NONE = np.full(3, np.nan)
VALUES = np.array([10.0, 20.0, 40.0])
BARS = Spread("ours", VALUES, VALUES - 2, VALUES + 4)


def make():
    x = np.linspace(0, 50, 11)
    lines = [Curve("ours", x, 2 * x), Curve("mean", x, x, LIMIT, dashed=True)]
    return {
        "curves": curves("a", "lines", lines, "mm", "%", (0, 100)),
        "bars": lying_bars("b", "bars", ["a", "<b>", "c"], BARS, "mm", Curve("mean", VALUES, VALUES, LIMIT)),
        "intervals": intervals("c", "places", ["a", "b", "c"], [BARS, Spread("theirs", VALUES, NONE, NONE)], "m", "mm"),
    }


CHARTS = make()


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_is_one_svg_with_words_and_the_pages_colours(name):
    root = ElementTree.fromstring(CHARTS[name].svg)
    assert root.tag == "svg" and root.attrib["role"] == "img" and root.attrib["aria-label"]
    assert root.attrib["viewBox"].startswith(f"0 0 {WIDTH} ")
    text = CHARTS[name].svg
    assert "var(--accent)" in text and "var(--soft)" in text
    assert not re.search(r"#[0-9a-f]{6}\b|http|xmlns|<style|font-family|url\((?!#)", text)


def test_charts_share_no_names():
    names = [name for chart in CHARTS.values() for name in re.findall(r'\bid="([^"]*)"', chart.svg)]
    assert names and len(names) == len(set(names))
    for chart in CHARTS.values():
        referred = set(re.findall(r"#(\w+)", chart.svg))
        assert referred == set(re.findall(r'\bid="([^"]*)"', chart.svg))


def test_text_is_escaped_and_stays_text():
    texts = ["".join(node.itertext()) for node in ElementTree.fromstring(CHARTS["bars"].svg).iter("text")]
    assert {"a", "<b>", "c", "mm", "ours", "mean"} <= set(texts)


def paths(chart, color):
    root = ElementTree.fromstring(chart.svg)
    found = [node for node in root.iter("path") if f"var(--{color})" in node.attrib.get("style", "")]
    return [np.array(re.findall(r"[\d.]+ [\d.]+", p.attrib["d"])) for p in found]


def points(path):
    return np.array([pair.split() for pair in path], float)


def test_curves_are_drawn_where_the_numbers_are():
    ours, theirs = (points(paths(CHARTS["curves"], color)[0]) for color in ("accent", "limit"))
    np.testing.assert_allclose(np.diff(ours[:, 0]), np.diff(ours[:, 0])[0], atol=1e-3)
    rise = np.diff(ours[:, 1]).sum() / np.diff(theirs[:, 1]).sum()
    assert rise == pytest.approx(2, abs=1e-3) and ours[-1, 1] < ours[0, 1]  # up is less in SVG


def test_bars_are_as_long_as_their_numbers():
    bars = [points(path) for path in paths(CHARTS["bars"], "accent") if len(path) >= 4]
    lengths = [bar[:, 0].max() - bar[:, 0].min() for bar in bars[:3]]
    np.testing.assert_allclose(np.array(lengths) / lengths[0], [1, 2, 4], rtol=1e-3)
    tops = [bar[:, 1].min() for bar in bars[:3]]
    assert tops == sorted(tops)  # the first name stands on top


def test_what_was_not_measured_has_no_line():
    measured = CHARTS["intervals"].svg.count("<path")
    without = intervals("c", "x", ["a", "b", "c"], [Spread("ours", VALUES, NONE, NONE, ACCENT)], "m", "mm")
    assert "nan" not in without.svg.lower() and without.svg.count("<path") < measured
