"""What a file of pairs holds, counted in one pass: when negatives were resolved, how alike and how edited they are."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from verisight.data.files import read_jsonl
from verisight.data.readers import open_data
from verisight.data.segments import changed_words
from verisight.types import Pair, UserError

BINS = 20  # of similarities and shares, over 0 to 1


@dataclass(slots=True)
class Mean:
    """A running mean."""

    total: float = 0.0
    num: int = 0

    def add(self, value: float) -> None:
        """Count a value in."""
        self.total += value
        self.num += 1

    @property
    def value(self) -> float:
        """The mean; 0 of nothing."""
        return self.total / self.num if self.num else 0.0


@dataclass(slots=True)
class Facts:
    """Counts over the pairs of one file. Shares are of characters of a rejected answer, made ones if there are any.

    `rounds`: (round, resolved) -> pairs, resolved meaning below the threshold. `similarities` and `edits`: pairs in
    each of BINS bins over 0 to 1. `edited`: what differs from the chosen answer; `written`: what the model wrote.
    `sample`: pairs drawn at random, in the file's order.
    """

    file: Path
    num: int = 0
    num_bad: int = 0
    several: int = 0
    truncated: int = 0
    made: int = 0
    origins: Counter[str] = field(default_factory=Counter)
    views: Counter[str] = field(default_factory=Counter)
    guidances: Counter[str] = field(default_factory=Counter)
    checks: Counter[tuple[str, float]] = field(default_factory=Counter)
    rounds: Counter[tuple[int, bool]] = field(default_factory=Counter)
    similarities: Counter[int] = field(default_factory=Counter)
    edits: Counter[int] = field(default_factory=Counter)
    edited: Mean = field(default_factory=Mean)
    written: Mean = field(default_factory=Mean)
    chosen_words: Mean = field(default_factory=Mean)
    rejected_words: Mean = field(default_factory=Mean)
    left_out: Counter[str] = field(default_factory=Counter)
    sample: list[Pair] = field(default_factory=list)

    def resolved(self) -> list[tuple[int, int, float]]:
        """(round, pairs taken in it, share of all measured ones that are below the threshold after it)."""
        total, done, rows = sum(self.rounds.values()), 0, []
        for number in range(1, max((one for one, _ in self.rounds), default=0) + 1):
            done += self.rounds[number, True]
            rows.append((number, self.rounds[number, True] + self.rounds[number, False], done / total))
        return rows


def collect_facts(file: Path, *, num: int, seed: int) -> Facts:
    """Read a pairs file once. `num` pairs are kept to look at, drawn by `seed`, each with the same probability.

    Raises:
        UserError: no pairs file, or one without a pair.
    """
    facts, rng = Facts(file), random.Random(seed)
    kept: list[tuple[int, Pair]] = []
    for outcome in open_data(file, kind="pairs", check_images=False):
        facts.num_bad += len(outcome.bad)
        for pair in outcome.pairs:
            _count(facts, pair)
            at = facts.num - 1 if len(kept) < num else rng.randrange(facts.num)
            if at < num:
                kept[at : at + 1] = [(facts.num, pair)]
    if not facts.num:
        raise UserError(f"{file}: holds no pair that can be read; accepted: what `verisight pairs` wrote")
    facts.sample = [pair for _, pair in sorted(kept, key=lambda entry: entry[0])]
    suffix = file.name.removeprefix("pairs").removesuffix(".parquet")
    for stem in ("bad_rows", "equal_pairs"):
        log = file.with_name(f"{stem}{suffix}.jsonl")
        if log.exists():
            facts.left_out.update(str(row["reason"]) for row in read_jsonl(log))
    return facts


def made_notes(pair: Pair) -> dict[str, Any]:
    """What the notes say of a rejected answer that was made: the last one of averaged pairs."""
    return pair.notes.get("added", pair.notes)


def _count(facts: Facts, pair: Pair) -> None:
    facts.num += 1
    facts.origins[pair.origin] += 1
    facts.chosen_words.add(len(pair.chosen.text.split()))
    if not pair.rejected:
        return
    facts.several += len(pair.rejected) > 1
    text, notes = pair.rejected[-1].text, made_notes(pair)
    facts.rejected_words.add(len(text.split()))
    share = sum(end - start for start, end in changed_words(pair.chosen.text, text).rejected) / max(1, len(text))
    facts.edited.add(share)
    facts.edits[_bin(share)] += 1
    if "guidance" not in notes:
        return
    facts.made += 1
    facts.views[str(notes.get("view", {}).get("kind"))] += 1
    facts.guidances[str(notes["guidance"])] += 1
    facts.truncated += bool(notes.get("truncated"))
    facts.written.add(sum(end - start for start, end in notes.get("written", ())) / max(1, len(text)))
    similarity = notes.get("similarity")
    if similarity is not None and "eps" in notes:
        facts.checks[str(notes["encoder"]), float(notes["eps"])] += 1
        facts.rounds[int(notes["round"]), similarity < notes["eps"]] += 1
        facts.similarities[_bin(similarity)] += 1


def _bin(share: float) -> int:
    return min(BINS - 1, max(0, int(share * BINS)))


def summary_lines(facts: Facts) -> Iterator[str]:
    """The facts in words, for a terminal."""
    yield f"{facts.num:,} pairs: {_counted(facts.origins)}"
    if facts.left_out:
        yield f"left out: {_counted(facts.left_out)}"
    if facts.rounds:
        told = ", ".join(f"{share:.1%} after round {number}" for number, _, share in facts.resolved())
        (encoder, eps), _ = facts.checks.most_common(1)[0]
        yield f"below similarity {eps:g} ({encoder}): {told}"
    if facts.rejected_words.num:
        words = f"{facts.chosen_words.value:.1f} words chosen, {facts.rejected_words.value:.1f} rejected"
        yield f"{words}; {facts.edited.value:.0%} of a rejected answer differs from the chosen one"
    if facts.made:
        cut = f"; {facts.truncated:,} met the token limit" if facts.truncated else ""
        yield f"{facts.written.value:.0%} of a made answer was written by the model{cut}"


def _counted(found: Counter[str]) -> str:
    return ", ".join(f"{name} {num:,}" for name, num in found.most_common())


def pair_files(folder: Path) -> Sequence[Path]:
    """The pairs files of a run folder, that of the recipe's own source first."""
    return sorted(folder.glob("pairs*.parquet"), key=lambda path: (path.name != "pairs.parquet", path.name))
