"""Arms in two metrics as inline SVG, every arm named beside its dot."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from xml.etree.ElementTree import Element, SubElement, tostring

from verisight.studies.drawings import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    Axis,
    add_axis_names,
    add_grid,
    add_line,
    add_marker,
    add_text,
    colour,
    new_root,
    room,
    short,
    tick_texts,
)
from verisight.studies.export import shown
from verisight.studies.findings import Column
from verisight.study.svg import ticks


class Placed(NamedTuple):
    """An arm of a scatter plot: value, low, high in either direction."""

    label: str
    style: int
    x: tuple[float, float | None, float | None]
    y: tuple[float, float | None, float | None]
    base: bool


def scatter(placed: Sequence[Placed], across: Column, up: Column) -> str:
    """Arms in two metrics with whiskers in both, every arm named. Through the base a cross, each quarter in words."""
    width, height = 760, 460
    ends_x = [end for one in placed for end in one.x if end is not None]
    ends_y = [end for one in placed for end in one.y if end is not None]
    x = Axis(*room(min(ends_x), max(ends_x), share=0.14), LEFT + 8, width - RIGHT)
    y = Axis(*room(min(ends_y), max(ends_y), share=0.12), height - BOTTOM, TOP)
    said = "; ".join(f"{one.label} {shown(one.x[0], across)} and {shown(one.y[0], up)}" for one in placed)
    root = new_root(width, height, f"{across.label} and {up.label}: {said}.")
    add_grid(root, y, (LEFT + 8, width - RIGHT), percent=up.percent)
    spots = ticks(x.low, x.high, 8)
    for tick, text in zip(spots, tick_texts(spots, percent=across.percent), strict=True):
        add_line(root, "grid", (x(tick), TOP), (x(tick), height - BOTTOM))
        add_text(root, "tick middle", (x(tick), height - BOTTOM + 16), text)
    arrows = {"lower": " (lower is better)", "higher": " (higher is better)", "neutral": ""}
    names = (f"{one.label}{', %' if one.percent else ''}{arrows[one.better]}" for one in (across, up))
    add_axis_names(root, *names, right=width - RIGHT, bottom=height)
    taken = [*_quarters(root, placed, across, up, x, y)]
    dots = [(x(one.x[0]), y(one.y[0])) for one in placed]
    bars = []
    for one, (a, b) in zip(placed, dots, strict=True):
        group = SubElement(root, "g", {"class": colour(one.style)})
        for (_, low, high), axis, upright in ((one.x, x, False), (one.y, y, True)):
            if low is not None and high is not None:
                start, end = ((a, axis(low)), (a, axis(high))) if upright else ((axis(low), b), (axis(high), b))
                add_line(group, "span", start, end)
                bars.append(
                    (
                        min(start[0], end[0]),
                        min(start[1], end[1]),
                        abs(end[0] - start[0]) + 1,
                        abs(end[1] - start[1]) + 1,
                    )
                )
        add_marker(
            group,
            one.style,
            (a, b),
            f"{one.label}: {across.label} {shown(one.x[0], across)}, {up.label} {shown(one.y[0], up)}",
        )
    for one, dot in zip(placed, dots, strict=True):
        box = _spot(
            len(short(one.label)) * 6.6, dot, taken, dots, bars, (LEFT + 8, TOP, width - RIGHT, height - BOTTOM)
        )
        taken.append(box)
        group = SubElement(root, "g", {"class": colour(one.style)})
        near = min(max(dot[0], box[0]), box[0] + box[2]), min(max(dot[1], box[1]), box[1] + box[3])
        if math.dist(near, dot) > 16:
            add_line(group, "leader", dot, near)
        add_text(group, "label", (box[0], box[1] + 11), short(one.label))
    return tostring(root, encoding="unicode")


_Box = tuple[float, float, float, float]  # left, top, width, height


def _quarters(root: Element, placed: Sequence[Placed], across: Column, up: Column, x: Axis, y: Axis) -> Iterator[_Box]:
    """A cross through the base; where both directions are good or bad, what each quarter means; yields their boxes."""
    base = next((one for one in placed if one.base), None)
    if base is None:
        return
    add_line(root, "cross", (x(base.x[0]), y.first), (x(base.x[0]), y.last))
    add_line(root, "cross", (x.first, y(base.y[0])), (x.last, y(base.y[0])))
    if (across.better, up.better) != ("lower", "higher"):
        return
    words = (
        ("makes up less, finds more", True, True), ("makes up more, finds more", False, True),
        ("makes up less, finds less: it says less", True, False), ("makes up more, finds less", False, False),
    )  # fmt: skip
    for text, left, top in words:
        wide, a, b = len(text) * 5.9, x.first + 6 if left else x.last - 6, y.last + 14 if top else y.first - 8
        add_text(root, "quarter" if left else "quarter end", (a, b), text)
        yield (a if left else a - wide, b - 11, wide, 14)


def _spot(
    wide: float, dot: tuple[float, float], taken: Sequence[_Box], dots: Sequence[tuple[float, float]],
    bars: Sequence[_Box], limits: _Box,
) -> _Box:  # fmt: skip
    """Where a label of this width lies on the least: next to its dot if it can."""
    boxes = [
        *((box, 9.0) for box in taken),
        *(((a - 6, b - 6, 12, 12), 9.0) for a, b in dots),
        *((b, 7.0) for b in bars),
    ]
    best, least = (dot[0], dot[1], wide, 14.0), math.inf
    for far in (9, 16, 26, 38, 54, 74):
        for turn in range(16):
            angle = turn * math.pi / 8
            a, b = dot[0] + far * math.cos(angle), dot[1] + far * math.sin(angle)
            left = a - wide * (1 - math.cos(angle)) / 2
            box = (left, b - 7 + 5 * math.sin(angle), wide, 14.0)
            cost = far * 0.4 + sum(weight * math.sqrt(_overlap(box, other)) for other, weight in boxes)
            inside = limits[0] <= box[0] and box[0] + wide <= limits[2] and limits[1] <= box[1] <= limits[3] - 14
            cost += 0 if inside else 1000
            if cost < least:
                best, least = box, cost
    return best


def _overlap(a: _Box, b: _Box) -> float:
    wide = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    high = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(0.0, wide) * max(0.0, high)
