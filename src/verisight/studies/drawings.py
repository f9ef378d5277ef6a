"""The figures of a study as inline SVG: forest, scatter, lines. Colours come from the page's style sheet by arm."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple, TypeGuard
from xml.etree.ElementTree import Element, SubElement, tostring

from verisight.studies.export import interval, shown
from verisight.studies.findings import Column, Effect
from verisight.study.svg import ticks

NUM_STYLES = 10
_WIDTH, _HEIGHT = 460, 250
LEFT, RIGHT, TOP, BOTTOM = 50, 14, 12, 38
_DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 2", "12 4", "1 2", "6 2 1 2 1 2", "10 2", "3 5")
_MARKERS = (
    "M-4,0A4,4 0 1,0 4,0A4,4 0 1,0 -4,0Z", "M-3.7,-3.7H3.7V3.7H-3.7Z", "M0,-5.4L5.4,0L0,5.4L-5.4,0Z",
    "M0,-5L4.9,3.7H-4.9Z", "M0,5L4.9,-3.7H-4.9Z", "M-1.6,-5H1.6V-1.6H5V1.6H1.6V5H-1.6V1.6H-5V-1.6H-1.6Z",
    "M-3.2,-5.2L0,-2L3.2,-5.2L5.2,-3.2L2,0L5.2,3.2L3.2,5.2L0,2L-3.2,5.2L-5.2,3.2L-2,0L-5.2,-3.2Z",
    "M-2.6,-4.6H2.6L5.2,0L2.6,4.6H-2.6L-5.2,0Z", "M0,-6.4L1.8,-1.8L6.4,0L1.8,1.8L0,6.4L-1.8,1.8L-6.4,0L-1.8,-1.8Z",
    "M-5.6,-2.1H5.6V2.1H-5.6Z",
)  # fmt: skip
_BAR_ROW, _FOREST_LEFT, _NAME = 32, 168, 23


class Dot(NamedTuple):
    """A point of a line with the ends of its whisker or band; `note` names it."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    note: str = ""


class Series(NamedTuple):
    """One line. `style`: which colour, marker and dashes; the same for an arm in every figure. x rises."""

    label: str
    style: int
    dots: tuple[Dot, ...]


class Compared(NamedTuple):
    """An arm of a forest plot. At least one effect has a value."""

    label: str
    to_base: Effect | None
    to_control: Effect | None


class Axis(NamedTuple):
    """Maps low..high to pixels first..last, by the logarithm if `log`."""

    low: float
    high: float
    first: float
    last: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Where a value lies."""
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return round(self.first + (value - low) / (high - low) * (self.last - self.first), 2)


def swatch(style: int) -> str:
    """An arm's colour, dashes and marker, for legends; says nothing to a screen reader."""
    root = Element("svg", {"class": f"swatch {colour(style)}", "viewBox": "0 0 34 14", "width": "34", "height": "14"})
    root.set("aria-hidden", "true")
    add_line(root, "line", (0, 7), (34, 7)).set("stroke-dasharray", _DASHES[style % NUM_STYLES])
    add_marker(root, style, (17, 7))
    return tostring(root, encoding="unicode")


def chart(
    series: Sequence[Series], *, title: str, x_label: str, y_label: str, percent: bool = False, log_x: bool = False,
    whole: bool = False, band: bool = False,
) -> str:  # fmt: skip
    """Lines with whiskers, or bands if `band`. `whole`: the axis is 0 to 100 %. Logarithmic where every x is positive.

    The text alternative says where each line starts and ends.
    """
    dots = [dot for one in series for dot in one.dots]
    ends = [end for dot in dots for end in (dot.y, dot.low, dot.high) if end is not None]
    low, high = (0.0, 1.0) if whole else room(min(ends), max(ends))
    xs = sorted({dot.x for dot in dots})
    log = log_x and xs[0] > 0 and len(xs) > 1
    far = (xs[0], xs[-1]) if len(xs) > 1 else (xs[0] - 1, xs[0] + 1)
    x = Axis(*far, LEFT + 10, _WIDTH - RIGHT - 6, log)
    y = Axis(low, high, _HEIGHT - BOTTOM, TOP)
    root = new_root(_WIDTH, _HEIGHT, _described(series, title=title, percent=percent))
    add_grid(root, y, (LEFT, _WIDTH - RIGHT), percent=percent)
    for tick, text in _spots(xs, log=log):
        add_text(root, "tick middle", (x(tick), _HEIGHT - BOTTOM + 16), text)
    add_line(root, "axis", (LEFT, _HEIGHT - BOTTOM), (_WIDTH - RIGHT, _HEIGHT - BOTTOM))
    add_axis_names(root, x_label, y_label, right=_WIDTH - RIGHT, bottom=_HEIGHT)
    if band:
        for one in series:
            _band(root, one, x, y)
    for one in series:
        _series(root, one, x, y, whiskers=not band, percent=percent)
    return tostring(root, encoding="unicode")


