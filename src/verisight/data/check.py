"""A data set looked at without a model: what is in it, what is broken, repeated, contradictory, biased or leaked."""

from __future__ import annotations

import heapq
from array import array
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from math import log, sqrt
from typing import NamedTuple

from verisight.data import check_facts as facts
from verisight.data.check_facts import Facts, counts, quantile, wilson
from verisight.data.check_leaks import Against, LeakFinder, Trace, Tracer, group_of, picture_key
from verisight.data.check_repeats import RepeatFinder, digest, keys_of, words_of
from verisight.data.encoded import ImageError
from verisight.data.outcome import Outcome
from verisight.data.readers import Reading
from verisight.types import Answer, BadRow, Pair

EQUAL = "chosen equals rejected"  # the reason by which readers name it
NUM_WORDS = 10
_MAX_WORDS = 100_000  # words that are counted; those that come up first
_MIN_Z = 3.0  # standard errors from which on a word is worth telling


class Sample(NamedTuple):
    """A pair to look at, and where it stands."""

    place: str
    pair: Pair


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found, and some pairs drawn at random, in their order."""

    facts: Facts
    samples: tuple[Sample, ...]


def check(
    reading: Reading,
    *,
    against: Sequence[Against] = (),
    limit: int | None = None,
    max_bad: float = 0.0,
    num_samples: int = 0,
    seed: int = 0,
    advance: Callable[[int], object] = lambda amount: None,
) -> Checked:
    """Walk once over the data set (its first `limit` rows). Memory grows by about 300 bytes a pair.

    Args:
        reading: the opened data set; where it decodes pictures, look-alikes are searched too.
        against: other sides that should share no picture with it.
        limit: rows to read; None for all.
        max_bad: share of faulty rows that is accepted, 0..1.
        num_samples: pairs to keep for looking at, drawn by the hash of seed and place.
        seed: of that draw.
        advance: is told of every row.

    Raises:
        UserError: a file breaks off.
    """
    tally = _Tally(reading, against, num_samples=num_samples, seed=seed)
    for outcome in islice(reading, limit):
        tally.add(outcome)
        advance(1)
    return tally.checked(limit=limit, max_bad=max_bad)


class _Reason:
    def __init__(self, fault: bool) -> None:
        self.fault, self.num, self.num_rows = fault, 0, 0
        self.rows: list[str] = []
        self.examples: list[str] = []


class _Tally:
    def __init__(self, reading: Reading, against: Sequence[Against], *, num_samples: int, seed: int) -> None:
        self._reading, self._seed, self._num_samples = reading, seed, num_samples
        self._many = len(reading.files) > 1
        self._tracer = Tracer(decode=reading.check_images and bool(against), hashed=bool(against))
        self._repeats = RepeatFinder(reading.files)
        self._leaks = [LeakFinder(other) for other in against]
        self._rows: Counter[str] = Counter()
        self._reasons: OrderedDict[str, _Reason] = OrderedDict()
        self._told: dict[str, Counter[object]] = {
            name: Counter() for name in ("placeholders", "turns", "pictures", "licenses")
        }
        self._pictures: set[int] = set()
        self._lengths = {"chosen": array("L"), "rejected": array("L")}
        self._bias: Counter[str] = Counter()
        self._by_rule = False
        self._words = _Words()
        self._samples: list[tuple[int, int, Sample]] = []

    def add(self, outcome: Outcome) -> None:
        bad, known = list(outcome.bad), []
        for pair in outcome.pairs:
            try:
                known.append((pair, *self._know(pair)))
            except ImageError as error:  # without decoding, a file is first opened here
                bad.append(BadRow(outcome.file, outcome.row, error.reason, error.detail))
        faulty = any(one.fault for one in bad)
        self._rows["num"] += 1
        self._rows["usable"] += bool(known)
        self._rows["faulty"] += faulty
        self._rows["left_out"] += not faulty and not known
        place = self._place(outcome)
        self._add_reasons(bad, place)
        for index, (pair, picture, traced) in enumerate(known):
            self._add_pair(pair)
            keys = keys_of(pair, picture)
            self._repeats.add(pair, keys, picture=picture, file=outcome.file, row=outcome.row)
            for leak in self._leaks:
                leak.add(keys, traced, place=place)
            self._draw(Sample(place, pair), digest(self._seed, outcome.file, outcome.row, index))

    def _know(self, pair: Pair) -> tuple[int, list[tuple[int, Trace]]]:
        """The hash of the pair's pictures, and what each is known again by where that is asked for."""
        refs = pair.prompt.images
        keys = [self._tracer.key(ref) for ref in refs]
        traced = []
        if self._leaks:
            group = group_of(pair)
            traced = [(key, self._tracer.trace(ref, group=group)) for key, ref in zip(keys, refs, strict=True)]
        self._pictures.update(keys)
        return picture_key(keys), traced

    def _place(self, outcome: Outcome) -> str:
        return f"{outcome.file.rsplit('/', 1)[-1]}:{outcome.row}" if self._many else str(outcome.row)

    def _add_reasons(self, found: Sequence[BadRow], place: str) -> None:
        seen = set()
        for bad in found:
            reason = self._reasons.setdefault(bad.reason, _Reason(bad.fault))
            reason.fault |= bad.fault
            reason.num += 1
            if len(reason.examples) < facts.SHOWN_EXAMPLES:
                reason.examples.append(bad.detail)
            if bad.reason not in seen:
                seen.add(bad.reason)
                reason.num_rows += 1
                if len(reason.rows) < facts.SHOWN_ROWS:
                    reason.rows.append(place)

    def _add_pair(self, pair: Pair) -> None:
        prompt = pair.prompt
        self._rows["pairs"] += 1
        self._rows["supervised"] += not pair.rejected
        self._by_rule |= "rule" in pair.notes
        self._told["placeholders"][pair.notes.get("placeholder", "not told")] += 1
        self._told["turns"][(len(prompt.history) + len(pair.chosen.follow_up)) // 2 + 1] += 1
        self._told["pictures"][len(prompt.images)] += 1
        self._told["licenses"][pair.notes.get("license") or "none given"] += 1
        self._add_lengths(pair)

    def _add_lengths(self, pair: Pair) -> None:
        chosen = _spoken(pair.chosen)
        self._lengths["chosen"].append(len(chosen))
        for answer in pair.rejected:
            rejected = _spoken(answer)
            self._lengths["rejected"].append(len(rejected))
            gap = len(chosen) - len(rejected)
            self._bias["longer" if gap > 0 else "shorter" if gap < 0 else "tie"] += 1
            self._words.add(set(chosen), set(rejected))

    def _draw(self, sample: Sample, key: int) -> None:
        """Keep the samples of the smallest keys: a heap whose top is the largest."""
        entry = (-key, self._rows["pairs"], sample)
        if len(self._samples) < self._num_samples:
            heapq.heappush(self._samples, entry)
        elif self._samples and entry > self._samples[0]:
            heapq.heapreplace(self._samples, entry)

    def checked(self, *, limit: int | None, max_bad: float) -> Checked:
        reading, rows = self._reading, self._rows
        format = reading.format
        taken = facts.Taken(
            path=str(reading.files[0]) if len(reading.files) == 1 else str(reading.files[0].parent),
            files=tuple(map(str, reading.files)), kind=format.name, title=format.title, publisher=format.source,
            license=format.license, seen=reading.seen, images=None if reading.images is None else str(reading.images),
            decoded=reading.check_images, rule=str(reading.rule) if self._by_rule else None, limit=limit,
        )  # fmt: skip
        told = {name: counts(counter.items()) for name, counter in self._told.items()}
        found = Facts(
            taken=taken,
            rows=facts.Rows(
                rows["num"], rows["usable"], rows["faulty"], rows["left_out"], rows["pairs"], rows["supervised"],
                max_bad,
            ),
            reasons=self._told_reasons(),
            num_equal=self._reasons[EQUAL].num if EQUAL in self._reasons else 0,
            placeholders=told["placeholders"], turns=told["turns"], pictures=told["pictures"],
            num_pictures=len(self._pictures), licenses=told["licenses"],
            chosen=_lengths(self._lengths["chosen"]), rejected=_lengths(self._lengths["rejected"]),
            length_bias=self._length_bias(),
            repeats=self._repeats.repeats(),
            splits=self._repeats.splits(),
            leaks=tuple(leak.leak() for leak in self._leaks),
            words=self._words.telling(),
        )  # fmt: skip
        drawn = sorted(self._samples, key=lambda entry: entry[1])
        return Checked(found, tuple(sample for _, _, sample in drawn))

    def _told_reasons(self) -> tuple[facts.Reason, ...]:
        """Faults first, the most frequent in front."""
        ordered = sorted(self._reasons.items(), key=lambda entry: (not entry[1].fault, -entry[1].num, entry[0]))
        return tuple(
            facts.Reason(name, one.fault, one.num, one.num_rows, tuple(one.rows), tuple(one.examples))
            for name, one in ordered
        )

    def _length_bias(self) -> facts.LengthBias | None:
        longer, shorter, ties = (self._bias[name] for name in ("longer", "shorter", "tie"))
        if not longer + shorter:
            return None
        accuracy = (longer + ties / 2) / (longer + shorter + ties)
        return facts.LengthBias(wilson(longer, longer + shorter), ties, accuracy)


class _Words:
    """Counts in how many pairs a word is in one of the answers only."""

    def __init__(self) -> None:
        self._numbers: dict[str, list[int]] = {}

    def add(self, chosen: set[str], rejected: set[str]) -> None:
        for side, words in enumerate((chosen - rejected, rejected - chosen)):
            for word in words:
                found = self._numbers.get(word)
                if found is None:
                    if len(self._numbers) >= _MAX_WORDS:
                        continue
                    found = self._numbers[word] = [0, 0]
                found[side] += 1

    def telling(self) -> tuple[facts.Word, ...]:
        """The words with the clearest preference, those of the smallest chance of being chance first."""
        scored = [(abs(first - second) / sqrt(first + second), word) for word, (first, second) in self._numbers.items()]
        best = heapq.nsmallest(NUM_WORDS, ((-z, word) for z, word in scored if z >= _MIN_Z))
        return tuple(
            facts.Word(word, first, second, log((first + 0.5) / (second + 0.5)))
            for _, word in best
            for first, second in [self._numbers[word]]
        )


def _spoken(answer: Answer) -> list[str]:
    """The words of all the assistant's turns."""
    follow_up = (turn.text for turn in answer.follow_up if turn.role == "assistant")
    return words_of(" ".join([answer.text, *follow_up]))


def _lengths(values: array[int]) -> facts.Lengths | None:
    if not values:
        return None
    ordered = sorted(values)
    mean = sum(ordered) / len(ordered)
    return facts.Lengths(len(ordered), mean, quantile(ordered, 0.5), quantile(ordered, 0.05), quantile(ordered, 0.95))
