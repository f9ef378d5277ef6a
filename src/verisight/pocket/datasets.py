"""Scenes as data sets in real formats: LLaVA-Instruct JSON with an image folder, COCO instances and captions."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np

from verisight.data.files import write_atomic, write_json
from verisight.pocket.language import DETAIL_PROMPTS, Narrator, asked_objects
from verisight.pocket.scenes import (
    CELL_SIZE,
    CELLS,
    GRID,
    IMAGE_SIZE,
    OBJECTS,
    Scene,
    draw_scene,
    render,
    usual,
)

Split = Literal["base", "preference", "validation", "test"]
SPLITS: tuple[Split, ...] = ("base", "preference", "validation", "test")
WORLD_SEED = 2407
_ID_STRIDE = 10_000_000  # image ids of different splits never meet


def scene(split: Split, index: int) -> Scene:
    """Scene number `index` of a split. Splits have their own random streams and image ids."""
    number = SPLITS.index(split)
    return draw_scene(number * _ID_STRIDE + index, np.random.default_rng([WORLD_SEED, number, index]))


def png(picture: Scene) -> bytes:
    """The rendered scene as a PNG file."""
    buffer = BytesIO()
    render(picture).save(buffer, format="PNG")
    return buffer.getvalue()


def write_split(folder: Path, split: Split, *, num: int, questions: int = 1) -> Path:
    """Write the first `num` scenes of a split.

    Args:
        folder: `folder/split` gets images/, llava_instruct.json, instances.json, captions.json and scenes.json.
        split: which split.
        num: scenes, from index 0.
        questions: yes/no rows per scene in llava_instruct.json, beside one detailed description.

    Returns:
        The split's folder. All answers are true.
    """
    target = folder / split
    scenes = [scene(split, index) for index in range(num)]
    (target / "images").mkdir(parents=True, exist_ok=True)
    for one in scenes:
        write_atomic(target / "images" / file_name(one), png(one))
    write_json(target / "llava_instruct.json", [row for one in scenes for row in _instruct(one, questions)])
    write_json(target / "instances.json", _instances(scenes))
    write_json(target / "captions.json", _captions(scenes))
    write_json(target / "scenes.json", [_truth(one) for one in scenes])
    return target


def file_name(one: Scene) -> str:
    """A COCO 2017-style image name."""
    return f"{one.uid:012d}.png"


def _instruct(one: Scene, questions: int) -> Iterator[dict[str, Any]]:
    narrator, rng = Narrator(), np.random.default_rng([WORLD_SEED, 77, one.uid])
    asked = [(str(rng.choice(DETAIL_PROMPTS)), narrator.caption(one, rng))]
    for name in asked_objects(one, rng, num=2)[:questions]:
        asked.append(narrator.existence(one, rng, name=name, long=True))
    for index, (question, answer) in enumerate(asked):
        yield {
            "id": f"{one.uid:012d}-{index}",
            "image": file_name(one),
            "conversations": [
                {"from": "human", "value": f"<image>\n{question}"},
                {"from": "gpt", "value": answer},
            ],
        }


def _instances(scenes: list[Scene]) -> dict[str, Any]:
    category = {name: index + 1 for index, name in enumerate(OBJECTS)}
    annotations = []
    for one in scenes:
        for item in one.placed:
            row, column = divmod(item.cell, GRID)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": one.uid,
                    "category_id": category[item.name],
                    "bbox": [column * CELL_SIZE + item.dx, row * CELL_SIZE + item.dy, item.size, item.size],
                    "area": item.size**2,
                    "iscrowd": 0,
                }
            )
    return {
        "images": _images(scenes),
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for name, i in category.items()],
    }


def _captions(scenes: list[Scene]) -> dict[str, Any]:
    annotations = [
        {
            "id": index + 1,
            "image_id": one.uid,
            "caption": Narrator().caption(one, np.random.default_rng([WORLD_SEED, 78, one.uid])),
        }
        for index, one in enumerate(scenes)
    ]
    return {"images": _images(scenes), "annotations": annotations}


def _images(scenes: list[Scene]) -> list[dict[str, Any]]:
    return [{"id": s.uid, "file_name": file_name(s), "width": IMAGE_SIZE, "height": IMAGE_SIZE} for s in scenes]


def _truth(one: Scene) -> dict[str, Any]:
    return {
        "image_id": one.uid,
        "file_name": file_name(one),
        "kind": one.kind,
        "usual": list(usual(one.kind)),
        "objects": [{"name": item.name, "cell": CELLS[item.cell]} for item in one.placed],
    }
