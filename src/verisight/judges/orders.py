"""Asking both ways: an annotator that prefers a place, not an answer, contradicts itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from verisight.types import Annotator, Comparison, Verdict

Compare = Callable[[Sequence[Comparison]], list[Verdict]]


def swapped(comparison: Comparison) -> Comparison:
    """The same two answers in the other order, under a uid of its own."""
    return replace(comparison, uid=f"{comparison.uid}/swapped", first=comparison.second, second=comparison.first)


def turned(verdict: Verdict) -> Verdict:
    """The verdict about the swapped comparison, said of the original one."""
    match verdict.winner:
        case "first":
            return replace(verdict, winner="second")
        case "second":
            return replace(verdict, winner="first")
        case _:
            return verdict


def combined(straight: Verdict, other: Verdict) -> Verdict:
    """One verdict of two about the same comparison, both said of its original order.

    Two that agree are that one; two that do not are a tie (reason "order"); unparsable if either is.
    """
    raw = "\n---\n".join(filter(None, (straight.raw, other.raw)))
    for one in (straight, other):
        if one.winner == "unparsable":
            return Verdict("unparsable", one.reason, raw)
    if straight.winner != other.winner:
        return Verdict("tie", "order", raw)
    return Verdict(straight.winner, straight.reason, raw)


def ask_both(compare: Compare, comparisons: Sequence[Comparison]) -> list[Verdict]:
    """Verdicts on all comparisons, each asked both ways; all of them in one call."""
    num = len(comparisons)
    said = compare([*comparisons, *map(swapped, comparisons)])
    return [combined(said[at], turned(said[num + at])) for at in range(num)]


class BothOrders:
    """Any annotator, asked both ways (`types.Annotator`)."""

    def __init__(self, annotator: Annotator) -> None:
        self._annotator = annotator

    @property
    def name(self) -> str:
        """The annotator's name."""
        return f"{self._annotator.name}, both orders"

    def compare(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        """One verdict each, in order."""
        return ask_both(self._annotator.compare, comparisons)
