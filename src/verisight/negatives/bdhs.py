"""Algorithm 1 of the paper (BDHS): hallucinations drawn from the policy itself, as view x guidance x check."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from verisight.models.policy import Policy
from verisight.negatives.checks import Check
from verisight.negatives.guidance import Free, Guidance, Written
from verisight.negatives.views import Seen, View
from verisight.types import Decoding, Prompt, UserError


@dataclass(frozen=True, slots=True)
class Negative:
    """A hallucinated answer, and how it was made: in which round (1-based) it was taken, whether guided, how similar.

    `similarity` is None where none was measured. `spans`: characters that the model wrote. `view` and `notes` are JSON
    values of the draw (mask, cuts, seed).
    """

    text: str
    round: int
    guided: bool
    similarity: float | None
    spans: tuple[tuple[int, int], ...] = ()
    view: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    def as_notes(self) -> dict[str, Any]:
        """What a pair's notes say about its rejected answer."""
        similarity = None if self.similarity is None else round(self.similarity, 6)
        told = {"round": self.round, "guided": self.guided, "similarity": similarity, "view": self.view}
        return told | self.notes | {"written": [list(span) for span in self.spans]}


@dataclass(frozen=True, slots=True)
class Hallucinate:
    """Draws a negative for every reference answer in at most `rounds` rounds.

    Every round takes a new view and new cuts for the answers still too similar. With more than one round, the last
    one writes with `free` (samples the whole answer) and keeps it whatever its similarity (algorithm 1, step 3).

    Raises:
        UserError: fewer than one round; when called, a seed below 0.
    """

    view: View
    guidance: Guidance
    check: Check
    rounds: int = 5
    decoding: Decoding = Decoding(temperature=1.0)
    free: Guidance = Free()

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise UserError(f"rounds: found {self.rounds}; accepted: 1 or more")

    def __call__(
        self, policy: Policy, prompts: Sequence[Prompt], references: Sequence[str], *, seed: int
    ) -> list[Negative]:
        """Negatives in the prompts' order. A row's answer depends on seed, policy and prompt, not on its batch."""
        if seed < 0:
            raise UserError(f"seed: found {seed}; accepted: 0 or more")
        made: dict[int, Negative] = {}
        for round_ in range(1, self.rounds + 1):
            left = [i for i in range(len(prompts)) if i not in made]
            if not left:
                break
            writer = self.free if self.rounds > 1 and round_ == self.rounds else self.guidance
            some = [prompts[i] for i in left]
            texts = [references[i] for i in left]
            seen, written = self._write(policy, writer, some, texts, seed=seed, round_=round_)
            kept, similarity = self.check.keep(texts, [one.text for one in written])
            for i, look, one, keep, value in zip(left, seen, written, kept, similarity, strict=True):
                failed = "problem" in one.notes  # nothing was written: nothing to compare
                if (keep and not failed) or round_ == self.rounds:
                    notes = {"seed": seed, "guidance": writer.kind, **one.notes, **self.check.notes}
                    measured = None if failed or math.isnan(value) else float(value)
                    guided = writer.kind != "free"
                    made[i] = Negative(one.text, round_, guided, measured, one.spans, look.notes, notes)
        return [made[i] for i in range(len(prompts))]

    def _write(
        self, policy: Policy, writer: Guidance, prompts: Sequence[Prompt], references: Sequence[str], *, seed: int,
        round_: int,
    ) -> tuple[list[Seen], list[Written]]:  # fmt: skip
        """One round: a look at every prompt, and what is written from it."""
        rngs = [np.random.default_rng([seed, round_, zlib.crc32(prompt.uid.encode())]) for prompt in prompts]
        seen = self.view.look(policy, prompts, rngs=rngs)
        written = writer.write(
            policy,
            [look.prompt for look in seen],
            references,
            sights=[look.sight for look in seen],
            rngs=rngs,
            seed=seed * 1_009 + round_,
            decoding=self.decoding,
        )
        return seen, written
