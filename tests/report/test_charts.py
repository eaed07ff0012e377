"""The report's charts: drawings that take their size, colours and letters from the page."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from wsss.report.charts import class_bars, curve, losses

POINTS = [{"threshold": t, "miou": t / 2, "precision": 0.5, "recall": 0.4} for t in (0.1, 0.3, 0.6)]
CHARTS = {
    "curve": curve(POINTS, {"best": (0.6, 0.3)}, name="curve"),
    "classes": class_bars(
        ["<cat>", "dog"], {"cam": [0.4, None], "crf": [0.5, 0.2]}, name="classes"
    ),
    "losses": losses([1, 2, 3], {"loss": [3.0, 2.0, 1.0], "part": [1.0, 1.0, 0.5]}, name="losses"),
}


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_is_as_wide_as_the_page_lets_it_be(name: str) -> None:
    root = ElementTree.fromstring(CHARTS[name])
    assert root.tag.endswith("svg") and root.get("aria-label") == name
    assert root.get("viewBox") and root.get("width") is None


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_has_lines_to_read_values_from(name: str) -> None:
    # Ticks are drawn once and used; only lines across the chart are cut off at its frame.
    across = re.findall(r'clip-path="[^"]*" style="fill: none; stroke: var\(--line\)', CHARTS[name])
    assert len(across) >= 4


def test_only_the_pages_colours_are_used() -> None:
    for text in CHARTS.values():
        assert "var(--s1)" in text and "currentColor" in text
        assert not re.search("#0[0-9a-f]0[0-9a-f]", text)
