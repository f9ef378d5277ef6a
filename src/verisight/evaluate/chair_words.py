"""How CHAIR finds objects in a text: the official pipeline or a corrected one, with our synonyms or a given list."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Literal

from verisight.evaluate.chair_official import (
    find_mentions_corrected,
    find_mentions_official,
    own_synonyms,
    read_synonyms,
)
from verisight.evaluate.objects import Mention, find_objects

Words = Literal["official", "corrected"]
Find = Callable[[str], Sequence[Mention]]


@cache
def finder(words: Words, synonyms: Path | None = None) -> Find:
    """Finds the objects that a text names.

    Raises:
        UserError: the list of synonyms can't be used.
    """
    if words == "official":
        return partial(find_mentions_official, synonyms=own_synonyms() if synonyms is None else read_synonyms(synonyms))
    if synonyms is None:
        return find_objects
    return partial(find_mentions_corrected, synonyms=read_synonyms(synonyms))


def protocol_name(words: Words, synonyms: Path | None) -> str:
    """For summaries: the rules, and whose synonyms (a given list by its hash)."""
    if synonyms is None:
        return f"{words}, own synonyms"
    return f"{words}, synonyms {hashlib.sha256(synonyms.read_bytes()).hexdigest()[:8]}"
