"""Which parts of an answer to point at: words that differ from another answer, and objects it names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any, Literal, NamedTuple

from verisight.data import segments

Kind = Literal["plain", "changed", "true", "made up"]


class Piece(NamedTuple):
    """A stretch of text. The pieces of a text, joined, are the text."""

    text: str
    kind: Kind = "plain"


class Span(NamedTuple):
    """Characters `start` to `end` (exclusive) of a text."""

    start: int
    end: int
    kind: Kind


def cut(text: str, spans: Sequence[Span]) -> tuple[Piece, ...]:
    """The text as pieces, one for each span and one for everything between. Spans are in order, apart, not empty."""
    pieces, at = [], 0
    for span in spans:
        assert at <= span.start < span.end <= len(text), "spans are in order, apart and inside the text"
        pieces += [Piece(text[at : span.start]), Piece(text[span.start : span.end], span.kind)]
        at = span.end
    return tuple(piece for piece in (*pieces, Piece(text[at:])) if piece.text)


def changed_words(text: str, other: str) -> tuple[Piece, ...]:
    """`text` with the words marked "changed" that `other` does not have at that place."""
    return cut(text, [Span(left, right, "changed") for left, right in segments.changed_words(text, other).chosen])


def named_objects(answer: str, mentions: Sequence[Mapping[str, Any]]) -> tuple[Piece, ...]:
    """An answer with the objects CHAIR found in it marked "true" or "made up" (`mentions` of a scored row)."""
    spans = [Span(m["start"], m["end"], "made up" if m["hallucinated"] else "true") for m in mentions]
    return cut(answer, sorted(spans))


def num_words_apart(text: str, other: str) -> int:
    """How many word-by-word replacements, insertions and deletions lie between two answers."""
    matcher = SequenceMatcher(None, text.lower().split(), other.lower().split(), autojunk=False)
    return sum(max(b - a, d - c) for name, a, b, c, d in matcher.get_opcodes() if name != "equal")
