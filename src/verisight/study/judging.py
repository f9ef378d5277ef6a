"""How far an annotator can be trusted: asked about pairs whose better answer is known (the paper's table 10)."""

from __future__ import annotations

import hashlib
import json
import re
import time
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, takewhile
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from verisight.data.files import append_jsonl, read_json, read_jsonl, write_json, write_jsonl
from verisight.data.images import image_hash
from verisight.evaluate.stats import Counts, Measure, bootstrap_statistic, ratio_measure, summarise
from verisight.judges.orders import combined, swapped, turned
from verisight.judges.vlm import NO_REPLY
from verisight.progress import Advance
from verisight.types import Annotator, Comparison, Pair, UserError, Verdict

_PLACES = ("first", "second", "tie")


@dataclass(frozen=True, slots=True)
class JudgeCheck:
    """What a check found.

    `metrics`: name -> {value, low, high, num} (see `measures`). `rows`: one a pair, as in the file. Seconds are wall
    time over questions asked; a cached answer counts as fast as it came.
    """

    name: str
    metrics: dict[str, dict[str, Any]]
    rows: list[dict[str, Any]]
    seconds_per_question: float


def sample_pairs(pairs: Iterable[Pair], *, num: int, seed: int) -> tuple[list[Pair], int]:
    """At most `num` pairs drawn evenly without replacement, in file order, and how many cannot be compared.

    Those have no rejected answer, or two equal ones. Memory holds no more than the sample (Vitter 1985, algorithm R).

    Raises:
        UserError: no pair can be compared.
    """
    rng = np.random.default_rng(seed)
    kept: list[tuple[int, Pair]] = []
    num_seen = num_left_out = 0
    for pair in pairs:
        if not pair.rejected or pair.rejected[0].text.strip() == pair.chosen.text.strip():
            num_left_out += 1
            continue
        at = num_seen if num_seen < num else int(rng.integers(num_seen + 1))
        if at < num:
            kept[at : at + 1] = [(num_seen, pair)]
        num_seen += 1
    if not kept:
        raise UserError(f"no pair to compare: {num_left_out} have no rejected answer, or one equal to the chosen")
    return [pair for _, pair in sorted(kept, key=lambda one: one[0])], num_left_out


def check(
    annotator: Annotator, pairs: Sequence[Pair], *, folder: Path, both_orders: bool = True, seed: int = 0,
    batch_size: int = 16, advance: Advance = lambda amount=1, note="": None,
) -> JudgeCheck:  # fmt: skip
    """Ask an annotator which answer of every pair is better, the first one shown drawn by a coin.

    With `both_orders` each pair is asked a second time with its answers swapped. Of several rejected answers the
    first is compared. Rows go to `folder`/<name>.jsonl as they come; a check that was killed continues there, or
    before the first pair that got no reply. `advance` gets pairs.

    Raises:
        UserError: the rows in `folder` are of other pairs or settings, or what the annotator raises.
    """
    path = folder / f"{_slug(annotator.name)}.jsonl"
    comparisons = [_comparison(pair, number, seed=seed) for number, pair in enumerate(pairs)]
    rows = _resume(path, annotator.name, comparisons, both_orders=both_orders)
    advance(len(rows))
    waiting = list(zip(pairs, comparisons, strict=True))[len(rows) :]
    for begin in range(0, len(waiting), batch_size):
        some = waiting[begin : begin + batch_size]
        asked = [comparison for _, (comparison, _) in some]
        start = time.monotonic()
        said = annotator.compare([*asked, *map(swapped, asked)] if both_orders else asked)
        seconds = (time.monotonic() - start) / len(said)
        for at, (pair, (comparison, chosen_first)) in enumerate(some):
            verdicts = [said[at], said[len(some) + at]] if both_orders else [said[at]]
            rows.append(
                {
                    "uid": comparison.uid,
                    "cluster": pair.prompt.split_group or pair.prompt.uid,
                    "chosen": "first" if chosen_first else "second",
                    "asked": [{"winner": v.winner, "reason": v.reason, "raw": v.raw} for v in verdicts],
                    "seconds": round(seconds, 4),
                }
            )
            append_jsonl(path, rows[-1])
        advance(len(some))
    clusters = [row["cluster"] for row in rows]
    spent = float(np.mean([row["seconds"] for row in rows]))
    return JudgeCheck(annotator.name, summarise(measures(rows), clusters, seed=seed), rows, spent)