def forest(compared: Sequence[Compared], column: Column, *, base: str, control: str) -> str:
    """Effects on one metric, a row an arm: a dot to the base, a square to the control, whiskers, a line at 0.

    Which side is better stands below the axis in words. Colours are verdicts, hollow marks tell nothing.
    """
    found = [effect for one in compared for effect in (one.to_base, one.to_control) if effect is not None]
    ends = [end for effect in found for end in (effect.value, effect.low, effect.high) if end is not None]
    low, high = room(min(0.0, *ends), max(0.0, *ends))
    bottom = TOP + _BAR_ROW * len(compared)
    x = Axis(low, high, _FOREST_LEFT, _WIDTH - RIGHT)
    told = [f"{one.label}: {said}" for one in compared if (said := _compared(one, column, base, control))]
    root = new_root(_WIDTH, bottom + 46, f"{column.label}. {'. '.join(told)}.")
    spots = ticks(low, high, 5)
    for tick, text in zip(spots, tick_texts(spots, percent=column.percent, signed=True), strict=True):
        add_line(root, "zero" if tick == 0 else "grid", (x(tick), TOP), (x(tick), bottom))
        add_text(root, "tick middle", (x(tick), bottom + 15), text)
    lower, higher = {"lower": ("better", "worse"), "higher": ("worse", "better"), "neutral": ("lower", "higher")}[
        column.better
    ]
    add_text(root, "side", (_FOREST_LEFT, bottom + 34), f"\u2190 {lower}")
    add_text(root, "side end", (_WIDTH - RIGHT, bottom + 34), f"{higher} \u2192")
    for at, one in enumerate(compared):
        middle = TOP + _BAR_ROW * (at + 0.5)
        if at:
            add_line(root, "row", (0, middle - _BAR_ROW / 2), (_WIDTH - RIGHT, middle - _BAR_ROW / 2))
        add_text(root, "arm", (0, middle + 4), short(one.label))
        both = has_value(one.to_base) and has_value(one.to_control)
        for effect, shape, shift, other in ((one.to_base, 0, -6, base), (one.to_control, 1, 6, control)):
            if has_value(effect):
                place = middle + (shift if both else 0)
                _effect(root, effect, column, x, place, shape=shape, said=f"{one.label} less {other}")
    return tostring(root, encoding="unicode")


def add_grid(root: Element, y: Axis, ends: tuple[float, float], *, percent: bool) -> None:
    """Lines across at round numbers, named at the left."""
    spots = ticks(min(y.low, y.high), max(y.low, y.high), 5)
    for tick, text in zip(spots, tick_texts(spots, percent=percent), strict=True):
        add_line(root, "zero" if tick == 0 and y.low < 0 else "grid", (ends[0], y(tick)), (ends[1], y(tick)))
        add_text(root, "tick end", (ends[0] - 6, y(tick) + 3.5), text)


def add_axis_names(root: Element, x_label: str, y_label: str, *, right: float, bottom: float) -> None:
    """What the axes show: below, and turned at the left."""
    add_text(root, "name middle", ((LEFT + right) / 2, bottom - 4), x_label)
    place = f"translate(10 {(bottom - BOTTOM + TOP) / 2:g}) rotate(-90)"
    add_text(root, "name middle", (0, 0), y_label, transform=place)


