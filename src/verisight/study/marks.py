"""Which parts of an answer to point at: words that differ from another answer, and objects it names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any, Literal, NamedTuple

Kind = Literal["plain", "changed", "true", "made up"]

_TOKEN = re.compile(r"\w+(?:['\u2019-]\w+)*|[^\w\s]")


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
    """`text` with the words marked "changed" that a word-by-word alignment (difflib) doesn't find in `other`.

    Neighbouring words are one piece. Punctuation takes part in the alignment and is marked only between two
    marked words.
    """
    tokens = list(_TOKEN.finditer(text))
    matcher = SequenceMatcher(None, [t[0] for t in tokens], _TOKEN.findall(other), autojunk=False)
    spans = []
    for name, first, last, _, _ in matcher.get_opcodes():
        words = [token for token in tokens[first:last] if token[0][0].isalnum()]
        if name != "equal" and words:
            spans.append(Span(words[0].start(), words[-1].end(), "changed"))
    return cut(text, spans)


def named_objects(answer: str, mentions: Sequence[Mapping[str, Any]]) -> tuple[Piece, ...]:
    """An answer with the objects CHAIR found in it marked "true" or "made up" (`mentions` of a scored row)."""
    spans = [Span(m["start"], m["end"], "made up" if m["hallucinated"] else "true") for m in mentions]
    return cut(answer, sorted(spans))


def num_words_apart(text: str, other: str) -> int:
    """How many word-by-word replacements, insertions and deletions lie between two answers."""
    matcher = SequenceMatcher(None, text.lower().split(), other.lower().split(), autojunk=False)
    return sum(max(b - a, d - c) for name, a, b, c, d in matcher.get_opcodes() if name != "equal")
