"""Pairs where a data set gives scores: which two answers are compared, and what is left out. Pure, on indices."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

from verisight.types import UserError

TIE = "tie"
NO_SCORE = "rating is not a number"
NARROW = "gap below the margin"
ROUNDING = 1e-9  # means of three ratings are not exact: 8/3 - 1 is a little less than 5/3


class Compared(NamedTuple):
    """The indices of a better and a worse answer. With a `reason` they are no pair."""

    chosen: int
    rejected: int
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class AllPairs:
    """Every two answers of different score (Li et al. 2024, Silkie: VLFeedback's own rule)."""

    def __call__(self, scores: Sequence[float | None]) -> Iterator[Compared]:
        """All n (n - 1) / 2 comparisons, those that are no pair included. None: a score that is not known."""
        return _compare(scores, least=0.0)

    def __str__(self) -> str:
        return "all_pairs"


@dataclass(frozen=True, slots=True)
class Margin:
    """Every two answers whose scores differ by `least` or more."""

    least: float

    def __call__(self, scores: Sequence[float | None]) -> Iterator[Compared]:
        """All n (n - 1) / 2 comparisons, those that are no pair included."""
        return _compare(scores, least=self.least)

    def __str__(self) -> str:
        return f"margin {self.least:g}"


@dataclass(frozen=True, slots=True)
class BestWorst:
    """The best against the worst answer, one pair a prompt. Of equally good (or bad) ones the first is taken."""

    def __call__(self, scores: Sequence[float | None]) -> Iterator[Compared]:
        """One comparison; and one with a reason for every answer without a score."""
        known = [(score, index) for index, score in enumerate(scores) if score is not None]
        for index, score in enumerate(scores):
            if score is None:
                yield Compared(index, index, NO_SCORE)
        if len(known) < 2:
            return
        best = max(known, key=lambda entry: (entry[0], -entry[1]))
        worst = min(known)
        yield Compared(best[1], worst[1], TIE if best[0] - worst[0] <= ROUNDING else None)

    def __str__(self) -> str:
        return "best_worst"


Rule = AllPairs | BestWorst | Margin


def read_rule(text: str) -> Rule:
    """A rule by its name, as `--rule` takes it; raises UserError for any other text."""
    name, _, least = text.partition(":")
    match name, number(least):
        case "all_pairs", None if not least:
            return AllPairs()
        case "best_worst", None if not least:
            return BestWorst()
        case "margin", float(value) if value > 0:
            return Margin(value)
    raise UserError(f"--rule: found {text!r}; accepted: all_pairs, best_worst, margin:NUMBER with a number above 0")


def number(text: object) -> float | None:
    """A rating as a number, or None: not one, not finite, or missing."""
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        return None
    try:
        value = float(text)
    except (ValueError, OverflowError):
        return None
    return value if math.isfinite(value) else None


def _compare(scores: Sequence[float | None], *, least: float) -> Iterator[Compared]:
    for i, j in combinations(range(len(scores)), 2):
        first, second = scores[i], scores[j]
        if first is None or second is None:
            yield Compared(i, j, NO_SCORE)
            continue
        better, worse = (i, j) if first >= second else (j, i)
        gap = abs(first - second)
        yield Compared(better, worse, TIE if gap <= ROUNDING else NARROW if gap < least - ROUNDING else None)