def add_marker(root: Element, style: int, place: tuple[float, float], note: str = "") -> None:
    """An arm's marker; `note` shows up under a pointer."""
    shape = _MARKERS[(style + style // NUM_STYLES) % NUM_STYLES]
    mark = SubElement(root, "path", {"class": "mark", "d": shape, "transform": f"translate({place[0]:g} {place[1]:g})"})
    if note:
        SubElement(mark, "title").text = note


def add_line(root: Element, style: str, start: tuple[float, float], end: tuple[float, float]) -> Element:
    """A straight line of this class."""
    ends = {"x1": start[0], "y1": start[1], "x2": end[0], "y2": end[1]}
    return SubElement(root, "line", {"class": style} | {name: f"{value:g}" for name, value in ends.items()})


def add_text(root: Element, style: str, place: tuple[float, float], text: str, **more: str) -> None:
    """Text of this class."""
    SubElement(root, "text", {"class": style, "x": f"{place[0]:g}", "y": f"{place[1]:g}"} | more).text = text


def new_root(width: float, height: float, label: str) -> Element:
    """An empty figure; `label` is its text alternative."""
    size = {"viewBox": f"0 0 {width:g} {height:g}", "width": f"{width:g}", "height": f"{height:g}"}
    return Element("svg", {"class": "chart", "role": "img", "aria-label": label, **size})


def colour(style: int) -> str:
    """The class of the page's style sheet that sets an arm's colour."""
    return f"a{style % NUM_STYLES}"


def room(low: float, high: float, *, share: float = 0.06) -> tuple[float, float]:
    """The range with some air at both ends, never empty."""
    gap = share * (high - low) or max(abs(high), 1.0) * 0.1
    return low - gap, high + gap


def tick_texts(spots: Sequence[float], *, percent: bool, signed: bool = False) -> list[str]:
    """Round numbers with as many decimals as tell them apart; fractions in percent."""
    values = [100 * spot if percent else spot for spot in spots]
    step = abs(values[1] - values[0]) if len(values) > 1 else 1.0
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    texts = [format(value, f"{'+' if signed else ''}z,.{digits}f").replace("-", "\u2212") for value in values]
    return [text.removeprefix("+") if value == 0 else text for text, value in zip(texts, values, strict=True)]


def short(text: str) -> str:
    """The text, cut off where it is too long for a figure."""
    return text if len(text) <= _NAME else f"{text[: _NAME - 1]}\u2026"


def _effect(root: Element, effect: Effect, column: Column, x: Axis, y: float, *, shape: int, said: str) -> None:
    style = {"better": "better", "worse": "worse", "can't tell": "unsure"}.get(effect.verdict, "decided")
    assert effect.value is not None, "only effects with a value are drawn"
    group = SubElement(root, "g", {"class": f"effect {style}"})
    SubElement(group, "title").text = f"{said}: {_said(effect, column)}"
    if effect.low is not None and effect.high is not None:
        add_line(group, "span", (x(effect.low), y), (x(effect.high), y))
        for end in (effect.low, effect.high):
            add_line(group, "span", (x(end), y - 3), (x(end), y + 3))
    add_marker(group, shape, (x(effect.value), y))


def _said(effect: Effect, column: Column) -> str:
    around = interval(effect, column)
    return f"{shown(effect.value, column, signed=True)}{f' ({around})' if around else ''}, {effect.verdict}"


def _compared(one: Compared, column: Column, base: str, control: str) -> str:
    found = ((one.to_base, base), (one.to_control, control))
    return "; ".join(f"less {other} {_said(effect, column)}" for effect, other in found if has_value(effect))


def has_value(effect: Effect | None) -> TypeGuard[Effect]:
    """Whether there is an effect to draw."""
    return effect is not None and effect.value is not None


def _band(root: Element, one: Series, x: Axis, y: Axis) -> None:
    known = [(dot.x, dot.low, dot.high) for dot in one.dots if dot.low is not None and dot.high is not None]
    if any(low < high for _, low, high in known):
        edge = [(at, high) for at, _, high in known] + [(at, low) for at, low, _ in reversed(known)]
        points = " ".join(f"{x(at)},{y(value)}" for at, value in edge)
        SubElement(root, "polygon", {"class": f"band n{one.style} {colour(one.style)}", "points": points})


def _series(root: Element, one: Series, x: Axis, y: Axis, *, whiskers: bool, percent: bool) -> None:
    group = SubElement(root, "g", {"class": f"series n{one.style} {colour(one.style)}"})
    places = [(x(dot.x), y(dot.y)) for dot in one.dots]
    points = " ".join(f"{a},{b}" for a, b in places)
    SubElement(
        group, "polyline", {"class": "line", "points": points, "stroke-dasharray": _DASHES[one.style % NUM_STYLES]}
    )
    every = 1 if whiskers else max(1, math.ceil(len(places) / 5))
    for at, (dot, (a, b)) in enumerate(zip(one.dots, places, strict=True)):
        if whiskers and dot.low is not None and dot.high is not None:
            add_line(group, "span", (a, y(dot.low)), (a, y(dot.high)))
        if at % every == every // 2:
            note = dot.note or f"{one.label}: {_number(dot.y, percent=percent)} at {dot.x:g}"
            add_marker(group, one.style, (a, b), note)


def _described(series: Sequence[Series], *, title: str, percent: bool) -> str:
    told = []
    for one in series:
        first, last = (f"{_number(dot.y, percent=percent)} at {dot.x:g}" for dot in (one.dots[0], one.dots[-1]))
        told.append(f"{one.label} from {first} to {last}")
    return f"{title}: {'; '.join(told)}."


def _number(value: float, *, percent: bool) -> str:
    return (f"{100 * value:.1f} %" if percent else f"{value:.4g}").replace("-", "\u2212")


def _spots(xs: Sequence[float], *, log: bool) -> Iterator[tuple[float, str]]:
    """Where the axis below is named: at every x of a few, else at round numbers."""
    few = len(xs) <= 8 and (log or min(b - a for a, b in pairwise([*xs, math.inf])) >= (xs[-1] - xs[0]) / 14)
    if few:
        spots: Iterable[float] = xs
    elif log:
        powers = range(math.floor(math.log10(xs[0])), math.ceil(math.log10(xs[-1])) + 1)
        spots = [v for p in powers for v in (10.0**p, 2 * 10.0**p, 5 * 10.0**p) if xs[0] <= v <= xs[-1]]
    else:
        spots = ticks(xs[0], xs[-1], 6)
    return ((spot, f"{spot:,g}".replace("-", "\u2212")) for spot in spots)
