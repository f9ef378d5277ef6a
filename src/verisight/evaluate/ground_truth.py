"""Which objects are in which picture: COCO files, several at once, or a plain table."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from verisight.data.files import read_json
from verisight.evaluate.chair_words import Find
from verisight.evaluate.coco import read_ground_truth
from verisight.evaluate.fields import short
from verisight.evaluate.objects import CATEGORIES
from verisight.types import UserError

_COCO_NAME = re.compile(r"(?:.*[/\\])?(?:COCO_\w+?_)?0*(\d+)(?:\.\w+)?")


def image_key(value: Any) -> str | None:
    """An image's id as text: of a number, "310196", "chair/310196" or COCO_val2014_000000310196.jpg. None: no id."""
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        return None
    match = _COCO_NAME.fullmatch(str(value))
    return match[1] if match else str(value)


def read_objects(path: Path, find: Find) -> dict[str, dict[str, Any]]:
    """Truths of a JSON object {image_id: [object, ...]}: image id -> {cluster, truth: {objects}}.

    An object is a name of COCO's, or a word that `find` knows for one.

    Raises:
        UserError: not that format, an image twice, or objects that are none of COCO's (the first of them are named).
    """
    table = read_json(path, unique=True)
    if not isinstance(table, dict) or not table:
        raise UserError(f"{path}: holds {short(table)}; accepted is an object {{image_id: [object, ...]}}")
    known = {name: name for name in CATEGORIES}
    unknown: dict[str, None] = {}
    found: dict[str, dict[str, Any]] = {}
    for key, names in table.items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise UserError(f"{path}: {key} is {short(names)}; accepted is a list of texts")
        uid = image_key(key)
        if uid is None or uid in found:
            raise UserError(f"{path}: {key!r} is image {uid} again; accepted: each image once, by an id")
        objects: dict[str, None] = {}
        for name in names:
            if name not in known:
                mentions = find(name)
                if len({mention.name for mention in mentions}) != 1:
                    unknown[name] = None
                    continue
                known[name] = mentions[0].name
            objects[known[name]] = None
        found[uid] = _entry(uid, list(objects))
    if unknown:
        told = ", ".join(map(repr, list(unknown)[:5]))
        raise UserError(f"{path}: {len(unknown)} names are no objects of COCO's, such as {told}; see --synonyms")
    return found


def read_coco(files: Sequence[Path], find: Find, *, among: Collection[str] | None = None) -> dict[str, dict[str, Any]]:
    """Truths of COCO files in any order: instances (they hold `categories`), and captions of the same pictures.

    An image in several instances files (person_keypoints_*.json is one too) has the objects of all.

    `among`: only these image ids.

    Raises:
        UserError: no instances file among them, or what `coco.read_ground_truth` says.
    """
    tables = {file: read_json(file) for file in files}
    instances = [file for file in files if isinstance(tables[file], dict) and "categories" in tables[file]]
    captions = [file for file in files if file not in instances]
    if not instances:
        raise UserError(f"--annotations: none of {len(files)} files holds `categories`; accepted: COCO instances files")
    del tables
    found: dict[str, dict[str, Any]] = {}
    for file in instances:
        for image_id, truth in read_ground_truth(file, *captions, find=find, among=among).items():
            uid = str(image_id)
            before = found[uid]["truth"]["objects"] if uid in found else []
            found[uid] = _entry(uid, list(dict.fromkeys([*before, *truth.ordered])), truth.file_name)
    return found


def read_ids(path: Path) -> list[str]:
    """Image ids, one a line.

    Raises:
        UserError: the file can't be read, holds none, or one twice.
    """
    try:
        lines = path.read_text("utf-8-sig").split()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--ids: {path} can't be read ({error}); accepted: an image id a line") from error
    found = [image_key(line) or line for line in lines]
    if len(set(found)) < len(found) or not found:
        raise UserError(f"--ids: {path} holds {len(found)} ids, {len(set(found))} different; accepted: each once")
    return found


def _entry(uid: str, objects: list[str], image: str | None = None) -> dict[str, Any]:
    truth: dict[str, Any] = {"objects": objects}
    return {"cluster": uid, "truth": truth if image is None else truth | {"image": image}}
