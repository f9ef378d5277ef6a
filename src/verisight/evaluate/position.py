"""Where an answer puts objects, and whether what it makes up is what is usual in such a place.

For worlds whose truth is known completely. These are further counts on CHAIR's answers
(`Chair(scenes=...)`), not questions of their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from verisight.data.files import read_json
from verisight.evaluate.objects import CATEGORIES, Mention, find_objects
from verisight.types import UserError

CELLS = (
    "top left", "top center", "top right",
    "middle left", "center", "middle right",
    "bottom left", "bottom center", "bottom right",
)  # fmt: skip

_SENTENCE = re.compile(r"[^.!?\n]+")
_CELL = re.compile(
    r"\b(?:in|at|on) the (?:very )?"
    r"((?:top|upper|bottom|lower|middle|center|centre)[ -](?:left|right|center|centre|middle)"
    r"|center|centre|middle)\b",
    re.IGNORECASE,
)
_SAME = {"upper": "top", "lower": "bottom", "centre": "center"}


class Placement(NamedTuple):
    """An object mention and the cell the text gives it."""

    name: str
    cell: str


def placements(text: str) -> list[Placement]:
    """Objects that `text` puts into one of the nine `CELLS`.

    A place belongs to the nearest object of its sentence: the one before it, or the one after it in a
    sentence that starts with a place. An object without a place, or a place without an object, gives nothing.
    """
    found: list[Placement] = []
    for sentence in _SENTENCE.findall(text):
        marks: list[tuple[int, Mention | str]] = [(m.start, m) for m in find_objects(sentence)]
        marks += [(m.start(), _cell(m[1])) for m in _CELL.finditer(sentence)]
        marks.sort(key=lambda mark: mark[0])
        order = [mark for _, mark in marks]
        if order and isinstance(order[0], Mention):
            order.reverse()
        given = [(b, a) for a, b in pairwise(order) if isinstance(a, str) and isinstance(b, Mention)]
        given.sort(key=lambda pair: pair[0].start)
        found += [Placement(mention.name, cell) for mention, cell in given]
    return found


def scene_counts(text: str, hallucinated: Sequence[str], scene: Mapping[str, Any]) -> dict[str, int]:
    """Counts of one answer against its scene.

    `scene` is an entry's truth from `read_scenes`; `hallucinated` are the made-up names, once a mention.
    num_placed: present objects given a place; num_placed_right: the right one; num_typical: made-up mentions
    of usual objects.
    """
    cells = scene["cells"]
    placed = [each for each in placements(text) if each.name in cells]
    return {
        "num_placed": len(placed),
        "num_placed_right": sum(each.cell in cells[each.name] for each in placed),
        "num_typical": sum(name in scene["usual"] for name in hallucinated),
    }


def read_scenes(file: Path) -> dict[int, dict[str, Any]]:
    """Image id -> {"kind", "cells": {object: [cell names]}, "usual": [objects]} from a scenes file.

    The file is a list of {"image_id", "file_name", "kind", "usual": [name], "objects": [{"name", "cell"}]}.

    Raises:
        UserError: the file can't be read, or an entry lacks a key or holds an unknown cell or object.
    """
    entries = read_json(file)
    if not isinstance(entries, list):
        raise UserError(f"{file}: holds a {type(entries).__name__}; a JSON list of scenes is needed")
    scenes = {}
    for at, entry in enumerate(entries):
        try:
            cells: dict[str, list[str]] = {}
            for placed in entry["objects"]:
                cells.setdefault(placed["name"], []).append(placed["cell"])
            scenes[int(entry["image_id"])] = {
                "kind": entry["kind"],
                "cells": cells,
                "usual": list(entry["usual"]),
            }
        except (KeyError, TypeError, ValueError) as error:
            keys = "image_id, kind, usual, objects[].name, objects[].cell"
            raise UserError(f"{file}: entry {at} is incomplete ({error!r}); needed are {keys}") from error
        for name in (*cells, *entry["usual"]):
            if name not in CATEGORIES:
                raise UserError(f"{file}: entry {at} holds the object {name!r}; accepted are COCO's 80 names")
        for cell in (cell for several in cells.values() for cell in several):
            if cell not in CELLS:
                raise UserError(f"{file}: entry {at} holds the cell {cell!r}; accepted are {', '.join(CELLS)}")
    return scenes


def _cell(words: str) -> str:
    parts = [_SAME.get(part, part) for part in re.split(r"[ -]", words.lower())]
    if len(parts) == 1 or parts in (["middle", "center"], ["center", "middle"], ["center", "center"]):
        return "center"
    row, column = parts
    return f"{'middle' if row == 'center' else row} {'center' if column == 'middle' else column}"
