"""Pairs whose rejected answers the policy makes itself (BDHS and kin), once beforehand or at every step."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from verisight.data.files import append_jsonl, read_jsonl
from verisight.data.views import Rows, View
from verisight.models.policy import Policy
from verisight.models.ranks import ranks
from verisight.negatives.bdhs import Hallucinate, Negative
from verisight.sources.collect import collect, numbered, unusable
from verisight.types import Answer, BadRow, Pair, Prompt, Source, UserError

NO_PAIR = "rejected equals chosen, or is empty"
NOT_TOLD_APART = "made answer equals the rejected one"
NO_ANSWER = "no answer was made"
Join = Callable[[Pair, Negative], Pair | str]


def paired(example: Pair, negative: Negative, *, origin: str) -> Pair | str:
    """The example with its negative as the rejected answer, or why it makes no pair."""
    if why := _no_pair(example, negative):
        return why
    notes = example.notes | negative.as_notes()
    return replace(
        example, rejected=(Answer(negative.text),), weights=(1.0,), origin=origin, notes=notes, rejected_images=()
    )


def averaged(example: Pair, negative: Negative, *, gamma: float, origin: str) -> Pair | str:
    """The pair with its negative as one more rejected answer of weight 1 - gamma, the others together gamma (eq. 5).

    Or why it makes no pair. Its notes are under `added`.
    """
    if why := _no_pair(example, negative):
        return why
    if negative.text.strip() in (answer.text.strip() for answer in example.rejected):
        return NOT_TOLD_APART
    return replace(
        example,
        rejected=(*example.rejected, Answer(negative.text)),
        weights=(*(gamma * weight for weight in example.weights), 1 - gamma),
        origin=f"{example.origin}+{origin}",
        notes=example.notes | {"added": negative.as_notes()},
    )


def _no_pair(example: Pair, negative: Negative) -> str:
    if "problem" in negative.notes:
        return NO_ANSWER
    if negative.text.strip() in ("", example.chosen.text.strip()):
        return NO_PAIR
    return unusable(negative.text)


def generate_pairs(
    policy: Policy, examples: Sequence[Pair], hallucinate: Hallucinate, *, join: Join, seed: int, batch_size: int,
    journal: Path, advance: Callable[..., None] = lambda amount=1, note="": None,
) -> tuple[Sequence[Pair], list[BadRow]]:  # fmt: skip
    """One pair for every example, put together by `join` when it is asked for.

    Finished batches are kept in `journal`, so a killed call continues there; answers that could not be made are asked
    for again. A negative that makes no pair is returned among the bad rows, as a fault where no answer was made.
    """
    negatives = ranks().told(_journalled(journal, examples) if ranks().main else [])[0]
    advance(len(negatives))
    again = [row for row, negative in enumerate(negatives) if "problem" in negative.notes]
    for start in range(0, len(again), batch_size):
        rows = again[start : start + batch_size]
        some = [examples[row] for row in rows]
        made = _shared(hallucinate, policy, [e.prompt for e in some], [e.chosen.text for e in some], seed=seed)
        for row, negative in zip(rows, made, strict=True):
            negatives[row] = negative
    done = len(negatives)  # a batch that a kill tore is made whole again: rounding depends on its rows
    for start in range(done // batch_size * batch_size, len(examples), batch_size):
        batch = examples[start : start + batch_size]
        made = _shared(hallucinate, policy, [e.prompt for e in batch], [e.chosen.text for e in batch], seed=seed)
        new = list(zip(batch, made, strict=True))[max(0, done - start) :]
        for example, negative in new:
            if ranks().main:
                append_jsonl(journal, {"row": _key(example), "negative": asdict(negative)})
            negatives.append(negative)
        first = sum(n.round == 1 for n in negatives) / len(negatives)
        advance(len(new), note=f"{first:.0%} in the first round")
    kept, bad = [], []
    for row, (example, negative) in enumerate(zip(examples, negatives, strict=True)):
        if isinstance(why := join(example, negative), str):
            detail = str(negative.notes.get("problem", negative.text))
            bad.append(BadRow(example.prompt.provenance, row, why, detail, fault=why == NO_ANSWER))
        else:
            kept.append(row)
    return _Joined(View(examples, kept), [negatives[row] for row in kept], join), bad


def _shared(
    hallucinate: Hallucinate, policy: Policy, prompts: Sequence[Prompt], texts: Sequence[str], *, seed: int
) -> list[Negative]:
    """A negative for every prompt and its answer; every process makes its part of them."""
    pairs = list(zip(prompts, texts, strict=True))
    return ranks().share(
        pairs, lambda some: hallucinate(policy, [prompt for prompt, _ in some], [text for _, text in some], seed=seed)
    )


class _Joined(Rows):
    def __init__(self, examples: Sequence[Pair], negatives: Sequence[Negative], join: Join) -> None:
        self._examples, self._negatives, self._join = examples, negatives, join

    def __len__(self) -> int:
        return len(self._examples)

    def at(self, number: int) -> Pair:
        made = self._join(self._examples[number], self._negatives[number])
        assert isinstance(made, Pair), "only negatives that make a pair are kept"
        return made


def _journalled(journal: Path, examples: Sequence[Pair]) -> list[Negative]:
    rows = read_jsonl(journal) if journal.exists() else []
    for index, (row, example) in enumerate(zip(rows, examples, strict=False)):
        if row["row"] != _key(example):
            raise UserError(
                f"{journal}: line {index + 1} was made for another row than {example.prompt.provenance}: the data "
                "changed since this run was killed; accepted: the data it began with, or a new output folder"
            )
    return [_negative(row["negative"]) for row in rows[: len(examples)]]


def _negative(told: dict[str, Any]) -> Negative:
    return Negative(**told | {"spans": tuple((start, end) for start, end in told["spans"])})


def _key(example: Pair) -> str:
    told = f"{example.prompt.uid}\n{example.prompt.text}\n{example.chosen.text}"
    return hashlib.sha256(told.encode()).hexdigest()[:16]


class Generated:
    """Online negatives: every draw lets the current policy hallucinate against the next pairs of `examples`.

    With `join` = `paired` the negative is the rejected answer; with `averaged` it is one more of them, which is
    Averaged-DPO (the paper's eq. 5). Examples whose negative makes no pair are passed over and counted.

    Raises:
        UserError: by `draw`, after as many examples as 10 batches have, one after another, without a pair.
    """

    def __init__(
        self, examples: Source, hallucinate: Hallucinate, *, join: Join, seed: int, batch_size: int = 16,
        stream: str = "",
    ) -> None:  # fmt: skip
        self._examples = examples
        self._hallucinate = hallucinate
        self._join = join
        self._seed = seed
        self._batch_size = batch_size
        self._stream = stream
        self._num_drawn = 0
        self._left_out: Counter[str] = Counter()

    def draw(self, n: int, policy: Policy) -> list[Pair]:
        """The next n pairs, made by `policy` as it is now."""
        return collect(n, lambda num: self._attempt(num, policy), batch_size=self._batch_size, left_out=self._left_out)

    def _attempt(self, num: int, policy: Policy) -> list[Pair]:
        batch = self._examples.draw(num, policy)
        prompts = numbered([example.prompt for example in batch], first=self._num_drawn, stream=self._stream)
        self._num_drawn += len(batch)
        made = _shared(self._hallucinate, policy, prompts, [e.chosen.text for e in batch], seed=self._seed)
        pairs = [self._join(example, negative) for example, negative in zip(batch, made, strict=True)]
        self._left_out.update(why for why in pairs if isinstance(why, str))
        return [pair for pair in pairs if isinstance(pair, Pair)]

    def counts(self) -> dict[str, int]:
        """What was left out so far, by reason."""
        return dict(self._left_out + Counter(self._examples.counts()))

    def state_dict(self) -> dict[str, Any]:
        """Position in the examples and in the random stream."""
        return {
            "examples": self._examples.state_dict(), "num_drawn": self._num_drawn, "left_out": dict(self._left_out)
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where the state was taken."""
        self._examples.load_state_dict(state["examples"])
        self._num_drawn, self._left_out = int(state["num_drawn"]), Counter(state["left_out"])


class Averaged:
    """Two rejected answers for one chosen: gamma x objective(y+, y-) + (1 - gamma) x objective(y+, y~-), eq. 5.

    y- comes with the pairs of `source`, y~- from the current policy (`Generated` with `averaged`); both stay in one
    group, so that the prompt is forwarded once. gamma 1 gives the pairs of `source` as they are.
    """

    def __init__(
        self, source: Source, hallucinate: Hallucinate, *, gamma: float, origin: str, seed: int, batch_size: int = 16,
        stream: str = "",
    ) -> None:  # fmt: skip
        def join(example: Pair, negative: Negative) -> Pair | str:
            return averaged(example, negative, gamma=gamma, origin=origin)

        generated = Generated(source, hallucinate, join=join, seed=seed, batch_size=batch_size, stream=stream)
        self._source: Source = source if gamma == 1 else generated

    def draw(self, n: int, policy: Policy) -> list[Pair]:
        """The next n pairs, y~- made by `policy` as it is now."""
        return self._source.draw(n, policy)

    def counts(self) -> dict[str, int]:
        """What was left out so far, by reason."""
        return self._source.counts()

    def state_dict(self) -> dict[str, Any]:
        """That of the sources below."""
        return self._source.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where the state was taken."""
        self._source.load_state_dict(state)
