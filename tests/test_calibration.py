"""Calibration of reward models: every bin by hand, points where the numbers are, names that would break the picture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest

from verisight.study.calibration import (
    LEFT,
    SIDE,
    TOP,
    Bin,
    calibration,
    calibration_chart,
    calibration_error,
    right,
    write_calibration,
)

SVG = "{http://www.w3.org/2000/svg}"


def odds(confidence: float) -> float:
    """The margin whose sigmoid is `confidence`."""
    return math.log(confidence / (1 - confidence))


def checked(bins: list[Bin], *, model: str = "rm", name: str = "povid") -> dict[str, Any]:
    return {"model": model, "data": {"name": name}, "calibration": [one._asdict() for one in bins]}


def panels(drawn: str) -> list[Element]:
    return [one for one in ElementTree.fromstring(drawn).iter(f"{SVG}g") if one.get("role") == "img"]


def numbers(element: Element, *names: str) -> list[float]:
    return [float(element.get(name, "nan")) for name in names]


def test_every_bin_by_hand() -> None:
    """Twenty pairs, two a bin, 0.50, 0.55 .. 0.95 sure, in mixed order.

    Right: equal rewards (half and half), then both, one, both, one, none, both, both, one, both.
    """
    signs = [(0, 0), (1, 1), (1, -1), (1, 1), (-1, 1), (-1, -1), (1, 1), (1, 1), (-1, 1), (1, 1)]
    pairs = [(sign * odds(0.5 + 0.05 * at), f"{at} {n}") for at, two in enumerate(signs) for n, sign in enumerate(two)]
    mixed = pairs[1::2] + pairs[-2::-2]
    bins = calibration([margin for margin, _ in mixed], [picture for _, picture in mixed])
    assert [one.num for one in bins] == [2] * 10
    assert [one.confidence for one in bins] == pytest.approx([0.5 + 0.05 * at for at in range(10)])
    assert [one.accuracy for one in bins] == [0.5, 1, 0.5, 1, 0.5, 0, 1, 1, 0.5, 1]
    assert [(one.low, one.high) for one in bins if one.accuracy == 0.5] == [(0.5, 0.5), *[(0, 1)] * 3]
    # exact bounds where both of two pictures agree: 0.025 = (1 - high)^2
    edge = math.sqrt(0.025)
    assert (bins[5].low, bins[5].high) == (0, pytest.approx(1 - edge))
    assert (bins[9].low, bins[9].high) == (pytest.approx(edge), 1)
    distances = [0, 0.45, 0.1, 0.35, 0.2, 0.75, 0.2, 0.15, 0.4, 0.05]
    assert calibration_error(bins) == pytest.approx(sum(distances) / 10)


def test_bins_of_few_and_of_uneven_numbers() -> None:
    assert [one.num for one in calibration([1.0] * 13, range(13))] == [2, 2, 2, *[1] * 7]
    two = calibration([1.0, -2.0], ["a", "b"])
    assert [(one.accuracy, one.num, one.low, one.high) for one in two] == [(1, 1, None, None), (0, 1, None, None)]
    assert calibration_error([Bin(0.9, 0.8, 3), Bin(0.5, 0.9, 1)]) == pytest.approx(0.175)
    assert [right(margin) for margin in (2.0, 0.0, -0.1)] == [1, 0.5, 0]


def test_pairs_of_one_picture_count_as_one() -> None:
    """160 pairs, sixteen a bin, half right: of sixteen pictures 4 to 12 of 16 (binomial), of two 0 to all."""
    margins = ([1.0] * 8 + [-1.0] * 8) * 10
    for clusters, low in ((range(160), 0.25), (["a"] * 8 + ["b"] * 8, 0.0)):
        bins = calibration(margins, [*clusters] * (160 // len(clusters)))
        assert [(one.accuracy, one.low, one.high) for one in bins] == [(0.5, low, 1 - low)] * 10


def test_points_are_where_the_numbers_are() -> None:
    """200 pixels a side: 0.75 sure is half across, 0.8 right a fifth below the top."""
    bins = [Bin(0.5, 0.25, 30, 0.1, 0.5), Bin(0.75, 0.8, 29, 0.7, 1.0), Bin(1.0, 1.0, 29)]
    (panel,) = panels(calibration_chart([checked(bins)]))
    assert (LEFT, TOP, SIDE) == (46, 40, 200)
    assert [numbers(dot, "cx", "cy") for dot in panel.iter(f"{SVG}circle")] == [[46, 190], [146, 80], [246, 40]]
    lines = {
        style: [line for line in panel.iter(f"{SVG}line") if line.get("class") == style] for style in ("span", "even")
    }
    ends = "x1", "y1", "x2", "y2"
    assert [numbers(line, *ends) for line in lines["span"]] == [[46, 220, 46, 140], [146, 100, 146, 40]]
    assert [numbers(line, *ends) for line in lines["even"]] == [[46, 140, 246, 40]]
    texts = [one.text for one in panel.iter(f"{SVG}text")]
    # (30 * 0.25 + 29 * 0.05 + 0) / 88
    assert texts[:2] == ["rm on povid", "88 pairs, 29 to 30 a dot; ECE 10.2"]
    assert [one.text for one in panel.iter(f"{SVG}title")] == [
        "50.0 % sure, right in 25.0 % of 30 (10.0 to 50.0)",
        "75.0 % sure, right in 80.0 % of 29 (70.0 to 100.0)",
        "100.0 % sure, right in 100.0 % of 29",
    ]


def test_models_go_down_and_sets_across() -> None:
    bins = [Bin(0.6, 0.5, 3, 0.2, 0.9)]
    places = [("a", "x"), ("a", "y"), ("b", "y")]
    drawn = calibration_chart([checked(bins, model=model, name=name) for model, name in places])
    width, height = numbers(ElementTree.fromstring(drawn), "width", "height")
    moved = [one.get("transform") for one in panels(drawn)]
    assert moved == ["translate(0 0)", f"translate({width / 2:g} 0)", f"translate({width / 2:g} {height / 2:g})"]
    assert [one.get("aria-label", "").split(":")[0] for one in panels(drawn)] == ["a on x", "a on y", "b on y"]


@pytest.mark.parametrize(
    "name",
    ['</text><script>alert("1")</script>', "a & 'b' \"c\"", "\x00\x1b\ud800\ufffe", "long " * 50, "<!--", "\u202eback"],
)
def test_hostile_names_stay_text(name: str, tmp_path: Path) -> None:
    path = write_calibration(tmp_path, [checked([Bin(0.6, 0.5, 3, 0.2, 0.9)], model=name, name=name)])
    assert path == tmp_path / "calibration.svg"
    (panel,) = panels(path.read_text("utf-8"))
    shown = "".join(one if one.isprintable() else "\ufffd" for one in f"{name} on {name}")
    assert panel.get("aria-label", "").startswith(f"{shown}: 60.0 % sure")
    title = next(panel.iter(f"{SVG}text")).text or ""
    assert title == (shown if len(shown) <= 32 else f"{shown[:31]}\u2026")
    tags = {one.tag.removeprefix(SVG) for one in ElementTree.parse(path).iter()}
    assert tags == {"svg", "style", "g", "text", "line", "circle", "title"}
