"""What a check of a data set finds, as plain frozen data: tables, JSON and the HTML page are made of nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any

VERSION = 1  # of the JSON layout
SHOWN_ROWS = 10  # row numbers that a finding names
SHOWN_EXAMPLES = 3  # details that a reason names
_Z95 = 1.959964


@dataclass(frozen=True, slots=True)
class Count:
    """How many pairs are so."""

    name: str
    num: int


@dataclass(frozen=True, slots=True)
class Taken:
    """What the data was taken for, and how it was read."""

    path: str
    files: tuple[str, ...]
    kind: str
    title: str
    publisher: str
    license: str  # as its publisher tags it; "" where there is none
    seen: str
    images: str | None
    decoded: bool  # every picture was decoded; else it only had to exist
    rule: str | None  # by which pairs were made of scores, where the set has scores
    limit: int | None


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows by what they gave. A row is usable if it gave a pair, faulty if anything in it is broken; it can be both."""

    num: int
    num_usable: int
    num_faulty: int
    num_left_out: int  # neither usable nor faulty: a rule gave no pair
    num_pairs: int  # supervised ones included
    num_supervised: int
    max_bad: float

    @property
    def passed(self) -> bool:
        """Whether there is a usable row, and the share of faulty ones is at most `max_bad`."""
        return self.num_usable > 0 and self.num_faulty <= self.max_bad * self.num


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something could not be used. `fault` is False for what a rule leaves out on purpose."""

    reason: str
    fault: bool
    num: int  # pairs, or whole rows
    num_rows: int
    rows: tuple[str, ...]  # the first places
    examples: tuple[str, ...]  # the first details


@dataclass(frozen=True, slots=True)
class Share:
    """A share with its 95 % Wilson interval, all in 0..1."""

    num: int
    total: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Lengths:
    """Words an answer, all its turns together."""

    num: int
    mean: float
    median: float
    low: float  # 5 % are shorter
    high: float  # 5 % are longer


@dataclass(frozen=True, slots=True)
class LengthBias:
    """How often the answer with more words is the chosen one, over pairs whose answers differ in length.

    `rule_accuracy` is what "the longer one wins" gets right, ties counting half.
    """

    longer_chosen: Share
    num_ties: int
    rule_accuracy: float


@dataclass(frozen=True, slots=True)
class Finding:
    """Pairs that repeat or contradict others. `examples` are places that belong together."""

    num: int
    num_groups: int
    examples: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Repeats:
    """Pairs against each other.

    exact: copies beyond the first of the same pictures, turns and answers. near: of the same pictures (without
    pictures: of the same prompt) and nearly the same words as one before; `num_not_compared` pairs stand behind the
    first `bucket_cap` of their picture and were not compared. same_prompt: pairs that share pictures and turns with
    a pair of another row, but not all of them their answers. conflicts: comparisons of which the opposite is there too.
    """

    exact: Finding
    near: Finding
    same_prompt: Finding
    conflicts: Finding
    min_jaccard: float
    bucket_cap: int
    num_not_compared: int


@dataclass(frozen=True, slots=True)
class Shared:
    """Pictures found on the other side too, and how many pairs show them."""

    num_pictures: int
    num_pairs: int
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Leak:
    """What is in another data set or set of pictures too. A picture counts once, for the strongest evidence.

    None where it could not be looked for.
    """

    against: str
    what: str
    num_pictures: int  # of the other side
    num_unusable: int  # rows or pictures of it that could not be compared
    num_pairs: int  # with any shared picture
    same_file: Shared | None
    same_coco: Shared | None
    look_alike: Shared | None
    same_prompts: int | None  # pairs whose pictures and turns are there
    same_pairs: int | None  # pairs that are there with their answers


@dataclass(frozen=True, slots=True)
class Splits:
    """Pictures in files of several splits, and the pairs that show them."""

    names: tuple[str, ...]
    num_pictures: int
    num_pairs: int
    examples: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Word:
    """A word that tells the answers apart: in how many pairs only the chosen, and only the rejected one has it."""

    word: str
    num_chosen_only: int
    num_rejected_only: int
    log_odds: float


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that a check found. Parts are None where the data has no such thing."""

    taken: Taken
    rows: Rows
    reasons: tuple[Reason, ...]
    num_equal: int  # chosen equals rejected; among the reasons
    placeholders: tuple[Count, ...]
    turns: tuple[Count, ...]
    pictures: tuple[Count, ...]  # by how many a pair shows
    num_pictures: int  # different ones
    licenses: tuple[Count, ...]
    chosen: Lengths | None
    rejected: Lengths | None
    length_bias: LengthBias | None
    repeats: Repeats
    splits: Splits | None
    leaks: tuple[Leak, ...]
    words: tuple[Word, ...]


def as_json(facts: Facts) -> dict[str, Any]:
    """Plain JSON: the fields of `Facts`, `version` in front and `passed` among the rows."""
    told = asdict(facts)
    told["rows"]["passed"] = facts.rows.passed
    return {"version": VERSION, **told}


def wilson(num: int, total: int) -> Share:
    """`num` of `total` with the score interval of Wilson (1927); total > 0."""
    share, z2 = num / total, _Z95**2
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = _Z95 * sqrt(share * (1 - share) / total + z2 / (4 * total**2)) / (1 + z2 / total)
    return Share(num, total, share, max(0.0, centre - half), min(1.0, centre + half))


def counts(named: Iterable[tuple[object, int]]) -> tuple[Count, ...]:
    """Counts, the largest first."""
    ordered = sorted(named, key=lambda entry: (-entry[1], str(entry[0])))
    return tuple(Count(str(name), num) for name, num in ordered)


def quantile(ordered: Sequence[int], share: float) -> float:
    """The value below which `share` of the sorted numbers lie, between two of them where it falls there."""
    at = share * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])
