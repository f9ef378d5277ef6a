"""GroundedBench's scenes: as the pocket world's, with copies of objects and declared difficulty, and their pictures."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from verisight.pocket.scenes import (
    CELL_SIZE,
    ELSEWHERE_FRACTION,
    GRID,
    KINDS,
    OBJECTS,
    Placed,
    Scene,
    icon,
    render,
)

SIZES = {"normal": (25, 32), "small": (14, 18)}  # pixels of an icon at scale 1, both ends included
CLUTTER = {"few": (2, 3), "many": (5, 7)}  # different objects, both ends included
CONTRAST = {"full": 1.0, "faint": 0.45}  # share of the icon in what is seen
MAX_COPIES = 3
_STREAM = 5151  # its own random stream: no scene of any split comes up here


@dataclass(frozen=True, slots=True)
class GroundedScene:
    """A scene and how hard it is to see. `scene.placed` may hold an object two or three times."""

    scene: Scene
    size: str
    clutter: str
    contrast: str

    @property
    def names(self) -> tuple[str, ...]:
        """Different objects, in order of first appearance."""
        return tuple(dict.fromkeys(self.scene.names))

    def count(self, name: str) -> int:
        """How many of an object there are."""
        return self.scene.names.count(name)

    def cells(self, name: str) -> tuple[int, ...]:
        """Where they are."""
        return tuple(item.cell for item in self.scene.placed if item.name == name)

    def without(self, name: str) -> GroundedScene:
        """The same scene with every copy of one object removed."""
        return replace(self, scene=replace(self.scene, placed=tuple(p for p in self.scene.placed if p.name != name)))


def draw(seed: int, index: int) -> GroundedScene:
    """Scene number `index` of a form: the eight levels of difficulty in turn, every other eight with copies."""
    rng = np.random.default_rng([_STREAM, seed, index])
    bits = [index >> place & 1 for place in range(4)]
    size, clutter, contrast = (list(levels)[bit] for levels, bit in zip((SIZES, CLUTTER, CONTRAST), bits, strict=False))
    kind = str(rng.choice(list(KINDS)))
    few, many = CLUTTER[clutter]
    names = _names(kind, int(rng.integers(few, many + 1)), rng)
    if bits[3]:
        copies = int(rng.integers(1, min(MAX_COPIES, GRID * GRID - len(names) + 1)))
        names += [names[int(rng.integers(len(names)))]] * copies
    cells = sorted(int(cell) for cell in rng.choice(GRID * GRID, size=len(names), replace=False))
    order = rng.permutation(len(names))
    placed = tuple(_place(names[at], cell, SIZES[size], rng) for at, cell in zip(order, cells, strict=True))
    uid = seed * 1_000_000 + index
    return GroundedScene(Scene(uid, kind, placed, int(rng.integers(2**31))), size, clutter, contrast)


def picture(one: GroundedScene, *, scale: int = 1) -> Image.Image:
    """What is seen, RGB, 96 pixels a side times `scale`. Without an object the other pixels are the same."""
    ground = render(replace(one.scene, placed=()))
    seen = ground.resize((ground.width * scale, ground.height * scale), Image.Resampling.NEAREST)
    for item in one.scene.placed:
        row, column = divmod(item.cell, GRID)
        drawn = icon(item.name, item.size * scale).copy()
        share = CONTRAST[one.contrast]
        drawn.putalpha(drawn.getchannel("A").point(lambda alpha, share=share: round(alpha * share)))
        corner = (column * CELL_SIZE + item.dx) * scale, (row * CELL_SIZE + item.dy) * scale
        seen.paste(drawn, corner, drawn)
    return seen


def _names(kind: str, num: int, rng: np.random.Generator) -> list[str]:
    """Different objects, most of them of the place and steeply frequent there, as in the rest of the world."""
    members = KINDS[kind]
    frequency = 1.0 / np.arange(1, len(members) + 1)
    others = [name for name in OBJECTS if name not in members]
    names: list[str] = []
    while len(names) < num:
        foreign = rng.random() < ELSEWHERE_FRACTION
        name = str(rng.choice(others) if foreign else rng.choice(members, p=frequency / frequency.sum()))
        if name not in names:
            names.append(name)
    return names


def _place(name: str, cell: int, sizes: tuple[int, int], rng: np.random.Generator) -> Placed:
    size = int(rng.integers(sizes[0], sizes[1] + 1))
    slack = CELL_SIZE - size
    return Placed(name, cell, size, int(rng.integers(0, slack + 1)), int(rng.integers(0, slack + 1)))
