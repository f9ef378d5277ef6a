"""Sentences of an answer, as spans of its text."""

from __future__ import annotations

import re

from sentencex import get_sentence_boundaries

_LINE = re.compile(r"[^\r\n\u2028\u2029]+")


def split_sentences(text: str) -> list[tuple[int, int]]:
    """Where each sentence begins and ends, the blanks between them left out: half-open, in order, disjoint.

    `sentencex` (Wikimedia) tells full stops from those of abbreviations, numbers, quotes and initials, and knows the
    stops of scripts without blanks. A line ends a sentence too: items of a list are sentences of their own.
    """
    spans = []
    for line in _LINE.finditer(text):
        for found in get_sentence_boundaries("en", line[0]):
            start, end = line.start() + found["start_index"], line.start() + found["end_index"]
            part = text[start:end]
            if part.strip():
                spans.append((start + len(part) - len(part.lstrip()), start + len(part.rstrip())))
    return spans
