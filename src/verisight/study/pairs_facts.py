"""What a file of pairs holds, counted in one pass: when answers were resolved, how alike, how edited they are."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from verisight.data.readers import open_data
from verisight.data.rows import raw_rows
from verisight.data.segments import Spans, changed_words
from verisight.study.pairs_counts import (
    LengthCounts,
    Made,
    MadeCounts,
    Named,
    ShareCounts,
    Shares,
    Similarities,
    Words,
    named,
    tally,
)
from verisight.study.pairs_notes import told_of
from verisight.types import Answer, Pair, UserError

_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"  # a character is a word
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")


class LeftOut(NamedTuple):
    """Rows that gave no pair, as a file beside the pairs lists them."""

    file: str
    reason: str
    num: int


@dataclass(frozen=True, slots=True)
class PairsFacts:
    """Counts over the pairs of one file, and `sample`: pairs drawn at random, in the file's order.

    `num_several` pairs have several rejected answers (each of them counts in `rejected` and `edits`), `num_supervised`
    have none. `edits`: words of both answers that the other one lacks in that place. `num_misfit` answers have notes
    that don't fit them. Parts are None where the file has no such thing.
    """

    file: Path
    num: int
    num_several: int
    num_supervised: int
    num_misfit: int
    origins: tuple[Named, ...]
    annotators: tuple[Named, ...]
    unread: tuple[Named, ...]
    left_out: tuple[LeftOut, ...]
    chosen: Words | None
    rejected: Words | None
    edits: Shares | None
    made: Made | None
    sample: tuple[Pair, ...]


def pair_files(folder: Path) -> list[Path]:
    """The pairs files of a run folder, that of the recipe's own source first."""
    return sorted(folder.glob("pairs*.parquet"), key=lambda path: (path.name != "pairs.parquet", path.name))


def collect_facts(path: Path, *, num: int = 24, seed: int = 0) -> PairsFacts:
    """Read a pairs file once, and what lies beside it about rows that gave no pair.

    Memory grows with `num`, the pairs that are kept to look at: each with the same probability, drawn by `seed`.

    Raises:
        UserError: no pairs file, or none of its rows can be read; a file beside it is malformed.
    """
    counts, rng = _Pairs(), random.Random(seed)
    kept: list[tuple[int, Pair]] = []  # a reservoir
    for outcome in open_data(path, kind="pairs", check_images=False):
        for bad in outcome.bad:
            tally(counts.unread, bad.reason)
        for pair in outcome.pairs:
            counts.add(pair)
            at = counts.num - 1 if len(kept) < num else rng.randrange(counts.num)
            if at < num:
                kept[at : at + 1] = [(counts.num, pair)]
    if not counts.num:
        why = ", ".join(f"{one.name}: {one.num}" for one in named(counts.unread)) or "no rows"
        raise UserError(f"{path}: holds no pair that can be read ({why}); accepted: what `verisight pairs` wrote")
    sample = tuple(pair for _, pair in sorted(kept, key=lambda entry: entry[0]))
    return counts.facts(path, left_out=_left_out(path), sample=sample)


def num_words(text: str, spans: Spans | None = None) -> int:
    """Words of a text, or those of them that a span touches."""
    if spans is None:
        return sum(1 for _ in _WORD.finditer(text))
    return sum(any(a < word.end() and word.start() < b for a, b in spans) for word in _WORD.finditer(text))


def spoken(answer: Answer) -> str:
    """The answer and its further turns as one text."""
    return "".join([answer.text, *(f"\n\n{turn.role.capitalize()}: {turn.text}" for turn in answer.follow_up)])


def _left_out(path: Path) -> list[LeftOut]:
    if not path.name.startswith("pairs"):
        return []
    suffix = path.name.removeprefix("pairs").removesuffix(".parquet")
    names = sorted(one.name for one in path.parent.iterdir() if one.name.endswith(".jsonl"))
    rows = [name for name in names if name.startswith(f"bad_rows{suffix}.") and ".diagnose." not in name]
    told = []
    for name in (*rows, f"equal_pairs{suffix}.jsonl"):
        if name in names:
            reasons: Counter[str] = Counter()
            for raw in raw_rows(path.with_name(name)):
                if not isinstance(raw.value, dict) or "reason" not in raw.value:
                    raise UserError(f"{path.with_name(name)}: row {raw.row}: no `reason`; accepted: rows that have one")
                tally(reasons, str(raw.value["reason"]))
            told += [LeftOut(name, *one) for one in named(reasons)]
    return told


