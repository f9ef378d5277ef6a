"""Is a reward model as often right as it is sure: bins of pairs by how far apart the rewards are, and their plot."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element, SubElement, tostring

import numpy as np

from verisight.data.files import write_atomic
from verisight.evaluate.stats import cluster_bootstrap
from verisight.study.svg import ticks

BINS = 10
SIDE = 200  # of a panel's plot, pixels
LEFT, TOP = 46, 40  # of a plot in its panel
_WIDTH, _HEIGHT = LEFT + SIDE + 44, TOP + SIDE + 64
_MAX_TITLE = 32  # characters that fit above a plot
_STYLE = """
svg { background: #ffffff; } text { font: 11px system-ui, sans-serif; fill: #5a616e; }
.title { font-weight: 600; font-size: 12px; fill: #1d2026; } .middle { text-anchor: middle; } .end { text-anchor: end; }
.grid { stroke: #e6e4de; } .axis { stroke: #8a909c; } .even { stroke: #5a616e; stroke-dasharray: 4 3; }
.span { stroke: #0b5cad; stroke-width: 1.5; } .dot { fill: #0b5cad; stroke: #ffffff; }
@media (prefers-color-scheme: dark) {
  svg { background: #1c1f25; } text { fill: #a4abb8; } .title { fill: #e8e8e6; } .grid { stroke: #343943; }
  .even { stroke: #a4abb8; } .span { stroke: #7ab8ff; } .dot { fill: #7ab8ff; stroke: #1c1f25; }
}
"""


class Bin(NamedTuple):
    """Pairs of like margins.

    confidence: how sure the model was, the mean of sigmoid(|margin|), 0.5..1. accuracy: how often it was right, 0..1,
    with its 95 % interval `low` to `high` by picture (None where all `num` pairs show one picture).
    """

    confidence: float
    accuracy: float
    num: int
    low: float | None = None
    high: float | None = None


def right(margin: float) -> float:
    """1 where the better answer has the larger reward, 0 where the other has, a half where they are equal."""
    return 0.5 if margin == 0 else float(margin > 0)


def calibration(margins: Sequence[float], clusters: Sequence[Hashable], *, seed: int = 0) -> list[Bin]:
    """At most ten bins of like many pairs, by |margin|, least sure first.

    margins, clusters: (pairs,), reward of the better answer less that of the other, and the picture. `seed` draws the
    intervals' resamples of pictures. The limits between bins are taken as they are.
    """
    order = np.argsort(np.abs(margins), kind="stable")
    return [
        _bin([margins[at] for at in part], [clusters[at] for at in part], seed=seed)
        for part in np.array_split(order, BINS)
        if len(part)
    ]


def calibration_error(bins: Sequence[Bin]) -> float:
    """Mean distance of confidence and accuracy over pairs (ECE; Naeini et al. 2015, with bins of like many)."""
    return sum(one.num * abs(one.confidence - one.accuracy) for one in bins) / sum(one.num for one in bins)


def write_calibration(folder: Path, checks: Sequence[dict[str, Any]]) -> Path:
    """Draw every check's bins in calibration.svg; returns its path. `checks`: as `rewarding.read_checks` gives them."""
    write_atomic(folder / "calibration.svg", calibration_chart(checks))
    return folder / "calibration.svg"


def calibration_chart(checks: Sequence[dict[str, Any]]) -> str:
    """A panel for every model (down) and set (across): confidence across, accuracy up, one dot with its interval a bin.

    On the dashed line a model is as often right as it is sure; below it is surer than right. A dot's tooltip and the
    panel's text alternative say the bin's numbers. Names are shortened in titles, not in the text alternative.
    """
    models = list(dict.fromkeys(one["model"] for one in checks))
    sets = list(dict.fromkeys(one["data"]["name"] for one in checks))
    width, height = _WIDTH * len(sets), _HEIGHT * len(models)
    root = Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "viewBox": f"0 0 {width} {height}"})
    root.attrib |= {"width": str(width), "height": str(height)}
    SubElement(root, "style").text = _STYLE
    for one in checks:
        across, down = sets.index(one["data"]["name"]), models.index(one["model"])
        panel = SubElement(root, "g", {"transform": f"translate({_WIDTH * across} {_HEIGHT * down})", "role": "img"})
        _draw(panel, [Bin(**found) for found in one["calibration"]], title=f"{one['model']} on {one['data']['name']}")
    return tostring(root, encoding="unicode")


def _bin(margins: Sequence[float], clusters: Sequence[Hashable], *, seed: int) -> Bin:
    found = cluster_bootstrap([right(one) for one in margins], [1.0] * len(margins), clusters, seed=seed)
    assert found.value is not None, "a bin has pairs"
    confidence = float((1 / (1 + np.exp(-np.abs(margins)))).mean())
    return Bin(confidence, found.value, len(margins), found.low, found.high)


def _draw(panel: Element, bins: Sequence[Bin], *, title: str) -> None:
    title = "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in title)
    panel.set("aria-label", f"{title}: {'; '.join(map(_said, bins))}.")
    _text(panel, "title", LEFT, 16, title if len(title) <= _MAX_TITLE else f"{title[: _MAX_TITLE - 1]}\u2026")
    least, most = min(one.num for one in bins), max(one.num for one in bins)
    sizes = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    told = f"{sum(one.num for one in bins):,} pairs, {sizes} a dot; ECE {100 * calibration_error(bins):.1f}"
    _text(panel, "told", LEFT, 31, told)
    for tick in ticks(0.0, 1.0, 5):
        _line(panel, "axis" if tick == 0 else "grid", (LEFT, _y(tick)), (LEFT + SIDE, _y(tick)))
        _text(panel, "end", LEFT - 6, _y(tick) + 3.5, f"{100 * tick:.0f} %")
    for tick in ticks(0.5, 1.0, 5):
        _text(panel, "middle", _x(tick), TOP + SIDE + 15, f"{100 * tick:.0f} %")
    _text(panel, "middle", LEFT + SIDE / 2, TOP + SIDE + 33, "how sure: sigmoid(|difference of rewards|)")
    _text(panel, "middle", LEFT + SIDE / 2, TOP + SIDE + 48, "up: how often right; dashed: the same")
    _line(panel, "even", (_x(0.5), _y(0.5)), (_x(1.0), _y(1.0)))
    for one in bins:
        if one.low is not None and one.high is not None:
            _line(panel, "span", (_x(one.confidence), _y(one.low)), (_x(one.confidence), _y(one.high)))
        place = {"cx": f"{_x(one.confidence):.2f}", "cy": f"{_y(one.accuracy):.2f}"}
        dot = SubElement(panel, "circle", {"class": "dot", "r": "4", **place})
        SubElement(dot, "title").text = _said(one)


def _said(one: Bin) -> str:
    told = f"{100 * one.confidence:.1f} % sure, right in {100 * one.accuracy:.1f} % of {one.num:,}"
    return told if one.low is None or one.high is None else f"{told} ({100 * one.low:.1f} to {100 * one.high:.1f})"


def _x(confidence: float) -> float:
    return LEFT + 2 * (confidence - 0.5) * SIDE


def _y(accuracy: float) -> float:
    return TOP + (1 - accuracy) * SIDE


def _line(panel: Element, style: str, start: tuple[float, float], end: tuple[float, float]) -> None:
    ends = {"x1": start[0], "y1": start[1], "x2": end[0], "y2": end[1]}
    SubElement(panel, "line", {"class": style} | {name: f"{value:.2f}" for name, value in ends.items()})


def _text(panel: Element, style: str, x: float, y: float, text: str) -> None:
    SubElement(panel, "text", {"class": style, "x": f"{x:.2f}", "y": f"{y:.2f}"}).text = text
