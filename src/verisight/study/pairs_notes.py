"""What a pair's notes say of each rejected answer that a model made."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple, NotRequired

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from verisight.data.segments import Spans
from verisight.types import Pair

_MAX_ROUNDS = 1000


class Told(NamedTuple):
    """How an answer was made. `written`: the characters of its `num_characters` that the model wrote, None if untold.

    `similarity` in -1..1 to the chosen answer, measured with `encoder` and held against `eps`; None where none was.
    """

    round: int
    guided: bool
    similarity: float | None
    encoder: str
    eps: float | None
    view: dict[str, Any]
    guidance: str
    written: Spans | None
    num_characters: int
    truncated: bool


class _Notes(TypedDict):
    round: int
    guided: bool
    similarity: NotRequired[float | None]
    encoder: NotRequired[str]
    eps: NotRequired[float]
    view: NotRequired[dict[str, Any]]
    guidance: NotRequired[str]
    written: NotRequired[list[list[int]]]
    truncated: NotRequired[bool]


_NOTES = TypeAdapter(_Notes)


def told_of(pair: Pair) -> tuple[dict[int, Told], int]:
    """By the number of the rejected answer, how it was made; and how many answers have notes that don't fit them.

    Notes are of the first rejected answer, those under `added` of the last one. Answers whose notes name no round
    were not made here.
    """
    told, num_misfit = {}, 0
    for at, notes in ((0, pair.notes), (len(pair.rejected) - 1, pair.notes.get("added"))):
        if not pair.rejected or not isinstance(notes, dict) or not {"round", "guided"} <= notes.keys():
            continue
        try:
            told[at] = _read(notes, pair.rejected[at].text)
        except ValueError:
            num_misfit += 1
    return told, num_misfit


def _read(notes: dict[str, Any], text: str) -> Told:
    """The notes, checked; raises ValueError (pydantic's is one)."""
    found = _NOTES.validate_python(notes, strict=True)
    similarity, eps = found.get("similarity"), found.get("eps")
    numbers = [number for number in (similarity, eps) if number is not None]
    if not 1 <= found["round"] <= _MAX_ROUNDS or not all(abs(number) < 1.001 for number in numbers):
        raise ValueError("a round that cannot be, or a similarity beyond 1")
    if similarity is not None:
        similarity = min(1.0, max(-1.0, similarity))  # rounding may carry a cosine past its end
    return Told(
        found["round"],
        found["guided"],
        similarity,
        found.get("encoder", ""),
        eps,
        found.get("view", {}),
        found.get("guidance", ""),
        _spans(found["written"], len(text)) if "written" in found else None,
        len(text),
        found.get("truncated", False),
    )


def _spans(written: list[list[int]], num: int) -> Spans:
    ends = [0, *(end for span in written for end in span), num]
    if any(len(span) != 2 for span in written) or any(a > b for a, b in pairwise(ends)):
        raise ValueError("spans that are not in order and inside the text")
    return tuple((start, end) for start, end in written)
