"""Pairs that repeat or contradict each other, found by hashes: of a pair about 300 bytes are kept, no text."""

from __future__ import annotations

import hashlib
import re
from array import array
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np

from verisight.data.check_facts import SHOWN_ROWS, Finding, Repeats, Splits
from verisight.types import Answer, Pair

MIN_JACCARD = 0.8
BUCKET_CAP = 200  # pairs of one picture that are compared with each other
SKETCH = 64  # the smallest hashes of shingles that are kept; with no more shingles the comparison is exact
_WORD = re.compile(r"\w+")
_ROLES = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9)  # prompt, chosen, rejected
_MIX = np.array([0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xD6E8FEB86659FD93], dtype=np.uint64)
_SPLIT = re.compile(r"(train|test|valid|val|dev|eval)[a-z]*(?=[-_.\d]|$)", re.IGNORECASE)


class Keys(NamedTuple):
    """64-bit hashes of what makes pairs equal: turns of a prompt, the pair in full."""

    prompt: int  # pictures and turns
    pair: int  # and answers


def digest(*parts: str | int) -> int:
    """64 bits of the parts; neither boundaries nor types are confused."""
    joined = "\0".join(part.replace("\0", "\0\0") if isinstance(part, str) else f"\0#{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(joined.encode(errors="surrogatepass"), digest_size=8).digest(), "big")


def whole(answer: Answer) -> str:
    """All turns of an answer."""
    return "\n\n".join([answer.text.strip(), *(turn.text.strip() for turn in answer.follow_up)])


def keys_of(pair: Pair, picture: int) -> Keys:
    """The hashes of a pair whose pictures have the hash `picture` (0: it shows none)."""
    prompt = pair.prompt
    asked = digest(picture, *(turn.text.strip() for turn in prompt.history), prompt.text.strip())
    return Keys(asked, digest(asked, *(whole(answer) for answer in (pair.chosen, *pair.rejected))))


def words_of(text: str) -> list[str]:
    """Runs of letters and digits, in small letters."""
    return _WORD.findall(text.casefold())


class RepeatFinder:
    """Sees pairs one by one and finds the repeats among them. Places are named by file and row."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._names = [file.name for file in files]
        self._numbers = {str(file): number for number, file in enumerate(files)}
        self._splits = [_split_of(file) for file in files]
        self._file, self._row = array("L"), array("Q")
        self._picture, self._prompt, self._pair = array("Q"), array("Q"), array("Q")
        self._sketches, self._ends, self._sizes = array("Q"), array("Q", [0]), array("L")
        self._compared, self._order, self._of = array("Q"), array("b"), array("Q")

    def add(self, pair: Pair, keys: Keys, *, picture: int, file: str, row: int) -> None:
        """One pair; `picture` is the hash of its pictures, 0 where it shows none."""
        number = len(self._row)
        self._file.append(self._numbers[file])
        self._row.append(row)
        self._picture.append(picture)
        self._prompt.append(keys.prompt)
        self._pair.append(keys.pair)
        shingles = _shingles(pair)
        self._sizes.append(len(shingles))
        self._sketches.frombytes(shingles[:SKETCH].tobytes())
        self._ends.append(len(self._sketches))
        chosen = digest(whole(pair.chosen))
        for answer in pair.rejected:
            rejected = digest(whole(answer))
            self._compared.append(digest(keys.prompt, min(chosen, rejected), max(chosen, rejected)))
            self._order.append(chosen < rejected)
            self._of.append(number)

    def place(self, number: int) -> str:
        """Where a pair stands, for people: its row, behind the file's name if there are several."""
        row = self._row[number]
        return str(row) if len(self._names) == 1 else f"{self._names[self._file[number]]}:{row}"

    def repeats(self) -> Repeats:
        """What was found so far."""
        near, num_not_compared = self._near()
        return Repeats(
            self._exact(), near, self._same_prompt(), self._conflicts(), MIN_JACCARD, BUCKET_CAP, num_not_compared
        )

    def splits(self) -> Splits | None:
        """Pictures in files of several splits; None where the files' names tell of no two."""
        names = sorted(set(self._splits) - {""})
        if len(names) < 2:
            return None
        found = [
            group
            for group in _groups(self._picture)
            if self._picture[group[0]] and len({self._splits[self._file[one]] for one in group} - {""}) > 1
        ]
        sides = []
        for group in found[:SHOWN_ROWS]:
            first = {self._splits[self._file[one]]: one for one in reversed(group)}
            sides.append([one for name, one in first.items() if name])
        return Splits(tuple(names), len(found), sum(map(len, found)), self._named(sides))

    def _exact(self) -> Finding:
        found = list(_groups(self._pair))
        return Finding(sum(len(group) - 1 for group in found), len(found), self._named(found))

    def _same_prompt(self) -> Finding:
        found = [
            group
            for group in _groups(self._prompt)
            if len({self._pair[one] for one in group}) > 1 and not all(self._same_row(group[0], one) for one in group)
        ]
        return Finding(sum(map(len, found)), len(found), self._named(found))

    def _conflicts(self) -> Finding:
        found = [group for group in _groups(self._compared) if len({self._order[one] for one in group}) > 1]
        pairs = [[self._of[one] for one in group] for group in found[:SHOWN_ROWS]]
        return Finding(sum(map(len, found)), len(found), self._named(pairs))

    def _near(self) -> tuple[Finding, int]:
        buckets = np.where(_numbers(self._picture) == 0, _numbers(self._prompt), _numbers(self._picture))
        found: list[list[int]] = []
        num = num_groups = num_left = 0
        for group in _groups(buckets):
            num_left += max(0, len(group) - BUCKET_CAP)
            similar = self._similar(group[:BUCKET_CAP])
            num += len(similar)
            num_groups += bool(similar)
            found += similar[: SHOWN_ROWS - len(found)]
        return Finding(num, num_groups, self._named(found)), num_left

    def _similar(self, group: Sequence[int]) -> list[list[int]]:
        """Pairs of the bucket and the first one before that they resemble; copies and pairs of one row do not count."""
        sketches = {one: frozenset(self._sketches[self._ends[one] : self._ends[one + 1]]) for one in group}
        found: dict[int, int] = {}
        copies = {self._pair[one]: one for one in reversed(group)}
        for first, second in combinations(group, 2):
            if second in found or copies[self._pair[second]] != second or self._same_row(first, second):
                continue
            if self._jaccard(first, second, sketches) >= MIN_JACCARD:
                found[second] = first
        return [[first, second] for second, first in sorted(found.items())]

    def _same_row(self, first: int, second: int) -> bool:
        return (self._file[first], self._row[first]) == (self._file[second], self._row[second])

    def _jaccard(self, first: int, second: int, sketches: dict[int, frozenset[int]]) -> float:
        """Of the shingles of two pairs; estimated from the smallest hashes of both (bottom-k, Broder 1997)."""
        sizes = self._sizes[first], self._sizes[second]
        if min(sizes) < MIN_JACCARD * max(sizes):
            return 0.0
        one, other = sketches[first], sketches[second]
        common = one & other
        if len(common) < 0.5 * min(len(one), len(other)):  # far from MIN_JACCARD: no need to sort
            return 0.0
        smallest = sorted(one | other)
        if max(sizes) > SKETCH:
            smallest = smallest[:SKETCH]
        return len(common.intersection(smallest)) / max(1, len(smallest))

    def _named(self, groups: Sequence[Sequence[int]]) -> tuple[tuple[str, ...], ...]:
        ordered = sorted((sorted(group) for group in groups), key=lambda group: group[0])
        placed = (dict.fromkeys(map(self.place, group)) for group in ordered[:SHOWN_ROWS])
        return tuple(tuple(places)[:SHOWN_ROWS] for places in placed)


def _split_of(file: Path) -> str:
    """The split that a file's name begins with; valid, validation and val are one."""
    found = _SPLIT.match(file.name)
    return "" if found is None else {"valid": "val"}.get(found[1].lower(), found[1].lower())


def _numbers(hashes: array[int]) -> np.ndarray:
    return np.frombuffer(hashes, dtype=np.uint64) if hashes else np.zeros(0, dtype=np.uint64)


def _groups(hashes: array[int] | np.ndarray) -> Iterator[list[int]]:
    """Indices of equal hashes, where there are at least two, each list in order."""
    values = hashes if isinstance(hashes, np.ndarray) else _numbers(hashes)
    order = np.argsort(values, kind="stable")
    edges = np.flatnonzero(np.diff(values[order])) + 1
    starts, ends = np.concatenate([[0], edges]), np.concatenate([edges, [len(order)]])
    for at in np.flatnonzero(ends - starts > 1):
        yield order[starts[at] : ends[at]].tolist()


@lru_cache(maxsize=2**16)
def _word_hash(word: str) -> int:
    return digest(word)


def _shingles(pair: Pair) -> np.ndarray:
    """Hashes of all runs of three words, sorted, none twice; those of prompt, chosen and rejected never the same."""
    asked = " ".join([*(turn.text for turn in pair.prompt.history), pair.prompt.text])
    texts = (asked, whole(pair.chosen), "\n\n".join(whole(answer) for answer in pair.rejected))
    parts = []
    for text, role in zip(texts, _ROLES, strict=True):
        words = np.array([_word_hash(word) for word in words_of(text)] or [0], dtype=np.uint64)
        if len(words) < 3:
            words = np.pad(words, (0, 3 - len(words)))
        mixed = words[:-2] * _MIX[0] + words[1:-1] * _MIX[1] + words[2:] * _MIX[2] + np.uint64(role)
        mixed ^= mixed >> np.uint64(29)
        parts.append(mixed * _MIX[1])
    return np.unique(np.concatenate(parts))
