"""What a study found, ready to be shown: plain values, every number with its interval. Reports only read this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from verisight.evaluate.stats import Direction

Verdict = Literal["better", "worse", "higher", "lower", "can't tell", "not measured"]
Outcome = Literal["holds", "fails", "can't tell", "not measured"]
Best = Literal["best", "second", ""]


@dataclass(frozen=True, slots=True)
class Column:
    """A metric of a table. `key`: benchmark/metric; `percent`: a fraction, shown in percent, differences in points."""

    key: str
    label: str
    meaning: str
    better: Direction
    percent: bool = True


@dataclass(frozen=True, slots=True)
class Effect:
    """An arm less another one on the same items: mean over seeds, 95 % interval over seeds and items.

    `p_holm` is corrected over all effects of the table (same other arm); `verdict` is no stronger than both.
    """

    value: float | None
    low: float | None
    high: float | None
    p_holm: float | None
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Cell:
    """One metric of one arm: mean over seeds with its 95 % interval, each seed's value, and how it compares.

    `best`: no other arm of the table is better; "second": none but the best. Only where the difference to the next
    one is told from 0; controls take part.
    """

    value: float | None
    low: float | None
    high: float | None
    by_seed: tuple[float | None, ...]
    to_base: Effect | None = None
    to_control: Effect | None = None
    best: Best = ""


@dataclass(frozen=True, slots=True)
class ArmRow:
    """An arm: what it is, its cells in the order of the columns, and the paper's figures for it (LLaVA-1.6-7B).

    `key` is what recipes call it; `paper`: column label of the paper's table -> figure as printed there.
    """

    key: str
    label: str
    about: str
    control: bool
    seeds: tuple[int, ...]
    cells: tuple[Cell, ...]
    paper: tuple[tuple[str, float], ...] = ()
    cautions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Curve:
    """A quantity over the training, mean over seeds; `low` and `high` are the least and largest seed."""

    arm: str
    quantity: str
    unit: str
    steps: tuple[int, ...]
    values: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class SweepPoint:
    """One arm of a sweep: where it stands on the axis, and the metric there."""

    x: float
    arm: str
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Sweep:
    """A metric over a setting that was varied (the paper's figure 7): a line a series."""

    title: str
    x_label: str
    log_x: bool
    column: Column
    series: tuple[tuple[str, tuple[SweepPoint, ...]], ...]


@dataclass(frozen=True, slots=True)
class Rounds:
    """Share (0..1) of answers that differ enough after round 1, 2, ... (the paper's figure 10)."""

    label: str
    shares: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """One comparison that a claim stands on. `expects` says in words what the effect has to be."""

    text: str
    expects: str
    column: Column
    effect: Effect
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim of the paper as a test: its outcome follows from its parts."""

    key: str
    text: str
    outcome: Outcome
    parts: tuple[Part, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Mention:
    """Characters `start` to `end` of an answer name an object; `hallucinated`: it isn't in the picture."""

    start: int
    end: int
    hallucinated: bool


@dataclass(frozen=True, slots=True)
class Said:
    """One arm's answer to a test picture (of its first seed)."""

    arm: str
    text: str
    mentions: tuple[Mention, ...]


@dataclass(frozen=True, slots=True)
class AnswerSample:
    """A test picture, what is in it, and every arm's answer, base first. `picture` is a key of `Findings.pictures`."""

    uid: str
    picture: str
    question: str
    objects: tuple[str, ...]
    answers: tuple[Said, ...]


@dataclass(frozen=True, slots=True)
class PairSample:
    """A training pair of an arm. `written`: characters of the rejected answer that the model itself wrote."""

    arm: str
    uid: str
    kind: str
    picture: str
    question: str
    chosen: str
    rejected: str
    written: tuple[tuple[int, int], ...]
    notes: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Fact:
    """A run that numbers come from: its files' folder, key, seconds by part, versions."""

    arm: str
    seed: int
    folder: str
    seconds: tuple[tuple[str, float], ...]
    versions: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything a report of a study shows. Pictures: key -> PNG or JPEG bytes."""

    name: str
    title: str
    about: str
    columns: tuple[Column, ...]
    rows: tuple[ArmRow, ...]
    base: str
    control: str
    budget: tuple[tuple[str, str], ...]
    varies: tuple[str, ...]
    claims: tuple[Claim, ...]
    curves: tuple[Curve, ...]
    sweeps: tuple[Sweep, ...]
    rounds: tuple[Rounds, ...]
    answers: tuple[AnswerSample, ...]
    pairs: tuple[PairSample, ...]
    pictures: dict[str, bytes]
    facts: tuple[Fact, ...]
    notes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    scatter: tuple[str, str] | None = None
    """Columns (keys) of the scatter: what is made up, what is found."""
