"""Ground truth in COCO's file format: which objects are in which picture."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from verisight.data.files import read_json
from verisight.evaluate.objects import CATEGORIES, Mention, find_objects
from verisight.types import UserError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Truth:
    """What is in a picture. `ordered` holds each category once, in order of first appearance."""

    image_id: int
    file_name: str
    ordered: tuple[str, ...]

    @property
    def objects(self) -> frozenset[str]:
        """The category names as a set."""
        return frozenset(self.ordered)


def read_ground_truth(
    instances: Path, *captions: Path | None, find: Callable[[str], Sequence[Mention]] = find_objects,
    among: Collection[str] | None = None,
) -> dict[int, Truth]:  # fmt: skip
    """Objects of every image listed in `instances`, in file order. `find` finds those that a caption names.

    `among`: only these image ids (as text), which spares looking through all other captions.

    An image's objects are the categories of its annotations, then those its captions name: the ground truth
    of CHAIR (Rohrbach et al. 2018), which POPE uses too. Captions of images that `instances` doesn't list are
    ignored, so that a subset can be scored with the full caption file.

    Raises:
        UserError: a file is missing, isn't JSON, or lacks a key; or a category isn't one of COCO's 80.
    """
    table = _load(instances)
    categories = _categories(table, instances)
    found: dict[int, dict[str, None]] = {}
    names: dict[int, str] = {}
    for at, image in enumerate(_list(table, "images", instances)):
        image_id = _key(image, "id", int, instances, f"images[{at}]")
        if image_id in found:
            raise UserError(f"{instances}: images[{at}].id is {image_id} a second time; ids must be unique")
        names[image_id] = _key(image, "file_name", str, instances, f"images[{at}]")
        found[image_id] = {}
    wanted = {image_id for image_id in found if among is None or str(image_id) in among}
    for at, row in enumerate(_list(table, "annotations", instances)):
        where = f"annotations[{at}]"
        image_id = _key(row, "image_id", int, instances, where)
        category = _key(row, "category_id", int, instances, where)
        if image_id not in found:
            raise UserError(f"{instances}: {where}.image_id is {image_id}, which is not in `images`")
        if category not in categories:
            raise UserError(f"{instances}: {where}.category_id is {category}, which is not in `categories`")
        found[image_id][categories[category]] = None
    for file in filter(None, captions):
        for at, row in enumerate(_list(_load(file), "annotations", file)):
            where = f"annotations[{at}]"
            image_id = _key(row, "image_id", int, file, where)
            caption = _key(row, "caption", str, file, where)
            if image_id in wanted:
                found[image_id].update(dict.fromkeys(mention.name for mention in find(caption)))
    return {
        image_id: Truth(image_id, names[image_id], tuple(found[image_id])) for image_id in found if image_id in wanted
    }


def _categories(table: dict[str, Any], file: Path) -> dict[int, str]:
    names = {}
    for at, row in enumerate(_list(table, "categories", file)):
        name = _key(row, "name", str, file, f"categories[{at}]")
        if name not in CATEGORIES:
            raise UserError(
                f"{file}: categories[{at}].name is {name!r}; accepted are COCO's 80 names "
                "(lower case, such as 'person'), because only those can be found in an answer"
            )
        names[_key(row, "id", int, file, f"categories[{at}]")] = name
    return names


def _load(file: Path) -> dict[str, Any]:
    table = read_json(file)
    if not isinstance(table, dict):
        raise UserError(f"{file}: holds a {type(table).__name__}; a COCO file is one JSON object")
    return table


def _list(table: dict[str, Any], key: str, file: Path) -> list[Any]:
    rows = table.get(key)
    if not isinstance(rows, list):
        found = "missing" if key not in table else f"a {type(rows).__name__}"
        raise UserError(f"{file}: `{key}` is {found}; a COCO file holds a list there")
    return rows


def _key(row: Any, key: str, kind: type[T], file: Path, where: str) -> T:
    if not isinstance(row, dict) or key not in row:
        raise UserError(f"{file}: {where} has no `{key}`")
    value = row[key]
    if not isinstance(value, kind):
        raise UserError(f"{file}: {where}.{key} is {value!r}; accepted is {kind.__name__}")
    return value
