"""Verisight's own pairs.parquet: TRL's vision preference columns and some of ours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NotRequired

from typing_extensions import TypedDict

from verisight.data.readers.base import Desk, Format, noted
from verisight.data.records import to_pair
from verisight.data.texts import check_unicode
from verisight.types import Pair


class _Turn(TypedDict):
    role: str
    content: str


class _Row(TypedDict):
    images: list[Any] | None
    prompt: list[_Turn]
    chosen: list[_Turn]
    rejected: list[_Turn] | None
    uid: NotRequired[str | None]
    origin: NotRequired[str | None]
    provenance: NotRequired[str | None]
    split_group: NotRequired[str | None]
    license: NotRequired[str | None]
    image_sha256: NotRequired[list[str | None] | None]
    extra_rejected: NotRequired[list[str] | None]
    weights: NotRequired[list[float] | None]
    notes: NotRequired[str | None]
    rejected_images: NotRequired[list[Any] | None]


def _read(row: _Row, desk: Desk) -> Iterator[Pair]:
    """The pair as it was written."""
    names = row.get("uid"), row.get("origin"), row.get("provenance"), row.get("split_group")
    check_unicode(*(name or "" for name in names))
    hashes = iter(row.get("image_sha256") or ())
    pair = to_pair(row, find=lambda image: desk.pictures.cell(image, known=next(hashes, None)))
    noted(pair.notes)
    yield pair


PAIRS = Format(
    "pairs", "Verisight pairs", "verisight pairs, verisight data convert", "", _Row, _read, trusted=True,
    where=lambda row: "uid" in row and ("provenance" in row or "origin" in row),  # else TRL's layout
)  # fmt: skip
