"""Algorithm 1 of the paper (BDHS): hallucinations drawn from the policy itself, as view x guidance x check."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from verisight.models.policy import Policy
from verisight.negatives.checks import Check
from verisight.negatives.guidance import Free, Guidance
from verisight.negatives.views import View
from verisight.types import Decoding, Prompt


@dataclass(frozen=True, slots=True)
class Negative:
    """A hallucinated answer: in which round (1-based) it was taken, whether guided, how similar to the reference."""

    text: str
    round: int
    guided: bool
    similarity: float


@dataclass(frozen=True, slots=True)
class Hallucinate:
    """Draws a negative for every reference answer in at most `rounds` rounds.

    Every round takes a new view and new cuts for the answers still too similar. With more than one round, the last
    one samples the whole answer freely and keeps it whatever its similarity (algorithm 1, step 3).
    """

    view: View
    guidance: Guidance
    check: Check
    rounds: int = 5
    decoding: Decoding = Decoding(temperature=1.0)
    free: Free = Free()

    def __call__(
        self, policy: Policy, prompts: Sequence[Prompt], references: Sequence[str], *, seed: int
    ) -> list[Negative]:
        """Negatives in the prompts' order. A row's answer depends on seed, policy and prompt, not on its batch."""
        num_image_tokens = policy.num_image_tokens(prompts)
        made: dict[int, Negative] = {}
        for round_ in range(1, self.rounds + 1):
            left = [i for i in range(len(prompts)) if i not in made]
            if not left:
                break
            writer = self.free if self.rounds > 1 and round_ == self.rounds else self.guidance
            rngs = [np.random.default_rng([seed, round_, zlib.crc32(prompts[i].uid.encode())]) for i in left]
            draw = self.view.draw
            written = writer.write(
                policy,
                [prompts[i] for i in left],
                [references[i] for i in left],
                sights=[draw(num_image_tokens=num_image_tokens[i], rng=rng) for i, rng in zip(left, rngs, strict=True)],
                rngs=rngs,
                seed=seed * 1_009 + round_,
                decoding=self.decoding,
            )
            kept, similarity = self.check.keep([references[i] for i in left], written)
            for i, text, keep, value in zip(left, written, kept, similarity, strict=True):
                if keep or round_ == self.rounds:
                    made[i] = Negative(text, round_, not isinstance(writer, Free), float(value))
        return [made[i] for i in range(len(prompts))]
