"""Running counts over pairs, and what they come to. Nothing here grows with the number of pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from verisight.study.pairs_notes import Told

SHARE_BINS = 20  # bins of shares, 5 % each
TICKS = 10_000  # similarities are counted to four digits, as notes keep them
_WIDTHS = ((0.5, 100), (0.0, 200), (-1.0, 500))  # lowest similarity -> width of its histogram's bins in 1/TICKS
_MAX_NAMES = 40  # different names that are counted; more of them go under one
OTHERS = "others"


class Named(NamedTuple):
    """How many are called so."""

    name: str
    num: int


class Bin(NamedTuple):
    """`num` values in low..high, high excluded except in the last bin."""

    low: float
    high: float
    num: int


@dataclass(frozen=True, slots=True)
class Shares:
    """Shares in 0..1, one an answer: how many, their mean, and SHARE_BINS equal bins over 0..1."""

    num: int
    mean: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True, slots=True)
class Words:
    """Words an answer, all its turns together; letters and digits count, punctuation doesn't."""

    num: int
    mean: float
    median: float


@dataclass(frozen=True, slots=True)
class Threshold:
    """What `num` similarities were measured with and held against."""

    encoder: str
    eps: float
    num: int


@dataclass(frozen=True, slots=True)
class Round:
    """Answers taken in one round, `num_free` of them written without guidance, and the median of their similarity.

    `num_resolved` are below their threshold. `resolved` is the share of all examples resolved up to this round.
    """

    number: int
    num: int
    num_free: int
    num_resolved: int
    resolved: float
    similarity: float | None

    @property
    def free(self) -> bool:
        """All of its answers were written without guidance."""
        return self.num > 0 and self.num_free == self.num


@dataclass(frozen=True, slots=True)
class Similarities:
    """Answers whose similarity to the chosen one was measured, the paper's figure 10 among it.

    `num_examples`: these answers and the `num_unpaired` examples that gave no pair (equal or empty answers), which
    count as never resolved. `bins` are of equal width, 0.01 where all values are above 0.5.
    """

    num: int
    num_unpaired: int
    median: float
    rounds: tuple[Round, ...]
    bins: tuple[Bin, ...]
    thresholds: tuple[Threshold, ...]

    @property
    def num_examples(self) -> int:
        """Answers, and examples without one."""
        return self.num + self.num_unpaired

    @property
    def num_similar(self) -> int:
        """Answers that were kept although they are not below their threshold."""
        return self.num - sum(one.num_resolved for one in self.rounds)


@dataclass(frozen=True, slots=True)
class Made:
    """Rejected answers that notes say how they were made. `num_truncated` met a token limit."""

    num: int
    num_truncated: int
    views: tuple[Named, ...]
    guidances: tuple[Named, ...]
    written: Shares | None  # characters that the model wrote
    similarities: Similarities | None


class ShareCounts:
    """Counts shares."""

    def __init__(self) -> None:
        self.num, self.total, self.bins = 0, 0.0, Counter[int]()

    def add(self, part: int, *, of: int) -> None:
        """Count `part` of `of`, which may be 0 of 0."""
        self.num += 1
        self.total += part / max(1, of)
        self.bins[min(SHARE_BINS - 1, part * SHARE_BINS // max(1, of))] += 1

    def done(self) -> Shares | None:
        """What it comes to; None of nothing."""
        bins = [Bin(at / SHARE_BINS, (at + 1) / SHARE_BINS, self.bins[at]) for at in range(SHARE_BINS)]
        return Shares(self.num, self.total / self.num, tuple(bins)) if self.num else None


class LengthCounts:
    """Counts answers by their number of words."""

    def __init__(self) -> None:
        self.lengths = Counter[int]()

    def add(self, num_words: int) -> None:
        """Count an answer."""
        self.lengths[num_words] += 1

    def done(self) -> Words | None:
        """What it comes to; None of nothing."""
        num = self.lengths.total()
        total = sum(length * times for length, times in self.lengths.items())
        return Words(num, total / num, _median(self.lengths)) if num else None


class MadeCounts:
    """Counts answers that were made."""

    def __init__(self) -> None:
        self.num = self.num_truncated = 0
        self.views, self.guidances, self.written = Counter[str](), Counter[str](), ShareCounts()
        self.rounds: dict[int, Counter[int]] = {}  # similarities in 1/TICKS, by round
        self.num_free, self.num_resolved = Counter[int](), Counter[int]()
        self.thresholds = Counter[tuple[str, float]]()

    def add(self, told: Told) -> None:
        """Count an answer."""
        self.num += 1
        self.num_truncated += told.truncated
        if "kind" in told.view:
            tally(self.views, str(told.view["kind"]))
        if told.guidance:
            tally(self.guidances, told.guidance)
        if told.written is not None:
            self.written.add(sum(end - start for start, end in told.written), of=told.num_characters)
        if told.similarity is not None and told.eps is not None:
            self.rounds.setdefault(told.round, Counter())[round(told.similarity * TICKS)] += 1
            self.num_free[told.round] += not told.guided
            self.num_resolved[told.round] += told.similarity < told.eps
            tally(self.thresholds, (told.encoder, told.eps), others=(OTHERS, told.eps))

    def done(self, *, num_unpaired: int) -> Made | None:
        """What it comes to; None of nothing. `num_unpaired` examples gave no pair."""
        if not self.num:
            return None
        similarities = self._similarities(num_unpaired=num_unpaired) if self.rounds else None
        return Made(
            self.num, self.num_truncated, named(self.views), named(self.guidances), self.written.done(), similarities
        )

    def _similarities(self, *, num_unpaired: int) -> Similarities:
        every = sum(self.rounds.values(), Counter[int]())
        rounds, resolved = [], 0
        for number in range(1, max(self.rounds) + 1):
            values = self.rounds.get(number, Counter())
            resolved += self.num_resolved[number]
            share = resolved / (every.total() + num_unpaired)
            counts = values.total(), self.num_free[number], self.num_resolved[number]
            rounds.append(Round(number, *counts, share, _median(values) / TICKS if values else None))
        thresholds = tuple(Threshold(*key, num) for key, num in self.thresholds.most_common())
        return Similarities(
            every.total(), num_unpaired, _median(every) / TICKS, tuple(rounds), tuple(_bins(every)), thresholds
        )


def _bins(values: Counter[int]) -> Iterator[Bin]:
    """Equal bins from the first used one up to similarity 1."""
    lowest = min(values)
    width = next((width for low, width in _WIDTHS if lowest >= low * TICKS), _WIDTHS[-1][1])
    first, last = lowest // width, TICKS // width - 1
    counts: Counter[int] = Counter()
    for value, num in values.items():
        counts[min(last, value // width)] += num
    for at in range(min(first, last), last + 1):
        yield Bin(at * width / TICKS, (at + 1) * width / TICKS, counts[at])


def _median(counts: Counter[int]) -> float:
    """The middle value, or the mean of the two middle ones."""
    num, seen, middle = counts.total(), 0, []
    for value in sorted(counts):
        middle += [value] * sum(seen <= at < seen + counts[value] for at in ((num - 1) // 2, num // 2))
        seen += counts[value]
    return sum(middle) / 2


def tally(counter: Counter[Any], name: Any, *, others: Any = OTHERS) -> None:
    """Count `name`; once there are 40 different ones, new ones go under `others`."""
    counter[name if name in counter or len(counter) < _MAX_NAMES else others] += 1


def named(counter: Counter[str]) -> tuple[Named, ...]:
    """What was counted, the most frequent first."""
    return tuple(Named(*one) for one in counter.most_common())
