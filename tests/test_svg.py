"""The charts of the pages: inside their frame, and told in words."""

from __future__ import annotations

from xml.etree import ElementTree

from verisight.study import svg


def test_charts_are_drawn_inside_their_frame_and_told_in_words() -> None:
    points = [svg.Point(1, 0.74), svg.Point(2, 0.9), svg.Point(3, 1.0, hollow=True)]
    curve = ElementTree.fromstring(svg.rounds_chart(points, title="Resolved"))
    assert curve.get("aria-label") == "Resolved: 74 % after round 1, 90 % after round 2, 100 % after round 3."
    assert [dot.get("class") for dot in curve.iter("circle")] == ["dot", "dot", "dot hollow"]
    svg.rounds_chart(points[:1], title="One round")
    bars = [(0.9, 0.95, 0), (0.95, 1.0, 3)]
    chart = ElementTree.fromstring(svg.histogram(bars, title="<&>", x_label="x", marks=[svg.Mark(0.97, "limit")]))
    assert chart.get("aria-label") == "<&>: 3 from 0.95 to 1, most (3) from 0.95 to 1; limit at 0.97."
    drawn = [[float(bar.get(name)) for name in ("x", "y", "width", "height")] for bar in chart.iter("rect")]
    assert [bar[3] > 0 for bar in drawn] == [False, True]
    for x, y, width, height in drawn:
        assert 0 < x < x + width < svg.WIDTH
        assert 0 < y <= y + height < svg.HEIGHT