def measures(rows: Sequence[dict[str, Any]]) -> dict[str, Measure]:
    """The metrics of a check before they are summed.

    accuracy: questions in which the chosen answer won / those with a winner; accuracy_all: the same / all questions,
    a tie counting half and an unparsable verdict as wrong; tie_fraction, unparsable_fraction: of all questions;
    first_fraction: the answer shown first won / those with a winner, 0.5 without position bias. Asked in both orders
    also inconsistent_fraction: pairs whose two verdicts differ / those with two; and accuracy_agreed: pairs whose
    chosen answer won in both orders / pairs with the same winner in both.
    """
    asked = [[_about_chosen(row, at) for at in range(len(row["asked"]))] for row in rows]

    def column(*winners: str) -> list[float]:
        return [float(sum(one in winners for one in some)) for some in asked]

    every = [float(len(some)) for some in asked]
    decided = column("chosen", "rejected")
    half = [right + tie / 2 for right, tie in zip(column("chosen"), column("tie"), strict=True)]
    shown_first = [float(sum(said["winner"] == "first" for said in row["asked"])) for row in rows]
    found = {
        "accuracy": ratio_measure(column("chosen"), decided, better="higher"),
        "accuracy_all": ratio_measure(half, every, better="higher"),
        "tie_fraction": ratio_measure(column("tie"), every, better="neutral"),
        "unparsable_fraction": ratio_measure(column("unparsable"), every, better="lower"),
        "first_fraction": ratio_measure(shown_first, decided, better="neutral"),
    }
    if asked and len(asked[0]) == 2:
        read = ["unparsable" not in some for some in asked]
        differ = [float(ok and some[0] != some[1]) for ok, some in zip(read, asked, strict=True)]
        agreed = [float(some[0] == some[1] and some[0] in ("chosen", "rejected")) for some in asked]
        right = [float(some == ["chosen", "chosen"]) for some in asked]
        found["inconsistent_fraction"] = ratio_measure(differ, [float(ok) for ok in read], better="lower")
        found["accuracy_agreed"] = ratio_measure(right, agreed, better="higher")
    return found


def agreement(checks: Sequence[JudgeCheck], *, seed: int = 0) -> list[dict[str, Any]]:
    """Cohen's kappa of every two annotators over the pairs on which both gave a verdict.

    kappa = (p_o - p_e) / (1 - p_e) (Cohen 1960), over the labels first, second, tie of the order that the coin drew;
    of two orders the verdict is what `judges.orders.combined` makes of them. Undefined (None) where p_e is 1.
    agreed_fraction is p_o.
    """
    return [_agreement(a, b, seed=seed) for a, b in combinations(checks, 2)]


def _agreement(a: JudgeCheck, b: JudgeCheck, *, seed: int) -> dict[str, Any]:
    assert [row["uid"] for row in a.rows] == [row["uid"] for row in b.rows], "both were asked about the same pairs"
    tables, clusters = [], []
    for one, other in zip(a.rows, b.rows, strict=True):
        places = _place(one), _place(other)
        if "unparsable" not in places:
            table = np.zeros((3, 3))
            table[_PLACES.index(places[0]), _PLACES.index(places[1])] = 1
            tables.append(table.ravel())
            clusters.append(one["cluster"])
    told = {"a": a.name, "b": b.name}
    if not tables:
        nothing = {"value": None, "low": None, "high": None, "num": 0}
        return told | {"kappa": nothing, "agreed_fraction": nothing}
    counts = np.array(tables)
    kappas = bootstrap_statistic(counts, kappa, clusters, seed=seed, fraction=False)
    same = bootstrap_statistic(counts, _observed, clusters, seed=seed)
    return told | {"kappa": kappas._asdict(), "agreed_fraction": same._asdict()}


