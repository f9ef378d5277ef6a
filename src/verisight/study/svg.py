"""Small inline SVG pictures: line charts and dots with whiskers. Colours come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple
from xml.etree.ElementTree import Element, SubElement, tostring

WIDTH, HEIGHT = 460, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 10, 10, 36
_LABEL_WIDTH = 62  # right of the plot, where several lines are named
_LABEL_GAP = 13
_MAX_LABELS = 10  # points with their value beside them


Bar = tuple[float, float, int]  # how many values lie between two


class Line(NamedTuple):
    """One curve: `steps` rise; values are finite and as many."""

    label: str
    steps: tuple[int, ...]
    values: tuple[float, ...]


class Point(NamedTuple):
    """A share (0..1) after round `at`."""

    at: int
    share: float
    hollow: bool = False


class Mark(NamedTuple):
    """A value on the axis with a name."""

    value: float
    name: str


class _Scale(NamedTuple):
    """Maps low..high to pixels first..last."""

    low: float
    high: float
    first: float
    last: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.first + share * (self.last - self.first), 2)


def line_chart(lines: Sequence[Line], *, title: str, y_label: str, percent: bool = False) -> str:
    """Curves over the training step: thin every step, thick their running mean. `percent` fixes the axis to 0..1.

    Several lines are told apart by dashes and by their names at the right end. The text alternative says where
    each line starts and ends.
    """
    values = [value for line in lines for value in line.values]
    steps = [step for line in lines for step in line.steps]
    low, high = (0.0, 1.0) if percent else _room(min(values), max(values))
    right = WIDTH - (_LABEL_WIDTH if len(lines) > 1 else _RIGHT)
    x = _Scale(0, max(max(steps), 1), _LEFT, right)
    y = _Scale(low, high, HEIGHT - _BOTTOM, _TOP)
    root = _root(WIDTH, HEIGHT, label=describe(lines, title=title, percent=percent), style="chart")
    for tick in ticks(low, high, 5):
        style = "zero" if tick == 0 and low < 0 else "grid"
        _line(root, style, (_LEFT, y(tick)), (right, y(tick)))
        _text(root, "tick end", (_LEFT - 6, y(tick) + 3.5), _shown(tick, percent=percent))
    for tick in ticks(0, max(max(steps), 1), 6):
        _text(root, "tick middle", (x(tick), HEIGHT - _BOTTOM + 15), f"{tick:,.0f}")
    _line(root, "axis", (_LEFT, HEIGHT - _BOTTOM), (right, HEIGHT - _BOTTOM))
    _text(root, "name middle", ((_LEFT + right) / 2, HEIGHT - 4), "step")
    _text(root, "name middle", (0, 0), y_label, transform=f"translate(9 {(HEIGHT - _BOTTOM + _TOP) / 2}) rotate(-90)")
    for at, line in enumerate(lines):
        for style, smooth in (("raw", False), ("line", True)):
            ys = running_mean(line.values, size=max(1, len(line.values) // 20)) if smooth else line.values
            points = " ".join(f"{x(step)},{y(value)}" for step, value in zip(line.steps, ys, strict=True))
            SubElement(root, "polyline", {"class": f"{style} s{at}", "points": points})
    if len(lines) > 1:
        for at, place in _apart({at: y(line.values[-1]) for at, line in enumerate(lines)}).items():
            _text(root, f"name s{at}", (right + 6, place + 4), lines[at].label)
    return tostring(root, encoding="unicode")


def rounds_chart(points: Sequence[Point], *, title: str) -> str:
    """Shares (0..1) after each round, the paper's figure 10. Hollow dots, with dashes to them: `Point.hollow`."""
    x = _Scale(min(0.5, points[0].at - 0.5), points[-1].at + 0.5, _LEFT, WIDTH - _RIGHT)
    y = _Scale(0.0, 1.0, HEIGHT - _BOTTOM, _TOP)
    said = ", ".join(f"{_shown(point.share, percent=True)} after round {point.at}" for point in points)
    root = _root(WIDTH, HEIGHT, label=f"{title}: {said}.", style="chart")
    _percent_axis(root, y)
    for tick in ticks(x.low, x.high, 8):
        if tick == round(tick):
            _text(root, "tick middle", (x(tick), HEIGHT - _BOTTOM + 15), f"{tick:.0f}")
    _text(root, "name middle", ((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 4), "round")
    for one, two in pairwise(points):
        style = "step dashed" if two.hollow else "step"
        _line(root, style, (x(one.at), y(one.share)), (x(two.at), y(two.share)))
    for point in points:
        place = x(point.at), y(point.share)
        style = "dot hollow" if point.hollow else "dot"
        SubElement(root, "circle", {"class": style, "cx": f"{place[0]:g}", "cy": f"{place[1]:g}", "r": "4.5"})
        below = 20 if point.share > 0.15 else -10
        if len(points) <= _MAX_LABELS:
            _text(root, "value middle", (place[0], place[1] + below), _shown(point.share, percent=True))
    return tostring(root, encoding="unicode")


def histogram(
    bars: Sequence[Bar], *, title: str, x_label: str, percent: bool = False, marks: Sequence[Mark] = ()
) -> str:
    """Counts over neighbouring ranges; `marks` are values on the axis with a name, drawn as dashed lines.

    The text alternative says how many there are, between which values, and where the highest bar stands.
    """
    low, high, most = bars[0][0], bars[-1][1], max(num for *_, num in bars)
    right = WIDTH - 2 * _RIGHT  # the last tick's text is wider than the margin
    x = _Scale(low, high, _LEFT, right)
    y = _Scale(0.0, max(most, 1) * (1.12 if marks else 1.0), HEIGHT - _BOTTOM, _TOP)
    root = _root(WIDTH, HEIGHT, label=_describe_bars(bars, title=title, percent=percent, marks=marks), style="chart")
    for tick in ticks(0.0, y.high, 4):
        if tick == round(tick):
            _line(root, "grid", (_LEFT, y(tick)), (right, y(tick)))
            _text(root, "tick end", (_LEFT - 6, y(tick) + 3.5), f"{tick:,.0f}")
    for tick in ticks(low, high, 6):
        _text(root, "tick middle", (x(tick), HEIGHT - _BOTTOM + 15), _shown(tick, percent=percent))
    for start, end, num in bars:
        place = {"x": x(start), "y": y(num), "width": max(0.5, x(end) - x(start) - 1), "height": y(0) - y(num)}
        SubElement(root, "rect", {"class": "bin"} | {name: f"{value:g}" for name, value in place.items()})
    _line(root, "axis", (_LEFT, HEIGHT - _BOTTOM), (right, HEIGHT - _BOTTOM))
    _text(root, "name middle", ((_LEFT + right) / 2, HEIGHT - 4), x_label)
    for mark in marks:
        _line(root, "limit", (x(mark.value), _TOP), (x(mark.value), HEIGHT - _BOTTOM))
        _text(root, "limit end", (x(mark.value) - 5, _TOP + 9), mark.name)
    return tostring(root, encoding="unicode")


def _percent_axis(root: Element, y: _Scale) -> None:
    for tick in ticks(0.0, 1.0, 5):
        _line(root, "axis" if tick == 0 else "grid", (_LEFT, y(tick)), (WIDTH - _RIGHT, y(tick)))
        _text(root, "tick end", (_LEFT - 6, y(tick) + 3.5), _shown(tick, percent=True))


def _describe_bars(bars: Sequence[Bar], *, title: str, percent: bool, marks: Sequence[Mark]) -> str:
    used, top = [bar for bar in bars if bar[2]], max(bars, key=lambda bar: bar[2])
    low, high, first, last = (_shown(value, percent=percent) for value in (used[0][0], used[-1][1], *top[:2]))
    told = f"{title}: {sum(num for *_, num in bars):,} from {low} to {high}, most ({top[2]:,}) from {first} to {last}"
    return "; ".join([told, *(f"{mark.name} at {mark.value:g}" for mark in marks)]) + "."


def whisker(value: float, low: float, high: float, *, limit: float, label: str, style: str) -> str:
    """A dot at `value` with its interval on an axis from -limit to limit, and a line at 0."""
    width, height = 170, 22
    x = _Scale(-limit, limit, 6, width - 6)
    root = _root(width, height, label=label, style=f"whisker {style}")
    middle = height / 2
    _line(root, "axis", (6, middle), (width - 6, middle))
    _line(root, "zero", (x(0), 1), (x(0), height - 1))
    _line(root, "span", (x(low), middle), (x(high), middle))
    for end in (low, high):
        _line(root, "span", (x(end), middle - 4), (x(end), middle + 4))
    SubElement(root, "circle", {"class": "dot", "cx": str(x(value)), "cy": str(middle), "r": "4.5"})
    return tostring(root, encoding="unicode")


def bar(share: float, *, label: str) -> str:
    """A horizontal bar filled to `share` (0..1)."""
    root = _root(200, 12, label=label, style="bar")
    SubElement(root, "rect", {"class": "track", "width": "200", "height": "12", "rx": "3"})
    SubElement(root, "rect", {"class": "fill", "width": f"{200 * share:.1f}", "height": "12", "rx": "3"})
    return tostring(root, encoding="unicode")


def describe(lines: Sequence[Line], *, title: str, percent: bool = False) -> str:
    """A chart in words: where each line starts and ends, as means over a twentieth of its steps."""
    said = []
    for line in lines:
        ends = running_mean(line.values, size=max(1, len(line.values) // 20))
        start, end = (_shown(value, percent=percent, digits=3) for value in (ends[0], ends[-1]))
        name = f"{line.label} " if len(lines) > 1 else ""
        said.append(f"{name}from {start} at step {line.steps[0]} to {end} at step {line.steps[-1]}")
    return f"{title}: {'; '.join(said)}."


def running_mean(values: Sequence[float], *, size: int) -> list[float]:
    """Mean over up to `size` values on each side of every value (fewer at the ends), itself included."""
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    spans = [(max(0, at - size), min(len(values), at + size + 1)) for at in range(len(values))]
    return [(sums[last] - sums[first]) / (last - first) for first, last in spans]


def ticks(low: float, high: float, num: int) -> list[float]:
    """About `num` round numbers (steps of 1, 2 or 5 times a power of ten) in low..high. low < high."""
    rough = (high - low) / num
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    return [round(at * step, 12) for at in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _room(low: float, high: float) -> tuple[float, float]:
    gap = 0.06 * (high - low) or max(abs(high), 1.0) * 0.1
    return low - gap, high + gap


def _apart(places: dict[int, float]) -> dict[int, float]:
    """Heights of labels, moved down where one would lie on another."""
    moved: dict[int, float] = {}
    last = -math.inf
    for at, place in sorted(places.items(), key=lambda entry: entry[1]):
        last = moved[at] = max(place, last + _LABEL_GAP)
    return moved


def _shown(value: float, *, percent: bool, digits: int = 2) -> str:
    if percent:
        return f"{100 * value:.0f} %"
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"
    return text.replace("-", "\u2212")


def _root(width: int, height: int, *, label: str, style: str) -> Element:
    size = {"viewBox": f"0 0 {width} {height}", "width": str(width), "height": str(height)}
    return Element("svg", {"class": style, "role": "img", "aria-label": label, **size})


def _line(root: Element, style: str, start: tuple[float, float], end: tuple[float, float]) -> None:
    ends = {"x1": start[0], "y1": start[1], "x2": end[0], "y2": end[1]}
    SubElement(root, "line", {"class": style} | {name: f"{value:g}" for name, value in ends.items()})


def _text(root: Element, style: str, place: tuple[float, float], text: str, **more: str) -> None:
    attributes = {"class": style, "x": f"{place[0]:g}", "y": f"{place[1]:g}"} | more
    SubElement(root, "text", attributes).text = text
