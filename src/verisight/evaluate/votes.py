"""Several replies of a judge to one question, made one: never a score where no reply could be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

Parse = Callable[[str], float | None]


class Vote(NamedTuple):
    """What a judge's replies come to.

    `value` is None where nothing can be said. `failed`: every request failed. `unparsed`: there was a reply, and no
    value came of it. `num_read`: replies that were read; `spread`: the largest less the smallest value read.
    """

    value: float | None
    failed: bool
    unparsed: bool
    num_read: int
    spread: float | None


def mean_vote(replies: Sequence[str | None], parse: Parse) -> Vote:
    """The mean of the values that `parse` reads (None: it can't). A reply of None is a request that failed."""
    return _vote(replies, parse, lambda values: sum(values) / len(values))


def majority_vote(replies: Sequence[str | None], parse: Parse) -> Vote:
    """The value that more replies give than any other; a draw gives none."""
    return _vote(replies, parse, _mode)


def _vote(replies: Sequence[str | None], parse: Parse, combine: Callable[[list[float]], float | None]) -> Vote:
    assert replies, "a judged row has one reply a vote, None where the request failed"
    came = [reply for reply in replies if reply is not None]
    values = [value for value in map(parse, came) if value is not None]
    value = combine(values) if values else None
    spread = max(values) - min(values) if values else None
    return Vote(value, not came, bool(came) and value is None, len(values), spread)


def _mode(values: list[float]) -> float | None:
    (first, most), *others = Counter(values).most_common(2)
    return None if others and others[0][1] == most else first
