"""Pairs whose rejected answers the policy makes itself (BDHS and kin), once beforehand or at every step."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from verisight.data.files import append_jsonl, read_jsonl
from verisight.data.views import Rows, View
from verisight.models.policy import Policy
from verisight.negatives.bdhs import Hallucinate, Negative
from verisight.sources.offline import Offline
from verisight.types import Answer, BadRow, Pair, UserError

NO_PAIR = "rejected equals chosen, or is empty"


def paired(example: Pair, negative: Negative, *, origin: str) -> Pair | None:
    """The example with its negative as the rejected answer, or None if that is empty or the chosen text."""
    if negative.text.strip() in ("", example.chosen.text.strip()):
        return None
    similarity = None if math.isnan(negative.similarity) else round(negative.similarity, 4)
    notes = example.notes | {"round": negative.round, "guided": negative.guided, "similarity": similarity}
    return Pair(example.prompt, example.chosen, (Answer(negative.text),), (1.0,), origin, notes)


def generate_pairs(
    policy: Policy, examples: Sequence[Pair], hallucinate: Hallucinate, *, origin: str, seed: int, batch_size: int,
    journal: Path, advance: Callable[..., None] = lambda amount=1, note="": None,
) -> tuple[Sequence[Pair], list[BadRow]]:  # fmt: skip
    """One pair for every example, put together when it is asked for.

    Finished batches are kept in `journal`, so a killed call continues there. An answer equal to the chosen one is no
    pair: it is returned among the bad rows.
    """
    negatives = _journalled(journal, examples)
    advance(len(negatives))
    for start in range(len(negatives), len(examples), batch_size):
        batch = examples[start : start + batch_size]
        made = hallucinate(policy, [e.prompt for e in batch], [e.chosen.text for e in batch], seed=seed)
        for example, negative in zip(batch, made, strict=True):
            append_jsonl(journal, {"row": _key(example), "negative": asdict(negative)})
        negatives += made
        guided = sum(n.round == 1 for n in negatives) / len(negatives)
        advance(len(batch), note=f"{guided:.0%} in the first round")
    kept, bad = [], []
    for row, (example, negative) in enumerate(zip(examples, negatives, strict=True)):
        if paired(example, negative, origin=origin) is None:
            bad.append(BadRow(example.prompt.provenance, row, NO_PAIR, negative.text))
        else:
            kept.append(row)
    return _Paired(View(examples, kept), [negatives[row] for row in kept], origin=origin), bad


class _Paired(Rows):
    def __init__(self, examples: Sequence[Pair], negatives: Sequence[Negative], *, origin: str) -> None:
        self._examples, self._negatives, self._origin = examples, negatives, origin

    def __len__(self) -> int:
        return len(self._examples)

    def at(self, number: int) -> Pair:
        made = paired(self._examples[number], self._negatives[number], origin=self._origin)
        assert made is not None, "only negatives that make a pair are kept"
        return made


def _journalled(journal: Path, examples: Sequence[Pair]) -> list[Negative]:
    rows = read_jsonl(journal) if journal.exists() else []
    for index, (row, example) in enumerate(zip(rows, examples, strict=False)):
        if row["row"] != _key(example):
            raise UserError(
                f"{journal}: line {index + 1} was made for another row than {example.prompt.provenance}: the data "
                "changed since this run was killed; accepted: the data it began with, or a new output folder"
            )
    return [Negative(**row["negative"]) for row in rows[: len(examples)]]


def _key(example: Pair) -> str:
    told = f"{example.prompt.uid}\n{example.prompt.text}\n{example.chosen.text}"
    return hashlib.sha256(told.encode()).hexdigest()[:16]


class Generated:
    """Online negatives: every draw lets the current policy hallucinate against the next examples.

    Examples whose negative equals the chosen answer are passed over and counted; more than `retries` draws in a row
    without a single pair are an error.
    """

    def __init__(
        self, examples: Sequence[Pair], hallucinate: Hallucinate, *, origin: str, seed: int, batch_size: int = 16,
        retries: int = 10,
    ) -> None:  # fmt: skip
        self._examples = Offline(examples, seed=seed)
        self._hallucinate = hallucinate
        self._origin = origin
        self._seed = seed
        self._batch_size = batch_size
        self._retries = retries
        self._num_calls = 0
        self.num_equal = 0

    def draw(self, n: int, policy: Policy) -> list[Pair]:
        """The next n pairs, made by `policy` as it is now."""
        drawn: list[Pair] = []
        failures = 0
        while len(drawn) < n:
            batch = self._examples.draw(min(n - len(drawn), self._batch_size))
            made = self._hallucinate(
                policy,
                [e.prompt for e in batch],
                [e.chosen.text for e in batch],
                seed=self._seed * 1_000_003 + self._num_calls,
            )
            self._num_calls += 1
            pairs = [paired(e, negative, origin=self._origin) for e, negative in zip(batch, made, strict=True)]
            kept = [pair for pair in pairs if pair is not None]
            self.num_equal += len(pairs) - len(kept)
            failures = 0 if kept else failures + 1
            if failures > self._retries:
                raise RuntimeError(f"{failures} draws in a row gave only negatives equal to their chosen answers")
            drawn += kept
        return drawn

    def state_dict(self) -> dict[str, Any]:
        """Position in the examples and in the random stream."""
        return {**self._examples.state_dict(), "num_calls": self._num_calls, "num_equal": self.num_equal}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where the state was taken."""
        self._examples.load_state_dict(state)
        self._num_calls, self.num_equal = int(state["num_calls"]), int(state["num_equal"])
