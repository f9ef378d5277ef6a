"""Guidance: how closely a negative follows the reference answer. The second axis of a negative."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from verisight.models.hiding import Sight
from verisight.models.policy import Policy
from verisight.negatives.sentences import length_of_marker, split_sentences
from verisight.types import Decoding, Prompt, Sampled, UserError

_YES_NO = re.compile(r"^\s*(Yes|yes|No|no)\b")
_COUNTERPART = {"Yes": "No", "yes": "no", "No": "Yes", "no": "yes"}


@dataclass(frozen=True, slots=True)
class Written:
    """A written answer. `spans`: half-open character spans that the policy wrote, sorted; the rest is the reference's.

    A yes or no that was swapped for its counterpart is in no span: the policy did not write it.
    `notes` are JSON values: `cuts` (tokens kept of each sentence), `truncated` (a piece met its token limit).
    """

    text: str
    spans: tuple[tuple[int, int], ...]
    notes: dict[str, Any] = field(default_factory=dict)


class Guidance(Protocol):
    """Writes one hallucinated answer for every reference answer."""

    @property
    def kind(self) -> str:
        """Its name in notes."""
        ...

    def write(
        self, policy: Policy, prompts: Sequence[Prompt], references: Sequence[str], *, sights: Sequence[Sight],
        rngs: Sequence[np.random.Generator], seed: int, decoding: Decoding,
    ) -> list[Written]:  # fmt: skip
        """Answers in the prompts' order. `rngs`: one random stream a row for cuts and swaps; `seed`: for sampling."""
        ...


def swap_yes_no(sentence: str) -> str:
    """A sentence that begins with yes or no with the counterpart in its place, others unchanged.

    The paper's regex, but whole words only: as printed it also makes "Yesthing" of "Nothing" and "Yest" of "Not".
    """
    return _YES_NO.sub(lambda match: match[0].replace(match[1], _COUNTERPART[match[1]]), sentence, count=1)


@dataclass(frozen=True, slots=True)
class Beginning:
    """The kept part of one sentence: token ids from the answer's start, and where in them the sentence begins.

    `gap` is the text between the previous sentence and this one (a blank, a new paragraph, nothing). The sentence's
    first token may hold the stop before it as well, where no blank is between: `num_before` characters of it. `lines`
    are the line breaks in what was cut off.
    """

    ids: tuple[int, ...]
    sentence_start: int
    gap: str
    num_before: int = 0
    lines: int = 0


def begin_sentences(
    policy: Policy, prompt: Prompt, reference: str, *, yes_no_swap: float, rng: np.random.Generator
) -> list[Beginning]:
    """Cut every sentence of the reference at a random token, behind the true previous sentences (the paper's eq. 7).

    A sentence that begins with yes/no is swapped first, with probability `yes_no_swap`. At least one token of each
    sentence is kept, of an item of a list all of its marker ("1."), and, where there is another, at least one is left
    to be written.
    """
    beginnings, previous_end = [], 0
    for first, end in split_sentences(reference):
        sentence = reference[first:end]
        swapped = swap_yes_no(sentence)
        told = reference[:first] + (swapped if swapped != sentence and rng.random() < yes_no_swap else sentence)
        ids, spans = policy.encoder.text_tokens(prompt, told)
        start = next((i for i, (_, right) in enumerate(spans) if right > first), None)
        if start is None:
            raise UserError(f"row {prompt.uid}: {sentence!r} has no tokens in this model; accepted: text that has")
        marked = first + length_of_marker(sentence)
        least = max(start + 1, next((i for i, (_, right) in enumerate(spans) if right > marked), len(ids)))
        cut = int(rng.integers(least, max(least + 1, len(ids))))
        lines = len(told[spans[cut - 1][1] :].splitlines()) - 1
        num_before = len(reference[spans[start][0] : first].lstrip())
        gap = reference[previous_end:first]
        beginnings.append(Beginning(tuple(ids[:cut]), start, gap, num_before, max(0, lines)))
        previous_end = end
    return beginnings


