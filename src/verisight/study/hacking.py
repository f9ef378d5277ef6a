"""What a reward does to a policy: rewards, length and repetition over how far the policy has moved from its start."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from xml.etree.ElementTree import Element, SubElement, tostring

from verisight.study.svg import HEIGHT, WIDTH, ticks

_KL = "samples/kl_sum"
_TRAINED_ON, _GOLD = "samples/train_reward", "samples/gold_reward"
_PATHS = (
    ("Reward it is trained on", "reward", _TRAINED_ON),
    ("Gold reward, not trained on", "reward", _GOLD),
    ("Length", "tokens", "samples/tokens"),
    ("Repeated 4-grams", "share", "samples/repetition"),
)  # title, y axis, key of a flattened row of split "probe"
_Z = 1.96  # standard errors on each side of a 95 % interval
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 46, 14, 36  # of a plot, pixels; the last step's number stands on the right


class Look(NamedTuple):
    """One look: a value at a distance from the start, sqrt(KL) in sqrt(nats). `error`: half the 95 % interval."""

    step: int
    distance: float
    value: float
    error: float = 0.0


@dataclass(frozen=True, slots=True)
class Path:
    """How one value went while the policy moved; at least two looks, in the order of their steps."""

    title: str
    y_label: str
    looks: tuple[Look, ...]


def paths(looks: Sequence[Mapping[str, float]]) -> tuple[Path, ...]:
    """Rewards, length and repetition over sqrt(KL), the axis of Gao et al. 2022 (scaling laws for overoptimization).

    Nothing for a run whose answers nobody rated. An estimate of the KL below 0 counts as 0.

    Args:
        looks: flattened rows of split "probe", by step.
    """
    if not any(key in look for look in looks for key in (_TRAINED_ON, _GOLD)):
        return ()
    found = ((title, y_label, tuple(_looks(looks, key))) for title, y_label, key in _PATHS)
    return tuple(Path(*one) for one in found if len(one[-1]) > 1)


def _looks(looks: Sequence[Mapping[str, float]], key: str) -> Iterator[Look]:
    for look in looks:
        if _KL in look and key in look:
            error = _Z * look.get(f"{key}_se", 0.0)
            yield Look(int(look["step"]), math.sqrt(max(look[_KL], 0.0)), look[key], error)


def caution(looks: Sequence[Mapping[str, float]]) -> str | None:
    """What is to be said where the reward rose from the first look to the last and the gold reward fell.

    Both by more than chance: the 95 % interval of either difference holds no 0. Looks are taken as independent, which
    makes intervals too wide rather than too narrow, for all ask the same prompts. One prompt has no interval.
    """
    rated = [
        look for look in looks if all(f"{key}{end}" in look for key in (_TRAINED_ON, _GOLD) for end in ("", "_se"))
    ]
    if len(rated) < 2:
        return None
    first, last = rated[0], rated[-1]
    rose, fell = last[_TRAINED_ON] - first[_TRAINED_ON], first[_GOLD] - last[_GOLD]
    if rose <= _noise(first, last, _TRAINED_ON) or fell <= _noise(first, last, _GOLD):
        return None
    return (
        f"the reward it is trained on rose from {_shown(first[_TRAINED_ON])} to {_shown(last[_TRAINED_ON])} while the "
        f"gold reward fell from {_shown(first[_GOLD])} to {_shown(last[_GOLD])} (steps {first['step']:g} to "
        f"{last['step']:g}): the reward is being hacked."
    )


def _noise(first: Mapping[str, float], last: Mapping[str, float], key: str) -> float:
    return _Z * math.hypot(first[f"{key}_se"], last[f"{key}_se"])


def drawing(path: Path, *, title: str) -> str:
    """A path as SVG: a dot a look with its 95 % interval, joined in the order of steps, first and last step named."""
    distances = [look.distance for look in path.looks]
    ends = [end for look in path.looks for end in (look.value - look.error, look.value + look.error)]
    far = 1.04 * max(distances) or 1.0
    room = 0.06 * (max(ends) - min(ends)) or max(abs(ends[0]), 1.0) * 0.1
    low, high = min(ends) - room, max(ends) + room
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM

    def x(distance: float) -> float:
        return round(_LEFT + (right - _LEFT) * distance / far, 2)

    def y(value: float) -> float:
        return round(bottom - (bottom - _TOP) * (value - low) / (high - low), 2)

    size = {"viewBox": f"0 0 {WIDTH} {HEIGHT}", "width": str(WIDTH), "height": str(HEIGHT)}
    root = Element("svg", {"class": "chart", "role": "img", "aria-label": _described(path, title=title), **size})
    for tick in ticks(low, high, 5):
        _line(root, "grid", (_LEFT, y(tick)), (right, y(tick)))
        _text(root, "tick end", (_LEFT - 6, y(tick) + 3.5), _shown(tick))
    for tick in ticks(0.0, far, 6):
        _text(root, "tick middle", (x(tick), bottom + 15), _shown(tick))
    _line(root, "axis", (_LEFT, bottom), (right, bottom))
    _text(root, "name middle", ((_LEFT + right) / 2, HEIGHT - 4), "√KL to the start, √nats")
    _text(root, "name middle", (0, 0), path.y_label, transform=f"translate(9 {(bottom + _TOP) / 2}) rotate(-90)")
    places = [(x(look.distance), y(look.value)) for look in path.looks]
    SubElement(root, "polyline", {"class": "raw s0", "points": " ".join(f"{a},{b}" for a, b in places)})
    for look, (at, middle) in zip(path.looks, places, strict=True):
        if look.error:
            _line(root, "s0", (at, y(look.value - look.error)), (at, y(look.value + look.error)))
        SubElement(root, "circle", {"class": "s0", "fill": "none", "cx": f"{at}", "cy": f"{middle}", "r": "3.5"})
    for look, (at, middle) in ((path.looks[0], places[0]), (path.looks[-1], places[-1])):
        _text(root, "name s0", (at + 6, middle - 6), f"{look.step:,}")
    return tostring(root, encoding="unicode")


def _described(path: Path, *, title: str) -> str:
    first, last = path.looks[0], path.looks[-1]
    top = max(path.looks, key=lambda look: look.value)
    start, end, most = (
        f"{_shown(one.value)} at step {one.step} (√KL {_shown(one.distance)})" for one in (first, last, top)
    )
    return f"{title}: from {start} to {end}, highest {most}."


def _shown(value: float) -> str:
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return text.replace("-", "\u2212")


def _line(root: Element, style: str, start: tuple[float, float], end: tuple[float, float]) -> None:
    places = {"x1": start[0], "y1": start[1], "x2": end[0], "y2": end[1]}
    SubElement(root, "line", {"class": style} | {name: f"{value:g}" for name, value in places.items()})


def _text(root: Element, style: str, place: tuple[float, float], text: str, **more: str) -> None:
    SubElement(root, "text", {"class": style, "x": f"{place[0]:g}", "y": f"{place[1]:g}"} | more).text = text
