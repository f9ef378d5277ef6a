"""RLHF-V (Yu et al. 2023) in all its generations, and RLAIF-V (Yu et al. 2024): a question and two answers a row."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NotRequired

from typing_extensions import TypedDict

from verisight.data.images import ImageError
from verisight.data.readers.base import Desk, Format, first_picture, pair, prompt
from verisight.data.rows import Unusable
from verisight.data.segments import changed_words
from verisight.data.texts import shorten
from verisight.types import ImageRef, Message, Pair

_TEXTS = ("question", "chosen", "rejected")
_COLUMNS = ("ds_name", "image_base64", "text", "origin_dataset", "origin_split", "idx", "image_path")


class _CorrectedRow(TypedDict):
    text: str | dict[str, Any] | list[Any]
    image: NotRequired[Any]
    image_base64: NotRequired[str]
    image_path: NotRequired[str | int | None]
    origin_dataset: NotRequired[Any]
    origin_split: NotRequired[Any]
    idx: NotRequired[str | int | None]
    origin_split_inner_idx: NotRequired[str | int | None]


class _FeedbackRow(TypedDict):
    question: str
    chosen: str
    rejected: str
    image: NotRequired[Any]
    image_path: NotRequired[str | int | None]
    origin_dataset: NotRequired[Any]
    origin_split: NotRequired[Any]
    idx: NotRequired[str | int | None]


def _corrected(row: _CorrectedRow, desk: Desk) -> Iterator[Pair]:
    """A model's answer is rejected, a human's correction of it chosen; what changed is found by comparing them."""
    question, chosen, rejected = _texts(row["text"])
    model, category = _origin(row.get("origin_split"))
    images, split = _picture(row, desk)
    uid = _uid(row.get("idx"), row.get("origin_split_inner_idx"))
    made, notes = prompt([Message("user", question)], images, desk, uid=uid, group=split)
    one = pair(made, chosen, rejected, notes | {"rejected_model": model, "category": category})
    yield replace(one, notes=one.notes | {"changed": changed_words(chosen, rejected).as_notes()})


def _feedback(row: _FeedbackRow, desk: Desk) -> Iterator[Pair]:
    """Two answers of one model, ranked by another."""
    model, category = _origin(row.get("origin_split"))
    images, split = _picture(row, desk)
    made, notes = prompt([Message("user", row["question"])], images, desk, uid=_uid(row.get("idx")), group=split)
    told = {"chosen_model": model, "rejected_model": model, "category": category}
    yield pair(made, row["chosen"], row["rejected"], notes | told)


def _texts(text: Any) -> tuple[str, str, str]:
    """Question, chosen and rejected: an object or a list, as it is, as JSON, or as JSON in base64. More is let pass."""
    found = _unpacked(text)
    if isinstance(found, list) and len(found) >= len(_TEXTS):
        found = dict(zip(_TEXTS, found, strict=False))
    if not isinstance(found, dict):
        raise Unusable("wrong type", f"text: found {shorten(str(text))}; accepted: JSON of {', '.join(_TEXTS)}")
    for key in _TEXTS:
        if key not in found:
            raise Unusable("missing key", f"text.{key}")
        if not isinstance(found[key], str):
            raise Unusable("wrong type", f"text.{key}: found {shorten(str(found[key]))}; accepted: a string")
    return found["question"], found["chosen"], found["rejected"]


def _unpacked(value: Any) -> Any:
    """A value that may be written as JSON, and that in base64; None where it is neither."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        pass
    try:
        return json.loads(base64.b64decode(value, validate=True))
    except (ValueError, RecursionError):
        return None


def _origin(value: Any) -> tuple[str | None, str | None]:
    """The answering model and the kind of question, as far as `origin_split` tells. Names of its keys vary."""
    told = _unpacked(value)
    if not isinstance(told, dict):
        return None, None
    model = category = None
    for key, text in told.items():
        name = str(key).lower()
        if not isinstance(text, str) or not text:
            continue
        if "model" in name and "label" not in name:
            model = model or text
        elif "type" in name:
            category = category or text
    return model, category


def _uid(*numbers: str | int | None) -> str:
    return next((str(number) for number in numbers if number is not None), "")


def _picture(row: Any, desk: Desk) -> tuple[tuple[ImageRef, ...], str]:
    """The row's picture, if it has one, and its split group: bytes first, then the names that the row gives."""
    coco = re.search("coco|unimm", str(row.get("origin_dataset") or "coco"), re.IGNORECASE) is not None
    image, path = row.get("image"), _file_name(row.get("image_path"), coco=coco)
    if encoded := row.get("image_base64"):
        try:
            image = base64.b64decode(encoded, validate=True)
        except ValueError as error:
            raise ImageError("image unreadable", f"found {shorten(encoded)}; base64 is accepted") from error
    if isinstance(image, dict) and image.get("bytes") is None:
        image = image.get("path")
    if isinstance(image, str):
        image = _file_name(image, coco=coco)
    cells = [cell for cell in (image, path) if cell is not None]
    if not cells:
        return (), ""
    ref, split = first_picture(cells, desk, name=path)
    return (ref,), split


def _file_name(name: str | int | None, *, coco: bool) -> str | None:
    """A name as a file's; among COCO's pictures a bare number is an id."""
    text = str(name or "")
    is_id = coco and text.isdecimal() and text.isascii() and len(text) <= 12
    return (f"{int(text):012d}.jpg" if is_id else text) or None


RLHF_V = Format(
    "rlhf_v", "RLHF-V (Yu et al. 2023)", "openbmb/RLHF-V-Dataset", "cc-by-nc-4.0", _CorrectedRow, _corrected,
    where=lambda row: not {"ds_name", "dataset_name", "origin_dataset"}.isdisjoint(row), columns=_COLUMNS,
)  # fmt: skip
RLAIF_V = Format(
    "rlaif_v", "RLAIF-V (Yu et al. 2024)", "openbmb/RLAIF-V-Dataset", "cc-by-nc-4.0", _FeedbackRow, _feedback,
    where=lambda row: not {"ds_name", "origin_dataset", "origin_split"}.isdisjoint(row),
)  # fmt: skip
