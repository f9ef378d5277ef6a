"""Token-forced guidance: the distortion of POVID."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from verisight.models.encoding import Encoder
from verisight.models.hiding import Sight
from verisight.models.policy import Policy
from verisight.negatives.guidance import Written, num_common
from verisight.types import Decoding, Prompt


@dataclass(frozen=True, slots=True)
class TokenForced:
    """Token t is what the policy says next behind the first t true tokens of the reference (Zhou et al. 2024, POVID).

    POVID takes the likeliest token (temperature 0) under a noised picture. The answer has as many tokens as the
    reference, but ends where the policy says the end token. What came out may be no words: nothing that was said is
    read again. `spans` are where tokens differ from the reference's.
    """

    @property
    def kind(self) -> str:
        """Its name in notes."""
        return "token_forced"

    def write(
        self, policy: Policy, prompts: Sequence[Prompt], references: Sequence[str], *, sights: Sequence[Sight],
        rngs: Sequence[np.random.Generator], seed: int, decoding: Decoding,
    ) -> list[Written]:  # fmt: skip
        """One answer per reference."""
        assert len(prompts) == len(rngs)
        drawn = policy.forced(prompts, references, decoding=decoding, seed=seed, sights=sights)
        written = []
        for prompt, reference, answer in zip(prompts, references, drawn, strict=True):
            true, _ = policy.encoder.text_tokens(prompt, reference)
            differs = [one != other for one, other in zip(answer.token_ids, true, strict=False)]
            spans = tuple(_spans(policy.encoder, answer.token_ids, differs))
            written.append(Written(answer.text, spans, {"cuts": [], "truncated": answer.truncated}))
        return written


def _spans(encoder: Encoder, ids: Sequence[int], marked: Sequence[bool]) -> Iterator[tuple[int, int]]:
    """Where in `encoder.decode(ids)` the runs of marked tokens stand; a character is marked if one of its tokens is."""
    raw = encoder.text(ids)
    lead, num = len(raw) - len(raw.lstrip()), len(raw.strip())
    done = at = 0
    for mark, run in groupby(marked):
        start, at = at, at + len(list(run))
        if mark:
            left, right = (_length(raw, encoder.text(ids[:k]), whole) for k, whole in ((start, False), (at, True)))
            span = max(done, left - lead), min(num, right - lead)
            if span[0] < span[1]:
                yield span
            done = max(done, span[1])


def _length(raw: str, begun: str, whole: bool) -> int:
    """Characters of `raw` that its first tokens make, `begun` being their text; `whole`: one cut in two counts too."""
    return num_common(raw, begun) + (whole and not raw.startswith(begun))
