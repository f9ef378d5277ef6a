"""Where the sentences of an answer are: sentencex within a paragraph, rules of our own for lists and headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from sentencex import segment  # type: ignore (a compiled module)

_MARKER = re.compile(
    r"\s*(?:(?:[-*+•·–]|#{1,6}|\(?(?:\d{1,3}|[a-z]|[ivx]{1,5})[.)]|[①-⑳])\s+"  # noqa: RUF001
    r"|(?:\d{1,3}|[一二三四五六七八九十]{1,3})[、．])",  # noqa: RUF001
    re.IGNORECASE,
)
_CLOSING = re.compile(r"(?<=\S)[*_]+(?=\s|$)")  # of bold or italic type
# Stops in front of a number that sentencex reads over.
_BEFORE_NUMBER = re.compile(r"(?:(?<=[。！？｡])|(?<=[。！？｡][”」』])|(?<=[!?])\s+)(?=\d)")  # noqa: RUF001


def split_sentences(text: str) -> list[tuple[int, int]]:
    """Half-open character spans of the sentences, sorted, without the blanks around them; nothing else is left out.

    A paragraph, a heading and an item of a list end what stands before them; any other line break is a blank. Inside,
    sentencex 1.x decides by its English rules, which know the stops of Chinese, Japanese, Hindi, ... too: "Mr.",
    "e.g.", "U.S.", "a.m." and "3.5" do not split, and a closing quote stays with its sentence.
    """
    spans = []
    for left, right in pairwise([*sorted(set(_beginnings(text))), len(text)]):
        piece = text[left:right]
        if bare := piece.strip():
            first = left + len(piece) - len(piece.lstrip())
            spans.append((first, first + len(bare)))
    return spans


def length_of_marker(sentence: str) -> int:
    """Characters of the mark that an item of a list or a heading begins with, and the blanks behind it; 0 of others."""
    marker = _MARKER.match(sentence)
    return marker.end() if marker else 0


def _beginnings(text: str) -> Iterator[int]:
    """Where a sentence, or the blanks before it, may begin."""
    start = 0
    for block in _blocks(text):
        yield start
        yield from (start + stop.start() for stop in _BEFORE_NUMBER.finditer(block))
        at = start + length_of_marker(block)
        start += len(block)
        for piece in segment("en", text[at:start]):
            at += len(piece)
            if not _MARKER.fullmatch(piece):
                closing = _CLOSING.match(text, at)
                yield closing.end() if closing else at


def _blocks(text: str) -> Iterator[str]:
    """Paragraphs, headings and items, line breaks included: joined they are the text."""
    block, listed, previous = "", False, ""
    for line in text.splitlines(keepends=True):
        marked = _MARKER.match(line) is not None
        if block and (marked or not previous.strip() or (listed and not line[0].isspace())):
            yield block
            block, listed = "", False
        block += line
        listed |= marked
        previous = line
    yield block
