"""Verisight's own pairs.parquet: TRL's vision preference columns and some of ours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NotRequired

from typing_extensions import TypedDict

from verisight.data.readers.base import Desk, Format
from verisight.data.records import to_pair
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
    extra_rejected: NotRequired[list[str] | None]
    weights: NotRequired[list[float] | None]
    notes: NotRequired[str | None]


def _read(row: _Row, desk: Desk) -> Iterator[Pair]:
    """The pair as it was written."""
    yield to_pair(row, find=desk.pictures.cell)


PAIRS = Format(
    "pairs", "Verisight pairs", "verisight pairs, verisight data convert", "", _Row, _read, trusted=True,
    where=lambda row: "uid" in row and ("provenance" in row or "origin" in row),  # else TRL's layout
)  # fmt: skip