class _Pairs:
    """What grows while a file is read: nothing with its rows."""

    def __init__(self) -> None:
        self.num = self.num_several = self.num_supervised = self.num_misfit = 0
        self.origins, self.annotators, self.unread = Counter[str](), Counter[str](), Counter[str]()
        self.chosen, self.rejected, self.edits, self.made = LengthCounts(), LengthCounts(), ShareCounts(), MadeCounts()

    def add(self, pair: Pair) -> None:
        self.num += 1
        tally(self.origins, pair.origin)
        if isinstance(pair.notes.get("annotator"), str):
            tally(self.annotators, pair.notes["annotator"])
        self.num_several += len(pair.rejected) > 1
        self.num_supervised += not pair.rejected
        chosen = spoken(pair.chosen)
        num_chosen = num_words(chosen)
        self.chosen.add(num_chosen)
        for text in map(spoken, pair.rejected):
            num_rejected, changed = num_words(text), changed_words(chosen, text)
            self.rejected.add(num_rejected)
            num_changed = num_words(chosen, changed.chosen) + num_words(text, changed.rejected)
            self.edits.add(num_changed, of=num_chosen + num_rejected)
        told, num_misfit = told_of(pair)
        self.num_misfit += num_misfit
        for one in told.values():
            self.made.add(one)

    def facts(self, file: Path, *, left_out: Sequence[LeftOut], sample: tuple[Pair, ...]) -> PairsFacts:
        num_unpaired = sum(one.num for one in left_out if one.file.startswith("equal_pairs"))
        return PairsFacts(
            file, self.num, self.num_several, self.num_supervised, self.num_misfit, named(self.origins),
            named(self.annotators), named(self.unread), tuple(left_out), self.chosen.done(), self.rejected.done(),
            self.edits.done(),
            self.made.done(num_unpaired=num_unpaired), sample,
        )  # fmt: skip


def summary_lines(facts: PairsFacts) -> list[str]:
    """The facts in words, for a terminal: a line each on pairs, rounds, similarity, edits and writing."""
    lines = [f"{facts.num:,} pairs: {_listed(facts.origins)}"]
    without = [*facts.unread, *(Named(one.reason, one.num) for one in facts.left_out)]
    if without:
        lines.append(f"left out: {_listed(without)}")
    if facts.num_misfit:
        lines.append(f"notes that don't fit their answers: {facts.num_misfit:,}")
    made = facts.made
    if made and made.similarities:
        alike = made.similarities
        against = ", ".join(f"{one.eps:g} ({one.encoder or 'encoder not named'})" for one in alike.thresholds)
        lines.append(f"resolved: {resolved_in_words(alike)}")
        lines.append(f"similarity: median {alike.median:.2f}, threshold {against}")
    if facts.chosen and facts.rejected and facts.edits:
        lengths = f"{facts.chosen.mean:.1f} words chosen, {facts.rejected.mean:.1f} rejected"
        lines.append(f"edited: {percent(facts.edits.mean)} of the words; length: {lengths}")
    if made and made.written:
        share = percent(made.written.mean)
        lines.append(f"written by the model: {share} of the characters of {made.written.num:,} answers")
    if made and made.num_truncated:
        lines.append(f"cut off at the token limit: {percent(made.num_truncated / made.num)}")
    return lines


def resolved_in_words(alike: Similarities) -> str:
    """The share below the threshold after each round, as in "71 % after round 1, 90 % after 2"."""
    told: list[str] = []
    for one in alike.rounds:
        kind = "unguided round " if one.free else "" if told else "round "
        told.append(f"{percent(one.resolved)} after {kind}{one.number}")
    return ", ".join(told)


def percent(share: float) -> str:
    """A share in percent: whole ones, with a digit more where that would say all or nothing of what isn't."""
    return f"{100 * share:.0f} %" if share in (0, 1) or 0.005 <= share < 0.995 else f"{100 * share:.1f} %"


def _listed(found: Sequence[Named]) -> str:
    return ", ".join(f"{one.num:,} {one.name}" for one in found)