def kappa(sums: Counts) -> Counts:
    """Cohen's kappa of contingency tables (n, 9), rows the first annotator's labels: (n,), NaN where p_e is 1."""
    tables = sums.reshape(-1, 3, 3)
    num = tables.sum(axis=(1, 2))
    by_chance = (tables.sum(axis=2) * tables.sum(axis=1)).sum(axis=1) / np.maximum(num, 1) ** 2
    left = 1 - by_chance
    return np.divide(_observed(sums) - by_chance, left, out=np.full(len(tables), np.nan), where=left > 1e-12)


def _observed(sums: Counts) -> Counts:
    tables = sums.reshape(-1, 3, 3)
    return np.trace(tables, axis1=1, axis2=2) / np.maximum(tables.sum(axis=(1, 2)), 1)


def write_summary(folder: Path, checks: Sequence[JudgeCheck], *, facts: dict[str, Any], seed: int = 0) -> Path:
    """Write `folder`/summary.json: `facts` about the data, what every annotator is worth, and how far they agree."""
    annotators = {
        one.name: {
            "metrics": one.metrics, "num_pairs": len(one.rows), "seconds_per_question": one.seconds_per_question,
            "rows": f"{_slug(one.name)}.jsonl",
        }
        for one in checks
    }  # fmt: skip
    write_json(folder / "summary.json", facts | {"annotators": annotators, "agreement": agreement(checks, seed=seed)})
    return folder / "summary.json"


def _comparison(pair: Pair, number: int, *, seed: int) -> tuple[Comparison, bool]:
    """The two answers in the order that a coin gives them, and whether the chosen one is first."""
    uid = pair.prompt.uid
    chosen_first = bool(np.random.default_rng([seed, number, zlib.crc32(uid.encode())]).random() < 0.5)
    chosen, rejected = pair.chosen.text, pair.rejected[0].text
    texts = (chosen, rejected) if chosen_first else (rejected, chosen)
    return Comparison(uid, pair.prompt, *texts), chosen_first


def _resume(
    path: Path, name: str, comparisons: Sequence[tuple[Comparison, bool]], *, both_orders: bool
) -> list[dict[str, Any]]:
    """Rows of an earlier call, checked to be of the same questions; notes what they are of."""
    digest = hashlib.sha256()
    for one, _ in comparisons:
        pictures = [image_hash(ref) for ref in one.prompt.images]
        turns = [(turn.role, turn.text) for turn in one.prompt.history]
        facts = [one.uid, one.prompt.text, turns, pictures, one.first, one.second]
        digest.update(json.dumps(facts).encode())
    settings = {"annotator": name, "both_orders": both_orders, "questions": digest.hexdigest()}
    noted = path.with_suffix(".json")
    rows = list(read_jsonl(path)) if path.exists() else []
    if rows and (not noted.exists() or read_json(noted) != settings):
        raise UserError(
            f"{path}: holds {len(rows)} verdicts on other pairs, orders or another annotator of that name; accepted: "
            "the settings it began with, or a new output folder"
        )
    write_json(noted, settings)
    kept = list(takewhile(lambda row: not any(said["reason"].startswith(NO_REPLY) for said in row["asked"]), rows))
    if len(kept) < len(rows):
        write_jsonl(path, kept)
    return kept


def _about_chosen(row: dict[str, Any], at: int) -> str:
    """Verdict number `at`, said of the chosen answer: chosen, rejected, tie or unparsable."""
    winner = _verdicts(row)[at].winner
    return winner if winner in ("tie", "unparsable") else "chosen" if winner == row["chosen"] else "rejected"


def _place(row: dict[str, Any]) -> str:
    """The pair's verdict in the order that the coin drew."""
    verdicts = _verdicts(row)
    return combined(*verdicts).winner if len(verdicts) == 2 else verdicts[0].winner


def _verdicts(row: dict[str, Any]) -> Sequence[Verdict]:
    """The verdicts, all said of the order that the coin drew."""
    winners = [cast("Literal['first', 'second', 'tie', 'unparsable']", said["winner"]) for said in row["asked"]]
    return [turned(Verdict(winner)) if at else Verdict(winner) for at, winner in enumerate(winners)]


def _slug(name: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.")[:60] or "annotator"
    return f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