@dataclass(frozen=True, slots=True)
class SentenceGuided:
    """Every sentence keeps its random beginning and the policy finishes it, each on its own (algorithm 1, step 4).

    Where what was written is more than the sentence by the rules that split the reference, the rest is dropped: a
    policy that would write the reference itself gives it back.

    Raises:
        UserError: `yes_no_swap` is no probability.
    """

    yes_no_swap: float = 0.5
    max_new_tokens: int = 64

    def __post_init__(self) -> None:
        if not 0 <= self.yes_no_swap <= 1:
            raise UserError(f"yes_no_swap: found {self.yes_no_swap}; accepted: a probability, 0 to 1")

    @property
    def kind(self) -> str:
        """Its name in notes."""
        return "sentence_guided"

    def write(
        self, policy: Policy, prompts: Sequence[Prompt], references: Sequence[str], *, sights: Sequence[Sight],
        rngs: Sequence[np.random.Generator], seed: int, decoding: Decoding,
    ) -> list[Written]:  # fmt: skip
        """One answer per reference, its sentences joined as they stand in the reference."""
        begun = [
            begin_sentences(policy, prompt, text, yes_no_swap=self.yes_no_swap, rng=rng)
            for prompt, text, rng in zip(prompts, references, rngs, strict=True)
        ]
        finished = policy.branch(
            prompts,
            [[beginning.ids for beginning in sentences] for sentences in begun],
            decoding=replace(decoding, max_new_tokens=self.max_new_tokens),
            seed=seed,
            lines=[[beginning.lines for beginning in sentences] for sentences in begun],
            sights=sights,
        )
        return [_joined(policy, sentences, row, decoding.stop) for sentences, row in zip(begun, finished, strict=True)]


def _joined(
    policy: Policy, sentences: Sequence[Beginning], finished: Sequence[Sampled], stops: Sequence[str]
) -> Written:
    """Sentences as they stand in the reference, each with its own end."""
    text, spans, truncated = "", [], False
    for beginning, drawn in zip(sentences, finished, strict=True):
        own = beginning.ids[beginning.sentence_start :]
        kept, whole = (policy.encoder.decode([*own, *new])[beginning.num_before :] for new in ((), drawn.token_ids))
        given = num_common(kept, whole)  # less than `kept` where a letter is of two tokens
        end = _end(whole, given, stops)
        truncated |= drawn.truncated and end == len(whole)
        text += beginning.gap
        start = len(text) + given
        text += whole[:end]
        if start < len(text):
            spans.append((start, len(text)))
    cuts = [len(beginning.ids) - beginning.sentence_start for beginning in sentences]
    return Written(text, tuple(spans), {"cuts": cuts, "truncated": truncated})


def _end(text: str, given: int, stops: Sequence[str]) -> int:
    """Where the sentence that goes on behind the first `given` characters ends, or a stop string begins in it."""
    end = next((right for _, right in split_sentences(text) if right >= given), len(text))
    return min([end, *(text.index(stop, given) for stop in stops if stop in text[given:])])


def num_common(one: str, two: str) -> int:
    """Characters that two texts begin with together."""
    return next((at for at, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))


@dataclass(frozen=True, slots=True)
class Free:
    """The whole answer from the spoiled view, the reference unseen (algorithm 1, step 3; or no guidance at all)."""

    max_new_tokens: int = 256

    @property
    def kind(self) -> str:
        """Its name in notes."""
        return "free"

    def write(
        self, policy: Policy, prompts: Sequence[Prompt], references: Sequence[str], *, sights: Sequence[Sight],
        rngs: Sequence[np.random.Generator], seed: int, decoding: Decoding,
    ) -> list[Written]:  # fmt: skip
        """One answer per prompt."""
        assert len(prompts) == len(references)
        rows = policy.sample(
            prompts,
            decoding=replace(decoding, max_new_tokens=self.max_new_tokens),
            seed=seed,
            sights=sights,
        )
        return [
            Written(row[0].text, ((0, len(row[0].text)),), {"cuts": [], "truncated": row[0].truncated}) for row in rows
        ]
